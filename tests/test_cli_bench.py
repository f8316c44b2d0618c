"""`lnbench bench` from the outside: rows, files, resuming, exit codes. What is measured is tested in tests/bench."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lnbench.cli._app import app
from lnbench.errors import Exit

CASE = '{"op": "layer_norm", "shape": [4, 16], "axis": -1, "epsilon": 1e-5, "passes": "forward", "name": "small"}'
QUICK = ("--epochs", "2", "--rounds", "1")

PLUGIN = """
import numpy as np
from lnbench import FunctionBackend

def normalize(x, gamma, beta, epsilon, ddof=0):
    mean = x.mean(-1, keepdims=True)
    return {"y": (x - mean) / np.sqrt(x.var(-1, keepdims=True, ddof=ddof) + x.dtype.type(epsilon)) * gamma + beta}

good = FunctionBackend("good")
good.forward("layer_norm")(lambda x, gamma, beta, *, axis, epsilon: normalize(x, gamma, beta, epsilon))
bad = FunctionBackend("bad")
bad.forward("layer_norm")(lambda x, gamma, beta, *, axis, epsilon: normalize(x, gamma, beta, epsilon, ddof=1))
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of two backends, in the working directory; the machine's ceilings are taken as unknown."""
    from lnbench.errors import EnvironmentUnfit
    from lnbench.machine import bandwidth

    def unknown(*what: object) -> float:
        raise EnvironmentUnfit("not measured in tests")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(bandwidth, "measure", unknown)
    (tmp_path / "plug.py").write_text(PLUGIN)
    return "plug.py"


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["bench", *arguments])


def test_a_run_writes_rows_and_samples_and_a_wrong_backend_has_no_time(plugin: str, tmp_path: Path) -> None:
    result = bench("--case", CASE, "-b", plugin, *QUICK, "--output", "run", "--export-csv", "-")
    assert result.exit_code == Exit.FAILED, result.stderr
    rows = {r["backend"]: r for r in csv.DictReader(io.StringIO(result.stdout))}
    assert rows["plug.py:good"]["verdict"] == "BASELINE" and float(rows["plug.py:good"]["seconds"]) > 0
    assert rows["plug.py:bad"]["verdict"] == "INVALID" and rows["plug.py:bad"]["seconds"] == ""
    assert result.stdout == (tmp_path / "run" / "timings.csv").read_text()
    samples = list(csv.DictReader(io.StringIO((tmp_path / "run" / "samples.csv").read_text())))
    assert {s["epoch"] for s in samples} == {"0", "1"} and {s["backend"] for s in samples} == {"plug.py:good"}
    assert "small" in result.stderr and "INVALID" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("2 rows on 1 case and pass:")


def test_finished_epochs_are_not_measured_again(plugin: str, tmp_path: Path) -> None:
    assert bench("--case", CASE, "-b", f"{plugin}:good", *QUICK, "--output", "run").exit_code == Exit.OK
    before = (tmp_path / "run" / "samples.csv").read_text()
    assert bench("--resume", "run").exit_code == Exit.OK
    assert (tmp_path / "run" / "samples.csv").read_text() == before
    header, first, *_ = before.splitlines()
    (tmp_path / "run" / "samples.csv").write_text(f"{header}\n{first}\n")
    assert bench("--resume", "run").exit_code == Exit.OK
    again = (tmp_path / "run" / "samples.csv").read_text().splitlines()
    assert len(again) == len(before.splitlines()) and again[1] == first


def test_json_and_markdown_hold_the_same_rows(plugin: str, tmp_path: Path) -> None:
    arguments = ("--case", CASE, "-b", f"{plugin}:good", *QUICK, "--export-json", "t.json", "--export-markdown", "t.md")
    assert bench(*arguments).exit_code == Exit.OK
    [row] = json.loads((tmp_path / "t.json").read_text())["timings"]
    assert row["case"] == "small" and row["verdict"] == "BASELINE"
    assert "| small | forward | float32 |" in (tmp_path / "t.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--margin", "200%"], Exit.USAGE, "2%"),
        (["--time-budget", "soon"], Exit.USAGE, "60s"),
        (["--epochs", "1"], Exit.USAGE, "--epochs"),
        (["--baseline", "plug.py:god"], Exit.USAGE, "did you mean 'plug.py:good'"),
        (["--resume", "none"], Exit.USAGE, "none"),
    ],
)
def test_bad_input_is_one_sentence(plugin: str, arguments: list[str], code: Exit, words: str) -> None:
    result = bench("--case", CASE, "-b", plugin, *arguments)
    assert result.exit_code == code
    [line] = result.stderr.splitlines()
    assert line.startswith("lnbench: error: ") and words in line


def test_the_plan_is_printed_without_measuring(plugin: str, tmp_path: Path) -> None:
    result = bench("--case", CASE, "--threads", "1,2", "--list")
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [["small", "forward"]] * 2
    assert not (tmp_path / "results").exists()
