"""The self-test as a whole: random cases repeat, numbers add up, tables and the exit code say what happened."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lnbench.cli._app import app
from lnbench.selftest import accusing, correct, run, tables
from lnbench.selftest.accusing import Accusation, Trial
from lnbench.selftest.killing import Kill, Target
from lnbench.selftest.run import Summary

TARGET = Target("bug", "A", "what is wrong", "layer_norm", "spec")
KILL = Kill(TARGET, "case", "key", "forward", "bound", "y", "FAILED", "reason", 3, 0.5, "", {"bound": "case"})
TRIAL = Trial("welford", 100, 900, 0, 2, 0.5, (), 1.0)
ACCUSED = replace(
    TRIAL, accusations=(Accusation("welford", "case", "forward", "bound", "y", "FAILED", "why", "repro"),)
)


def test_random_cases_depend_on_kind_seed_and_batch_only() -> None:
    same = accusing.random_cases("welford", 0, 1, 20)
    assert same == accusing.random_cases("welford", 0, 1, 20)
    assert same != accusing.random_cases("welford", 0, 2, 20)
    assert same != accusing.random_cases("pairwise", 0, 1, 20)


def test_a_correct_kind_is_not_accused() -> None:
    trial = accusing.trial("pairwise", 5, 0, 8)
    assert trial.cases == 8
    assert trial.verdicts > 40
    assert not trial.accusations
    assert 0 < trial.budget <= 1


def test_a_wrong_kind_is_accused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accusing, "SPEC", "lnbench.selftest.mutants:dx_{kind}")
    monkeypatch.setitem(correct.KINDS, "doubled", correct.KINDS["two_pass"])
    trial = accusing.trial("doubled", 0, 0, 3)
    assert trial.accusations
    assert all(a.repro.startswith("lnbench verify --case") for a in trial.accusations)


def test_numbers_add_up_and_decide() -> None:
    good = Summary([KILL], [TRIAL, TRIAL])
    assert good.is_good
    assert good.cases == 200
    assert tables.sentence(good) == (
        "1 of 1 planted bugs found; 0 false accusations against 1 correct kernels over 200 random cases (1,800 verdicts)."
    )
    assert not Summary([KILL, Kill(TARGET)], []).is_good
    assert not Summary([KILL], [ACCUSED]).is_good
    assert tables.sentence(Summary([KILL, Kill(TARGET)])) == "1 of 2 planted bugs found."


def test_tables_hold_every_mutant_and_kind() -> None:
    columns, rows = tables.families([KILL, Kill(TARGET)])
    assert rows == [("A", "variance that cancels", "2", "1", "bound 1")]
    assert len(columns) == len(rows[0])
    columns, rows = tables.matrix([KILL])
    assert columns == ("planted bug", "", "bound") and rows == [("bug", "A", "case")]
    columns, rows = tables.kinds([TRIAL, ACCUSED])
    assert rows == [("welford", "200", "1800", "0", "4", "1", "0.50")] and len(columns) == len(rows[0])
    found = list(csv.DictReader(io.StringIO(tables.csv([KILL, Kill(TARGET, tried=9)]))))
    assert [r["survived"] for r in found] == ["false", "true"] and found[0]["bound"] == "case"


def test_tasks_end_in_any_order_and_all_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correct, "names", lambda: ("welford", "pairwise", "rms_two_pass"))
    monkeypatch.setattr(run, "BATCH", 1)
    trials = run.try_correct(4, 2, 1, on_trial=lambda trial: None)
    assert sorted(t.kind for t in trials) == 2 * ["pairwise"] + 2 * ["rms_two_pass"] + 2 * ["welford"]
    assert all(t.cases == 1 and not t.accusations for t in trials)


def invoke(*words: str) -> Any:
    return CliRunner().invoke(app, ["selftest", *words])


@pytest.fixture
def suite(tmp_path: Path) -> str:
    """A suite of one case."""
    path = tmp_path / "suite.yaml"
    path.write_text("version: 1\ncases: [{shape: [3, 5]}]\n")
    return str(path)


def test_the_command_kills_and_writes_the_kills(tmp_path: Path, suite: str) -> None:
    target = tmp_path / "kills.csv"
    result = invoke("-k", "dx_doubled or unbiased_recomputed", "--suite", suite, "--cases", "0", "--no-c",
                    "--jobs", "1", "--export-csv", str(target))  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "2 of 2 planted bugs found." in result.output
    rows = csv.DictReader(io.StringIO(target.read_text()))
    assert {r["name"] for r in rows} == {"dx_doubled", "unbiased_recomputed"}


def test_a_survivor_fails_the_command(suite: str) -> None:
    result = invoke("-k", "row_cap_65535", "--suite", suite, "--cases", "0", "--no-c", "--jobs", "1")
    assert result.exit_code == 1
    assert "SURVIVED row_cap_65535 [G]" in result.output


def test_the_list_names_bugs_and_kernels() -> None:
    result = invoke("--list")
    assert result.exit_code == 0
    assert "one_pass" in result.output and "c_no_barrier" in result.output and "merged_welford" in result.output


def test_wrong_words_are_refused() -> None:
    assert invoke("-k", "no-such-bug", "--no-c").exit_code == 7
    assert invoke("--plant", "lots").exit_code == 2
