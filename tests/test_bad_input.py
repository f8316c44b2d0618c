"""Bad input on the real command line: one clear sentence on stderr, the right exit code, nothing half-written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from lnbench import results
from lnbench.case import Case
from lnbench.cli._app import app
from lnbench.errors import Exit

CASE = "{shape: [2, 3], passes: forward}"
HEAD = "version: 1\ncases:\n  - "

CONFIGS: dict[str, tuple[str | bytes, str]] = {
    "unknown key": (HEAD + "{shape: [2, 3], axs: 1}", "config.yaml:3: key 'axs': is unknown (did you mean 'axis'?)"),
    "key given twice": (HEAD + "{shape: [2, 3], shape: [4]}", "given twice"),
    "shape is text": (HEAD + "{shape: two}", "config.yaml:3: key 'shape': is the text 'two'; allowed:"),
    "cases is a number": ("version: 1\ncases: 5\n", "key 'cases': is the number 5"),
    "no case": ("version: 1\ncases: []\n", "at least one case"),
    "newer version": ("version: 9\ncases:\n  - {shape: [2]}\n", "this lnbench reads version 1"),
    "empty": ("", "is empty"),
    "comment only": ("# nothing\n", "is empty"),
    "plain words": ("just words", "where a mapping"),
    "not YAML": ("a: [b\n c: }", "is not YAML"),
    "binary": (b"\xff\xfe\x00\x01binary\x00", "is not UTF-8 text"),
    "control characters": (b"version: 1\ncases: \x01", "is not YAML text"),
    "deeply nested": ("[" * 100_000, "nested more than"),
    "tag that runs code": (HEAD + '{shape: [2], epsilon: !!python/object/apply:os.system ["x"]}', "without tags"),
    "alias bomb": (
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True))
        + "version: 1\ncases: *h\n",
        "aliases",
    ),
    "more than memory": (HEAD + "{shape: [100000, 100000, 100]}", "GiB"),
    "dimension of many digits": (HEAD + f"{{shape: [{'9' * 30}]}}", "key 'shape'"),
    "negative dimension": (HEAD + "{shape: [2, -3]}", "is the number -3"),
    "many dimensions": (HEAD + f"{{shape: [{', '.join(['1'] * 500)}]}}", "a list of 1 to 32 integers"),
    "axis out of range": (HEAD + "{shape: [2, 3], axis: 5}", "axis 5 is out of range for a tensor of rank 2"),
    "axis given twice": (HEAD + "{shape: [2, 3], axis: [1, -1]}", "key 'axis'"),
    "epsilon negative": (HEAD + "{shape: [2, 3], epsilon: -1}", "key 'epsilon': is the number -1; allowed:"),
    "epsilon NaN": (HEAD + "{shape: [2, 3], epsilon: .nan}", "key 'epsilon': is the number nan"),
    "epsilon infinite": (HEAD + "{shape: [2, 3], epsilon: .inf}", "key 'epsilon': is the number inf"),
    "law misspelt": (HEAD + "{shape: [2, 3], law: nrmal}", "did you mean 'normal'?"),
    "no file of inputs": (HEAD + "{shape: [2, 3], inputs: none.npz}", "which is not a file"),
    "inputs of another kind": (HEAD + "{shape: [2, 3], inputs: config.yaml}", "is not a readable .npz archive"),
    "inputs of another shape": (HEAD + "{shape: [2, 3], inputs: wide.npz}", "x has shape [4, 5]"),
}

PLUGINS = {
    "raises.py": ('raise RuntimeError("boom\\nin two lines")\n', Exit.CRASHED, "RuntimeError: boom in two lines"),
    "syntax.py": ("def (\n", Exit.CRASHED, "SyntaxError"),
    "leaves.py": ("import os; os._exit(0)\n", Exit.CRASHED, "exited with status 0"),
    "nothing.py": ("x = 1\n", Exit.ENVIRONMENT, "binds no backend"),
    "text.so": ("not a library", Exit.ENVIRONMENT, "could not be loaded"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    return tmp_path


def held(folder: Path) -> set[str]:
    """What lies in the folder, byte code apart."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if "__pycache__" not in p.parts}


def refused(folder: Path, arguments: list[str], code: Exit, words: str) -> None:
    """One sentence, this exit code, no file more or less than before."""
    before = held(folder)
    result: Result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.stderr
    [line] = result.stderr.splitlines()
    assert line.startswith("lnbench: error: ") and words in line
    assert "Traceback" not in result.output and "a bug of lnbench" not in line
    assert result.stdout == ""
    assert held(folder) == before


@pytest.mark.parametrize("what", CONFIGS)
def test_a_wrong_case_file(folder: Path, what: str) -> None:
    text, words = CONFIGS[what]
    (folder / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    np.savez(folder / "wide.npz", x=np.zeros((4, 5), np.float32))
    refused(folder, ["verify", "config.yaml", "-b", "numpy"], Exit.USAGE, words)


@pytest.mark.parametrize("command", ["verify", "bench", "list"])
def test_every_command_that_reads_cases_refuses_them_alike(folder: Path, command: str) -> None:
    (folder / "config.yaml").write_text(HEAD + "{shape: [2, 3], axs: 1}")
    (folder / "folder.yaml").mkdir()
    start = ["list", "cases"] if command == "list" else [command]
    refused(folder, [*start, "config.yaml"], Exit.USAGE, "did you mean 'axis'?")
    refused(folder, [*start, "none.yaml"], Exit.USAGE, "No such file")
    refused(folder, [*start, "folder.yaml"], Exit.USAGE, "Is a directory")
    refused(folder, [*start, "smke"], Exit.USAGE, "did you mean 'smoke'?")


@pytest.mark.parametrize("name", PLUGINS)
@pytest.mark.parametrize("command", ["verify", "bench"])
def test_a_backend_that_cannot_be_loaded(folder: Path, command: str, name: str) -> None:
    text, code, words = PLUGINS[name]
    (folder / name).write_text(text)
    refused(folder, [command, "-q", "--case", CASE, "--backend", f"./{name}"], code, words)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("numpi", "did you mean 'numpy'?"),
        ("", "unknown backend ''"),
        ("./none.py", "there is no file"),
        ("./none.so", "there is no file"),
        ("no_such_module:thing", "there is no module no_such_module"),
    ],
)
def test_a_backend_that_is_not_there(folder: Path, spec: str, words: str) -> None:
    refused(folder, ["verify", "--case", CASE, "--backend", spec], Exit.ENVIRONMENT, words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--case", "garbage"], "holds the text 'garbage'"),
        (["--case", "{"], "is not YAML"),
        (["--case", ""], "is empty"),
        (["--case", "[1, 2]"], "holds the list [1, 2]"),
        (["--case", "\x01"], "control characters"),
        (["--case", CASE, "--threads", "0"], "counts of 1 or more"),
        (["--case", CASE, "--threads", "two"], "--threads"),
        (["--case", CASE, "--threads", ","], "counts of 1 or more"),
        (["--case", CASE, "-k", "a and"], "ends where a word should be"),
        (["--case", CASE, "-k", "(a"], "a ')' is missing"),
        (["--case", CASE, "-k", "a b"], "join words with 'and' or 'or'"),
        (["--case", CASE, "--timeout", "0"], "is not a duration"),
        (["--case", CASE, "--timeout", "-5s"], "is not a duration"),
        (["--case", CASE, "--timeout", "nan"], "is not a duration"),
        (["--case", CASE, "--timeout", "soon"], "write for example 60s"),
        (["--case", CASE, "--epsilon", "nan"], "key 'epsilon'"),
        (["--case", CASE, "--seed", "-1"], "key 'seed'"),
        (["--case", CASE, "--axis", "7"], "axis 7 is out of range"),
        (["--case", CASE, "--dtype", "float23"], "key 'dtype'"),
        (["--case", CASE, "--set", "axis"], "KEY=VALUE"),
        (["--case", CASE, "--set", "axs=1"], "did you mean 'axis'?"),
    ],
)
@pytest.mark.parametrize("command", ["verify", "bench"])
def test_a_wrong_value_on_the_command_line(folder: Path, command: str, arguments: list[str], words: str) -> None:
    refused(folder, [command, "--backend", "numpy", *arguments], Exit.USAGE, words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--check", "bund"], "'bound'"),
        (["--target", "sse"], "'baseline'"),
        (["--require", "all"], "'stable'"),
        (["--jobs", "-1"], "--jobs"),
        (["--dump", "file/dump"], "file is not a folder; choose another folder with --dump"),
        (["--output", "file/run"], "cannot write file/run"),
        (["--output", "file"], "cannot write file"),
        (["--junit", "none/v.xml"], "cannot write none/v.xml"),
        (["--export-csv", "file/v.csv"], "cannot write file/v.csv"),
    ],
)
def test_a_place_that_cannot_be_written_and_values_of_verify(folder: Path, arguments: list[str], words: str) -> None:
    (folder / "file").write_text("")
    refused(folder, ["verify", "--case", CASE, "--backend", "numpy", *arguments], Exit.USAGE, words)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_permission_is_not_written(folder: Path) -> None:
    (folder / "locked").mkdir(mode=0o555)
    refused(
        folder, ["verify", "--case", CASE, "-b", "numpy", "--output", "locked/run"], Exit.USAGE, "Permission denied"
    )


def test_a_selection_that_leaves_nothing(folder: Path) -> None:
    refused(folder, ["verify", "smoke", "-k", "zzz"], Exit.NOTHING_RUN, "`lnbench list cases smoke`")
    refused(folder, ["verify", "--case", CASE, "-k", "zzz"], Exit.NOTHING_RUN, "its words are: ")


STORED = {
    "a newer schema": ({"environment.json": '{"schema": 99, "command": "COMMAND"}'}, "update lnbench"),
    "facts that are no JSON": ({"environment.json": "{bad"}, "is not the folder of a run"),
    "facts that are a list": ({"environment.json": "[1]"}, "holds no facts of a run"),
    "facts without a schema": ({"environment.json": "{}"}, "has no schema number"),
    "no facts": ({}, "is not the folder of a run"),
    "no cases": ({"environment.json": '{"schema": 1, "command": "COMMAND"}'}, "cases.yaml"),
}


@pytest.mark.parametrize("what", STORED)
@pytest.mark.parametrize("command", [["verify", "--resume"], ["bench", "--resume"], ["report"]])
def test_a_folder_that_is_no_run_or_of_a_newer_lnbench(folder: Path, command: list[str], what: str) -> None:
    files, words = STORED[what]
    (folder / "run").mkdir()
    for name, text in files.items():
        (folder / "run" / name).write_text(text.replace("COMMAND", "verify" if command == ["report"] else command[0]))
    refused(folder, [*command, "run"], Exit.USAGE, words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("schema,key\n99,a\n", "update lnbench"),
        ("schema,key\n1,a\n", "has no column"),
        ("HEADER\n1,KEY\n", "too short"),
        ("HEADER\n1,KEY,FULL\n", "was changed after lnbench wrote it"),
        ("a,b\n1,2\n", "has no column 'schema'"),
        ("\xff\xfe", "has no column 'schema'"),
    ],
)
def test_a_table_that_was_changed(folder: Path, text: str, words: str) -> None:
    case = Case(shape=(2, 3))
    results.create("verify", [case], output=folder / "run")
    columns = tuple(results.VERDICT_COLUMNS)
    text = text.replace("HEADER", ",".join(columns)).replace("KEY", case.key)
    text = text.replace("FULL", ",".join(["x"] * (len(columns) - 2)))
    (folder / "run" / "verdicts.csv").write_text(text)
    for command in (["verify", "--resume"], ["report"]):
        refused(folder, [*command, "run"], Exit.USAGE, words)


def test_stored_runs_that_cannot_be_compared(folder: Path) -> None:
    (folder / "newer").mkdir()
    (folder / "newer" / "timings.csv").write_text("schema,key\n99,a\n")
    refused(folder, ["compare", "newer", "newer"], Exit.USAGE, "update lnbench")
    refused(folder, ["compare", "none", "none"], Exit.USAGE, "does not exist")
    refused(folder, ["verify", "--resume", "none"], Exit.USAGE, "No such file")


def test_a_run_of_another_command_is_not_gone_on_with(folder: Path) -> None:
    (folder / "run").mkdir()
    (folder / "run" / "environment.json").write_text(json.dumps({"schema": 1, "command": "bench"}))
    refused(folder, ["verify", "--resume", "run"], Exit.USAGE, "holds a run of 'bench', not of 'verify'")
