"""The correct kinds: each is right by the bound, and they really differ from each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from lnbench import laws
from lnbench.backend import Facts, Tensors
from lnbench.case import Case
from lnbench.operators import registry
from lnbench.selftest import correct
from lnbench.verify.bound import judge, reference

CASES = (
    Case(shape=(5, 33), law="offset"),
    Case(shape=(4, 3, 10), axis=1, dtype="float64", law="tail_spike", gamma=False),
    Case(shape=(7, 20), dtype="bfloat16", affine_dtype="float32", epsilon=0.1),
    Case(shape=(6, 16), dtype="float16", law="near_epsilon", beta=False),
    Case(shape=(3, 1)),
)
CHANNELS = Case(op="batch_norm", shape=(6, 4, 5), axis=1, law="offset")


def run(kind: str, case: Case, pass_: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Inputs of a pass and what the kind makes of them, without a worker."""
    facts = Facts.of(correct.KINDS[kind].facts)
    short = case.dtype if facts.statistics_dtype == "storage" else None
    tensors = registry.get(case.op).tensors(case, facts.statistics, short)
    inputs = laws.draw(case)
    if pass_ == "backward" and facts.statistics != "none":
        expected = reference(case, "forward", inputs, kind=facts.statistics, stat_dtype=short)
        inputs |= {n: a for n, a in expected.items() if tensors[n].role == "statistic"}
    call = correct.KINDS[kind].backend().prepare(case, pass_, Tensors(inputs, {}), 2)
    call.run()
    return inputs, call.outputs()


def cases_of(kind: str) -> list[Case]:
    op = correct.KINDS[kind].op
    return [CHANNELS] if op == "batch_norm" else [case.replace(op=op) for case in CASES]


@pytest.mark.parametrize("kind", correct.names())
def test_a_correct_kind_passes_the_bound_in_both_passes(kind: str) -> None:
    facts = Facts.of(correct.KINDS[kind].facts)
    for case in cases_of(kind):
        for pass_ in ("forward", "backward"):
            inputs, found = run(kind, case, pass_)
            asked = set(registry.get(case.op).outputs(case, pass_)) | {facts.statistics}
            got = {n: a for n, a in found.items() if n in asked}
            for output, judged in judge(case, pass_, inputs, got, facts, unsystematic=False).items():
                assert judged.status == "PASSED", f"{kind} {case.inline()} {output}: {judged.reason}"


def test_there_are_enough_kinds_and_they_do_not_share_their_bits() -> None:
    case = Case(shape=(9, 301), law="offset", seed=3)
    kinds = [k for k in correct.names() if correct.KINDS[k].op == "layer_norm"]
    assert len(kinds) >= 14
    results = {run(k, case, "forward")[1]["y"].tobytes() for k in kinds}
    assert len(results) >= 10


def test_kinds_are_plug_ins_of_the_module() -> None:
    assert correct.welford.name == "welford"
    with pytest.raises(AttributeError, match="no_such_kind"):
        _ = correct.no_such_kind


def test_sums_of_integers_are_exact_in_every_order() -> None:
    from lnbench.selftest import sums

    a = np.arange(1, 3 * 77 + 1, dtype=np.float32).reshape(3, 77)
    exact = a.astype(np.float64).sum(axis=1, keepdims=True)
    orders = (
        sums.sequential,
        sums.reversed_,
        sums.tree,
        sums.lanes,
        sums.blocks,
        sums.compensated,
        sums.wide,
        sums.numpy_,
    )
    for order in orders:
        assert np.array_equal(order(a), exact), order.__name__
    assert np.array_equal(sums.multiply_add(a, np.ones_like(a)), exact)
