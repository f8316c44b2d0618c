"""The command line: words, files and exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from lnbench.cli._app import app
from lnbench.errors import Exit

SMALL = '{"op": "layer_norm", "shape": [3, 8], "axis": -1, "epsilon": 1e-5, "passes": "forward", "name": "small"}'
LARGE = '{"op": "layer_norm", "shape": [5, 16], "axis": -1, "epsilon": 1e-5, "passes": "forward", "name": "large"}'

PLUGIN = """
import numpy as np
from lnbench import FunctionBackend

def normalize(x, gamma, beta, epsilon, ddof=0):
    mean = x.mean(-1, keepdims=True)
    y = (x - mean) / np.sqrt(x.var(-1, keepdims=True, ddof=ddof) + x.dtype.type(epsilon))
    y = y if gamma is None else y * gamma
    return {"y": y if beta is None else y + beta}

good = FunctionBackend("good")
good.forward("layer_norm")(lambda x, gamma, beta, *, axis, epsilon: normalize(x, gamma, beta, epsilon))
bad = FunctionBackend("bad")
bad.forward("layer_norm")(lambda x, gamma, beta, *, axis, epsilon: normalize(x, gamma, beta, epsilon, ddof=1))
leaves = FunctionBackend("leaves")
leaves.forward("layer_norm")(lambda x, gamma, beta, *, axis, epsilon: __import__("os")._exit(0))
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of three backends, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_ACTIONS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "plug.py").write_text(PLUGIN)
    return "plug.py"


def lnbench(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def verify(*arguments: str, case: str = SMALL) -> Result:
    return lnbench("verify", "--case", case, "--check", "bound", *arguments)


def test_a_right_backend_passes_and_the_last_line_counts(plugin: str) -> None:
    result = verify("--backend", f"{plugin}:good")
    assert result.exit_code == Exit.OK, result.stderr
    last = result.stderr.splitlines()[-1]
    assert "1 verdict on 1 case and 1 backend: 1 PASSED" in last
    assert result.stdout == ""


def test_a_wrong_backend_fails_with_place_values_and_a_command_that_fails_again(plugin: str) -> None:
    result = verify("--backend", f"{plugin}:bad")
    assert result.exit_code == Exit.FAILED
    assert "FAILED small on plug.py:bad" in result.stderr
    assert "expected" in result.stderr and "got" in result.stderr and "y[" in result.stderr
    [command] = [line for line in result.stderr.splitlines() if line.strip().startswith("again: ")]
    words = command.partition("again: ")[2]
    again = subprocess.run(
        words.replace("lnbench", f"{sys.executable} -m lnbench", 1), shell=True, capture_output=True, text=True
    )
    assert again.returncode == Exit.FAILED
    assert "FAILED small" in again.stderr


def test_the_smallest_failing_case_comes_first(plugin: str) -> None:
    result = lnbench("verify", "--case", LARGE, "--case", SMALL, "--check", "bound", "--backend", f"{plugin}:bad")
    blocks = [line for line in result.stderr.splitlines() if line.startswith("FAILED")]
    assert blocks == ["FAILED small on plug.py:bad", "FAILED large on plug.py:bad"]
    assert result.stderr.rstrip().endswith("smallest small.")


def test_a_backend_that_leaves_hurts_no_other(plugin: str) -> None:
    result = verify("--backend", plugin, "--export-csv", "-")
    assert result.exit_code == Exit.CRASHED
    rows = {r["backend"]: r for r in csv.DictReader(io.StringIO(result.stdout))}
    assert {name: r["status"] for name, r in rows.items()} == {
        "plug.py:good": "PASSED",
        "plug.py:bad": "FAILED",
        "plug.py:leaves": "CRASHED",
    }


def test_two_backends_get_a_matrix_of_differences(plugin: str) -> None:
    result = verify("--backend", f"{plugin}:good", "--backend", f"{plugin}:bad")
    assert "largest difference between plug.py:good and plug.py:bad" in result.stderr
    assert not [w for w in verify("--backend", f"{plugin}:good").stderr.splitlines() if "largest difference" in w]


def test_quiet_leaves_failures_and_the_sentence_and_verbose_shows_the_command_first(plugin: str) -> None:
    quiet = verify("--backend", f"{plugin}:good", "-q").stderr.splitlines()
    assert len(quiet) == 1
    loud = verify("--backend", f"{plugin}:good", "-v").stderr.splitlines()
    assert loud[0].startswith("lnbench verify --case") and loud[1].startswith("PASSED")


def test_every_export_is_written_and_says_the_same(plugin: str, tmp_path: Path) -> None:
    result = verify(
        *("--backend", f"{plugin}:bad", "--junit", "j.xml", "--export-csv", "v.csv"),
        *("--export-json", "v.json", "--export-markdown", "v.md", "--output", "run"),
    )
    assert result.exit_code == Exit.FAILED
    document = json.loads((tmp_path / "v.json").read_text())
    assert document["counts"] == {"FAILED": 1} and document["exit_code"] == 1
    assert "--case" in document["verdicts"][0]["repro"]
    suite = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    assert "again: lnbench verify" in (suite.findtext(".//failure") or "")
    assert (tmp_path / "v.csv").read_text() == (tmp_path / "run" / "verdicts.csv").read_text()
    assert "| FAILED | small |" in (tmp_path / "v.md").read_text()
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["exit_code"] == 1


def test_an_interrupted_run_goes_on_where_it_ended(plugin: str, tmp_path: Path) -> None:
    both = ("--case", SMALL, "--case", LARGE, "--check", "bound")
    assert lnbench("verify", *both, "--backend", f"{plugin}:good", "--output", "run").exit_code == 0
    file = tmp_path / "run" / "verdicts.csv"
    whole = file.read_text()
    header, first, _ = whole.splitlines()
    file.write_text(f"{header}\n{first}\nhalf a li")
    (tmp_path / "plug.py").write_text(PLUGIN.replace('FunctionBackend("good")', 'FunctionBackend("good", facts={})'))
    result = lnbench("verify", "--resume", "run", "-v")
    assert result.exit_code == 0, result.stderr
    assert sum(line.startswith("lnbench verify --case") for line in result.stderr.splitlines()) == 1
    assert "2 verdicts on 2 cases" in result.stderr
    assert [r.split(",")[1] for r in file.read_text().splitlines()] == [r.split(",")[1] for r in whole.splitlines()]


def test_a_resumed_run_takes_no_other_cases(plugin: str) -> None:
    assert verify("--backend", f"{plugin}:good", "--output", "run").exit_code == 0
    assert verify("--resume", "run").exit_code == Exit.USAGE
    result = lnbench("verify", "--resume", "run")
    assert result.exit_code == 0 and "1 verdict" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["lst"], Exit.USAGE, "did you mean 'list'"),
        (["verify", "--bakend", "x"], Exit.USAGE, "--backend"),
        (["verify", "nosuite"], Exit.USAGE, "unknown suite 'nosuite'"),
        (["verify", "none.yaml"], Exit.USAGE, "none.yaml"),
        (["verify", "--case", SMALL, "-k", "nothing"], Exit.NOTHING_RUN, "no"),
        (["verify", "--case", SMALL, "-k", "a and"], Exit.USAGE, "-k 'a and'"),
        (["verify", "--case", SMALL, "--set", "axis"], Exit.USAGE, "KEY=VALUE"),
        (["verify", "--case", SMALL, "--threads", "0"], Exit.USAGE, "--threads"),
        (["verify", "--case", SMALL, "--check", "bund", "-b", "plug.py:good"], Exit.USAGE, "'bound'"),
        (["verify", "--case", SMALL, "-b", "nump"], Exit.ENVIRONMENT, "unknown backend 'nump'"),
        (["verify", "--case", SMALL, "-b", "none.py"], Exit.ENVIRONMENT, "none.py"),
        (["verify", "--case", SMALL, "-b", "plug.py:good", "--output", "plug.py/run"], Exit.USAGE, "cannot write"),
        (["verify", "--case", SMALL, "--export-csv", "none/v.csv"], Exit.USAGE, "cannot write none/v.csv"),
        (["verify", "--case", SMALL, "--export-csv", "-", "--junit", "-"], Exit.USAGE, "only one export"),
        (["verify", "--resume", "none"], Exit.USAGE, "none"),
        (["verify", "--case", "{"], Exit.USAGE, ""),
        (["show", "layer_nrm"], Exit.USAGE, "did you mean 'layer_norm'"),
        (["show", "layer_norm", "--shape", "2,3", "--axis", "7"], Exit.USAGE, "axis"),
        (["list", "laws", "smoke"], Exit.USAGE, "takes no file"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing_behind(
    plugin: str, tmp_path: Path, arguments: list[str], code: Exit, words: str
) -> None:
    result = lnbench(*arguments)
    assert result.exit_code == code, result.stderr
    [line] = result.stderr.splitlines()
    assert line.startswith("lnbench: error: ") and words in line
    assert result.stdout == ""
    assert {p.name for p in tmp_path.iterdir()} <= {"plug.py", "__pycache__"}


def test_a_backend_that_cannot_do_anything_is_nothing_run(plugin: str) -> None:
    result = verify("--backend", f"{plugin}:good", "--set", "passes=backward")
    assert result.exit_code == Exit.NOTHING_RUN
    assert "SKIPPED" in result.stderr and "has no backward function" in result.stderr


def test_what_was_skipped_can_fail_a_build(plugin: str) -> None:
    arguments = ["--backend", f"{plugin}:good", "--passes", "forward_backward"]
    assert verify(*arguments).exit_code == Exit.OK
    assert verify(*arguments, "--fail-on", "skipped").exit_code == Exit.NOTHING_RUN


def test_overrides_and_threads_multiply_into_cases(plugin: str) -> None:
    result = verify("--backend", f"{plugin}:good", "--threads", "1,2", "--dtype", "float64", "--list")
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    assert all('"dtype": "float64"' in line for line in lines)
    assert '"threads": 2' in lines[1]


def test_colours_survive_a_pipe_when_asked_for(plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[" not in verify("--backend", f"{plugin}:bad").stderr
    assert "\x1b[" in verify("--backend", f"{plugin}:bad", "--color", "always").stderr
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in verify("--backend", f"{plugin}:bad").stderr
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in verify("--backend", f"{plugin}:bad").stderr


def test_github_gets_annotations(plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    lines = verify("--backend", f"{plugin}:bad").stderr.splitlines()
    [annotation] = [line for line in lines if line.startswith("::error ")]
    assert annotation.startswith("::error title=FAILED small on plug.py%3Abad::")


def test_an_interrupt_keeps_what_was_finished(plugin: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from lnbench.verify import runner

    run = runner.run

    def interrupted(cases: object, *rest: object, on_case, **more: object) -> object:  # type: ignore[no-untyped-def]
        def stop(case: object, backend: str) -> None:
            on_case(case, backend)
            if getattr(case, "name", "") == "large":
                raise KeyboardInterrupt

        return run(cases, *rest, on_case=stop, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "run", interrupted)
    result = lnbench(
        *("verify", "--case", SMALL, "--case", LARGE, "--check", "bound"),
        *("--backend", f"{plugin}:good", "--output", "run"),
    )
    assert result.exit_code == Exit.INTERRUPTED
    assert "lnbench verify --resume run" in result.stderr
    assert len((tmp_path / "run" / "verdicts.csv").read_text().splitlines()) == 2
    monkeypatch.setattr(runner, "run", run)
    assert lnbench("verify", "--resume", "run").exit_code == Exit.OK


def test_a_bug_of_ours_is_a_sentence_without_a_traceback(plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from lnbench.operators import registry

    def broken(name: str) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(registry, "get", broken)
    result = lnbench("show", "layer_norm")
    assert result.exit_code == Exit.FAILED
    assert "a bug of lnbench (ZeroDivisionError: by zero)" in result.stderr and "Traceback" not in result.stderr
    monkeypatch.setenv("LNBENCH_TRACEBACK", "1")
    assert "Traceback" in lnbench("show", "layer_norm").stderr


def test_a_reader_that_leaves_early_is_no_error(plugin: str) -> None:
    command = f"{sys.executable} -m lnbench list laws --json | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout.splitlines() == ["[", "0"]
    assert done.stderr == ""


@pytest.mark.parametrize("what", ["operators", "checks", "laws", "layouts"])
def test_lists_are_tables_and_json(what: str) -> None:
    rows = json.loads(lnbench("list", what, "--json").stdout)
    assert rows and all(rows)
    text = lnbench("list", what).stdout
    assert all(str(next(iter(row.values()))) in text for row in rows)


def test_show_tells_signatures_and_shapes() -> None:
    text = lnbench("show", "layer_norm", "--shape", "4,3,8", "--axis", "[1, 2]").stdout
    assert "layer_norm_grad(dy, x, gamma, mean, rstd, *, axis, epsilon)" in text
    assert "[4, 1, 1]" in text and "[3, 8]" in text
    shown = json.loads(lnbench("show", "layer_norm", "--shape", "4,3,8", "--json").stdout)
    assert {t["name"]: t["shape"] for t in shown["tensors"]}["gamma"] == [8]


def test_the_schema_is_json() -> None:
    assert "properties" in lnbench("schema").stdout
    json.loads(lnbench("schema").stdout)
