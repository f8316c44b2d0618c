"""`lnbench bench` from the outside: rows, files, resuming, exit codes. What is measured is tested in tests/bench."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from lnbench import places
from lnbench.bench.statistics import PAIRED, STATISTICS
from lnbench.cli._app import app
from lnbench.cli.bench import command
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


def test_the_command_offers_the_statistics_that_there_are() -> None:
    """The option spells them out, because importing them would import numpy for every `--help`."""
    [option] = [p for p in command.params if p.name == "statistic"]
    assert isinstance(option.type, click.Choice) and tuple(option.type.choices) == STATISTICS
    assert option.default == PAIRED


@pytest.mark.skipif(len(places.allowed()) < 2, reason="one processor: nothing to draw")
@pytest.mark.parametrize(("affinity", "count"), [("drawn", 1), ("any", 0)])
def test_samples_say_where_the_workers_ran(plugin: str, tmp_path: Path, affinity: str, count: int) -> None:
    arguments = ("--affinity", affinity, "--statistic", "q25", "--output", "run")
    assert bench("--case", CASE, "-b", f"{plugin}:good", *QUICK, *arguments).exit_code == Exit.OK
    samples = list(csv.DictReader(io.StringIO((tmp_path / "run" / "samples.csv").read_text())))
    assert all(len(s["processors"].split()) == count for s in samples)
    assert all(0 <= float(s["steal"] or 0) <= 1 for s in samples)
    settings = json.loads((tmp_path / "run" / "environment.json").read_text())["settings"]
    assert settings["affinity"] == affinity and settings["statistic"] == "q25"


def test_finished_epochs_are_not_measured_again(plugin: str, tmp_path: Path) -> None:
    assert bench("--case", CASE, "-b", f"{plugin}:good", *QUICK, "--output", "run").exit_code == Exit.OK
    before = (tmp_path / "run" / "samples.csv").read_text()
    assert bench("--resume", "run", "--no-lock").exit_code == Exit.OK
    assert (tmp_path / "run" / "samples.csv").read_text() == before
    header, first, *_ = before.splitlines()
    (tmp_path / "run" / "samples.csv").write_text(f"{header}\n{first}\n")
    assert bench("--resume", "run", "--no-lock").exit_code == Exit.OK
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
        (["--output", "/proc/none"], Exit.USAGE, "--output"),
        (["--output", "plug.py"], Exit.USAGE, "is not a folder"),
        (["--output", "earlier"], Exit.USAGE, "already holds a run"),
        (["--export-csv", "none/t.csv"], Exit.USAGE, "none cannot be written or does not exist"),
        (["--export-json", "/proc/t.json"], Exit.USAGE, "choose another file"),
        (["--export-markdown", "."], Exit.USAGE, "it is a folder"),
        (["--save-baseline", "../mine"], Exit.USAGE, "no name for a baseline"),
        (["--resume", "earlier"], Exit.USAGE, "leave out what selects others"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_is_measured(
    plugin: str, tmp_path: Path, arguments: list[str], code: Exit, words: str
) -> None:
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / "timings.csv").write_text("schema\n")
    result = bench("--case", CASE, "-b", plugin, *arguments)
    assert result.exit_code == code
    [line] = result.stderr.splitlines()
    assert line.startswith("lnbench: error: ") and words in line
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (None, "is not the folder of a run"),
        ({"schema": 1, "command": "verify"}, "holds a run of 'verify', not of 'bench'"),
        ({"schema": 1, "command": "bench"}, "holds no cases.yaml"),
    ],
)
def test_only_the_folder_of_a_benchmark_is_resumed(
    plugin: str, tmp_path: Path, environment: dict[str, object] | None, words: str
) -> None:
    (tmp_path / "other").mkdir()
    if environment is not None:
        (tmp_path / "other" / "environment.json").write_text(json.dumps(environment))
    result = bench("--resume", "other")
    assert result.exit_code == Exit.USAGE
    [line] = result.stderr.splitlines()
    assert words in line


def test_a_quick_look_does_not_measure_the_memory_and_says_so(plugin: str) -> None:
    quick = bench("--case", CASE, "-b", f"{plugin}:good", *QUICK, "--quick")
    assert quick.exit_code == Exit.OK and "`lnbench doctor` measures it once" in quick.stderr
    long = bench("--case", CASE, "-b", f"{plugin}:good", *QUICK)
    assert "Measuring what the memory of this machine can do" in long.stderr
    assert bench("--case", CASE, "-b", f"{plugin}:good", *QUICK, "--quick", "-q").stderr.count("\n") == 1


ENDLESS = ("--epochs", "50", "--rounds", "1", "--output", "run", "--quiet", "--no-lock", "--time-budget", "100s")
Blocks = list[tuple[str, str]]


def blocks(folder: Path) -> Blocks:
    """(epoch, pass) of every whole line of samples, in order and with repeats."""
    text = (folder / "samples.csv").read_text()
    rows = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
    return [(row["epoch"], row["pass"]) for row in rows]


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_its_timings_and_goes_on_where_it_was(
    plugin: str, tmp_path: Path, kind: signal.Signals
) -> None:
    command = [sys.executable, "-m", "lnbench", "bench", "--case", CASE, "-b", f"{plugin}:good", *ENDLESS]
    # A shell that runs the tests in the background has them ignore Ctrl-C, and what they start with them.
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )
    folder, deadline = tmp_path / "run", time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "timings.csv").exists() and len(set(blocks(folder))) >= 3:
            break
        time.sleep(0.02)
    process.send_signal(kind)
    _, said = process.communicate(timeout=30)
    assert process.returncode == (Exit.INTERRUPTED if kind is signal.SIGINT else -kind), said
    [row] = csv.DictReader(io.StringIO((folder / "timings.csv").read_text()))
    assert row["verdict"] == "BASELINE" and float(row["seconds"]) > 0 and int(row["epochs"]) >= 2

    before = blocks(folder)
    settings = json.loads((folder / "environment.json").read_text())
    settings["settings"]["epochs"] = len(before) + 2
    (folder / "environment.json").write_text(json.dumps(settings))
    assert bench("--resume", "run", "--no-lock").exit_code == Exit.OK
    after = blocks(folder)
    assert after[: len(before)] == before and len(after) == len(set(after)) == len(before) + 2


def test_the_plan_is_printed_without_measuring(plugin: str, tmp_path: Path) -> None:
    result = bench("--case", CASE, "--threads", "1,2", "--list")
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [["small", "forward"]] * 2
    assert not (tmp_path / "results").exists()
