"""The planted bugs: enough of every family and pass, alive on ordinary cases, found where they should be."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from lnbench import config, laws
from lnbench.backend import Tensors, is_backend
from lnbench.case import Case
from lnbench.operators import registry
from lnbench.selftest import correct, killing, mutants, native
from lnbench.selftest.killing import Target
from lnbench.selftest.mutants import FAMILIES, MUTANTS, Mutant
from lnbench.verify.bound import reference
from lnbench.verify.verdict import Status, Verdict

ORDINARY = {
    "layer_norm": Case(shape=(6, 40)),
    "rms_norm": Case(op="rms_norm", shape=(6, 40)),
    "batch_norm": Case(op="batch_norm", shape=(6, 4, 3), axis=1, attributes=(("momentum", 0.1), ("training", True))),
}
# One of each family, quick to find; the whole list is what `lnbench selftest` is for.
SAMPLE = ("one_pass", "half_squares", "unbiased", "contracted", "padding_to_eight", "tile_mean", "lost_row",
          "y_with_stride_of_x", "reads_after_gamma", "right_once", "dx_without_gamma", "beta_garbage")  # fmt: skip


def test_every_family_is_planted_in_both_passes() -> None:
    assert len(MUTANTS) >= 110
    by_family = Counter(m.family for m in MUTANTS.values())
    assert set(by_family) == set(FAMILIES)
    assert min(by_family.values()) >= 5
    for family in FAMILIES:
        passes = {p for m in MUTANTS.values() if m.family == family for p in m.passes}
        assert passes == {"forward", "backward"}, family


def test_every_mutant_says_what_is_wrong() -> None:
    for sentences in ([m.sentence for m in MUTANTS.values()], [p.sentence for p in native.PLANTED]):
        assert all(s and not s.endswith(".") for s in sentences)
        assert len(set(sentences)) == len(sentences)


@pytest.mark.parametrize("mutant", [m for m in MUTANTS.values() if not m.dies], ids=lambda m: m.name)
def test_a_mutant_that_does_not_die_runs_an_ordinary_case(mutant: Mutant) -> None:
    case = ORDINARY[mutant.op]
    backend, kind = mutant.backend(), mutant.facts.get("statistics", "rstd")
    inputs = laws.draw(case)
    tensors = registry.get(case.op).tensors(case, kind)
    expected = reference(case, "forward", inputs, kind=kind)
    statistics = {n: a for n, a in expected.items() if n in tensors and tensors[n].role == "statistic"}
    for pass_, given in (("forward", inputs), ("backward", inputs | statistics)):
        names = registry.get(case.op).outputs(case, pass_)
        out = {n: np.full(tensors[n].shape, np.nan, np.float32) for n in names if n in tensors}
        call = backend.prepare(case, pass_, Tensors(given, out), 2)
        call.run()
        assert set(call.outputs()) >= set(out), f"{mutant.name} {pass_}"


def test_mutants_are_plug_ins_of_the_package() -> None:
    assert all(is_backend(getattr(mutants, name)) for name in mutants.names())
    with pytest.raises(AttributeError, match="no_such_bug"):
        _ = mutants.no_such_bug


@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_of_every_family_is_found(name: str) -> None:
    m = MUTANTS[name]
    target = Target(m.name, m.family, m.sentence, m.op, m.spec, m.dies)
    words = (
        "short-rows-float32",
        "constant-rows-17x8",
        "offset-short-float32",
        "tail-5x17",
        "x-layout-layout=row",
        "rows-5x24",
    )
    cases = [c for c in config.load("ci") if c.label.startswith(words)]
    kill = killing.hunt(target, cases)
    assert not kill.survived, kill.problem
    assert kill.case in {c.label for c in cases}


def test_a_correct_kernel_survives_the_hunt() -> None:
    target = Target("two_pass", "A", "", "layer_norm", "lnbench.selftest.correct:two_pass", True)
    kill = killing.hunt(target, [Case(shape=(4, 17))])
    assert kill.survived
    assert kill.tried == 2
    assert not kill.problem


def verdict(status: Status, accepted: bool = False) -> Verdict:
    return Verdict(
        case=Case(shape=(1, 1)), backend="b", pass_="forward", check="bound", status=status, accepted=accepted
    )


def test_dying_counts_only_where_dying_is_the_bug() -> None:
    alive = Target("a", "A", "", "layer_norm", "spec")
    dying = Target("a", "A", "", "layer_norm", "spec", dies=True)
    assert killing.counts(alive, verdict(Status.FAILED)) and killing.counts(alive, verdict(Status.UNSTABLE))
    assert not killing.counts(alive, verdict(Status.ERROR)) and killing.counts(dying, verdict(Status.ERROR))
    assert not killing.counts(dying, verdict(Status.EMPTY)) and not killing.counts(dying, verdict(Status.SKIPPED))
    assert not killing.counts(alive, verdict(Status.FAILED, accepted=True))


def test_a_mutant_that_raises_by_mistake_survives_with_the_reason() -> None:
    target = Target("needed", "L", "", "layer_norm", MUTANTS["beta_needed"].spec)
    kill = killing.hunt(target, [Case(shape=(3, 4), beta=False)])
    assert kill.survived
    assert "TypeError" in kill.problem


def test_no_mutant_shares_its_name_with_a_correct_kind_or_a_library() -> None:
    libraries = [p.name for p in native.PLANTED]
    assert not set(MUTANTS) & set(libraries)
    assert len(libraries) >= 12
    assert "c_correct" not in libraries
    assert not {"two_pass", "welford"} & set(MUTANTS)
    assert {"two_pass", "welford"} <= set(correct.names())
