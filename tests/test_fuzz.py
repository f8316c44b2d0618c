"""Fuzzing: the space holds valid cases only, a failure ends small and can be replayed, a stopped hunt goes on."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lnbench import config
from lnbench.case import DTYPES
from lnbench.cli._app import app
from lnbench.errors import EnvironmentUnfit, Exit, UnknownBackend, UsageError
from lnbench.fuzz.hunt import STATE, Hunt, hunt
from lnbench.fuzz.space import MAX_ELEMENTS, RandomChooser, draw_case
from lnbench.operators import registry
from lnbench.verify.examiner import Options

OPS = registry.names()
MUTANTS = "lnbench.selftest.mutants"


def cases(seed: int, count: int) -> list[Any]:
    choose = RandomChooser(seed)
    return [draw_case(choose, OPS) for _ in range(count)]


def test_every_random_case_is_one_that_a_case_file_may_hold() -> None:
    for case in cases(1, 200):
        assert config.inline(case.inline()) == [case]
        assert case.elements <= MAX_ELEMENTS


def test_the_space_reaches_every_type_operator_layout_and_axis_form() -> None:
    drawn = cases(2, 3000)
    assert {c.dtype for c in drawn} == set(DTYPES)
    assert {c.op for c in drawn} == set(OPS)
    assert len({c.layout for c in drawn} | {c.dy_layout for c in drawn} | {c.out_layout for c in drawn}) == 8
    assert {type(c.axis) for c in drawn} == {int, tuple}
    assert len({c.law_of("x") for c in drawn}) > 15
    assert min(Counter(len(c.shape) for c in drawn).values()) > 20
    assert any(c.elements == 0 for c in drawn) and any(c.threads > 1 for c in drawn)


def test_a_smaller_room_gives_smaller_cases() -> None:
    choose = RandomChooser(3)
    assert max(draw_case(choose, ("layer_norm",), 64).elements for _ in range(300)) <= 64


def what(backend: str, folder: Path, seconds: float = 20.0, **more: Any) -> Hunt:
    return Hunt(f"{MUTANTS}:{backend}", seconds, 0, folder, options=Options(checks=("bound",)), **more)


def test_a_failure_ends_as_a_small_case(tmp_path: Path) -> None:
    outcome = hunt(what("unbiased", tmp_path))
    assert outcome.failure is not None
    case = outcome.failure.case
    assert case.elements <= 4
    assert case.dtype == "float32" and case.layout == "contiguous" and case.threads == 1


def test_a_failure_is_found_again_at_once(tmp_path: Path) -> None:
    first = hunt(what("padding_to_power_of_two", tmp_path))
    again = hunt(what("padding_to_power_of_two", tmp_path))
    assert first.failure is not None and again.failure is not None
    assert again.failure.case == first.failure.case
    assert again.cases < first.cases


def test_a_stopped_hunt_goes_on_after_its_last_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lnbench.fuzz.hunt.ROUND", 4)
    mine = what("row_cap_65535", tmp_path, 2.5)
    first = hunt(mine)
    assert first.failure is None and first.rounds > 0
    assert json.loads((mine.state / STATE).read_text())["rounds"] == first.rounds
    assert hunt(mine).rounds > first.rounds


def test_a_broken_state_is_told(tmp_path: Path) -> None:
    mine = what("unbiased", tmp_path)
    mine.state.mkdir(parents=True)
    (mine.state / STATE).write_text("[]")
    with pytest.raises(UsageError, match="remove it"):
        hunt(mine)


def test_without_hypothesis_the_install_command_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(EnvironmentUnfit, match=r"pip install 'lnbench\[fuzz\]'"):
        hunt(what("unbiased", tmp_path))


def test_an_unknown_backend_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnknownBackend):
        hunt(Hunt("no-such-backend", 5.0, 0, tmp_path))


def invoke(*words: str) -> Any:
    return CliRunner().invoke(app, ["fuzz", *words])


@pytest.mark.parametrize("option", ["--state", "--output"])
def test_what_cannot_be_written_is_refused_before_the_hunt(tmp_path: Path, option: str) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["fuzz", "--state", str(tmp_path / "s"), option, str(tmp_path / "file" / "below")])
    assert result.exit_code == Exit.USAGE and result.stderr.startswith("lnbench: error: cannot write")
    assert not (tmp_path / "s").exists()


def test_the_command_writes_a_file_that_verify_replays(tmp_path: Path) -> None:
    backend, output = f"{MUTANTS}:beta_before_gamma", tmp_path / "found.yaml"
    result = invoke("--backend", backend, "--time-budget", "20s", "--check", "bound", "--state", str(tmp_path / "s"),
                    "--output", str(output))  # fmt: skip
    assert result.exit_code == 1, result.output
    assert f"lnbench verify {output} --backend {backend}" in result.output
    assert [c.name for c in config.load(str(output))] == ["fuzz"]
    replayed = CliRunner().invoke(
        app, ["verify", str(output), "--backend", backend, "--check", "bound", "--output", str(tmp_path / "run")]
    )
    assert replayed.exit_code == 1, replayed.output


def test_nothing_found_is_good_and_nothing_judged_is_not(tmp_path: Path) -> None:
    words = ("--time-budget", "1500ms", "--check", "bound", "--state", str(tmp_path))
    good = invoke("--backend", "lnbench.selftest.correct:pairwise", *words)
    assert good.exit_code == 0 and "none fails" in good.output, good.output
    none = invoke("--backend", "lnbench.selftest.correct:pairwise", "--op", "rms_norm", *words)
    assert none.exit_code == 7, none.output
    assert invoke("--op", "layernorm", *words).exit_code == 2
