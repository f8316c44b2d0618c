"""Run folders: rows survive a crash, are read back equal, and folders of other versions are refused."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lnbench import results
from lnbench.bench.record import SAMPLE_COLUMNS, TIMING_COLUMNS
from lnbench.case import Case
from lnbench.errors import ResultsError
from lnbench.verify.verdict import Status, Verdict

CASE = Case(shape=(2, 3), dtype="bfloat16", law=(("dy", "mixed"), ("x", "normal")), axis=(0, 1), name='odd, "name"')
VERDICT = Verdict(
    case=CASE,
    backend="mine.py:a",
    pass_="backward",
    check="bound",
    status=Status.FAILED,
    output="dx",
    reason="off, by\nmuch",
    compared=6,
    undecided=1,
    max_abs=0.1,
    max_ulp=3.0,
    budget=math.inf,
    tier=0,
    worst_index=(1, 2),
    expected=1.0,
    got=math.nan,
    bound=1e-7,
    threads=2,
    seconds=0.25,
    accepted=False,
)


def test_a_verdict_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    table = results.Table(tmp_path / "verdicts.csv", tuple(results.VERDICT_COLUMNS)).open()
    table.append([results.verdict_cells(VERDICT)])
    table.close()
    [row] = results.read(tmp_path)
    again = results.verdict_of(row, CASE)
    assert again.got is not None and math.isnan(again.got)
    assert again.reason == "off, by much"
    assert (again.budget, again.worst_index, again.tier) == (math.inf, (1, 2), 0)
    assert again.status is Status.FAILED and not again.accepted
    assert results.verdict_cells(again) | {"got": 0, "reason": ""} == results.verdict_cells(VERDICT) | {
        "got": 0,
        "reason": "",
    }


def test_every_column_has_a_meaning_and_every_cell_a_column() -> None:
    assert set(results.verdict_cells(VERDICT)) == set(results.VERDICT_COLUMNS)
    assert all(results.VERDICT_COLUMNS.values())


def test_a_row_that_was_cut_off_is_ignored_and_then_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.csv"
    columns = tuple(results.VERDICT_COLUMNS)
    table = results.Table(path, columns).open()
    table.append([results.verdict_cells(VERDICT)])
    table.close()
    whole = path.read_bytes()
    path.write_bytes(whole + b"1,layer_norm-2x3,half a r")
    assert len(results.read(path)) == 1
    table = results.Table(path, columns).open()
    table.append([results.verdict_cells(VERDICT)])
    table.close()
    assert len(results.read(path)) == 2
    assert path.read_bytes().startswith(whole)


def test_a_killed_writer_leaves_whole_rows(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from lnbench import results\n"
        "t = results.Table(Path(sys.argv[1]), ('schema', 'n')).open()\n"
        "n = 0\n"
        "while True:\n"
        "    t.append([{'schema': 1, 'n': n}]); n += 1\n"
    )
    path = tmp_path / "verdicts.csv"
    writer = subprocess.Popen([sys.executable, "-c", script, str(path)])
    try:
        deadline = time.monotonic() + 30
        while (not path.exists() or path.stat().st_size < 2000) and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    rows = results.read(path)
    assert len(rows) > 100
    assert [int(r["n"]) for r in rows] == list(range(len(rows)))


def test_a_folder_holds_its_cases_and_its_facts(tmp_path: Path) -> None:
    folder = results.create("verify", [CASE], output=tmp_path / "run", facts={"settings": {"require": "any"}})
    folder.finish(1)
    facts = json.loads((tmp_path / "run" / results.ENVIRONMENT).read_text())
    assert facts["schema"] == results.SCHEMA and facts["exit_code"] == 1 and facts["finished"]
    assert results.reopen(tmp_path / "run").environment["settings"] == {"require": "any"}
    assert not list((tmp_path / "run").glob(".*"))


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = {results.create("verify", [CASE]).path for _ in range(3)}
    assert len(paths) == 3
    assert all(p.parent == Path("results") and "-verify" in p.name for p in paths)


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path: Path) -> None:
    folder = results.create("verify", [CASE], output=tmp_path)
    folder.table("verdicts.csv", results.VERDICT_COLUMNS)
    folder.close()
    with pytest.raises(ResultsError, match=r"already holds a run.*--resume"):
        results.create("verify", [CASE], output=tmp_path)


def test_a_newer_schema_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / results.ENVIRONMENT).write_text(json.dumps({"schema": results.SCHEMA + 1, "command": "verify"}))
    (tmp_path / "verdicts.csv").write_text(f"schema,key\n{results.SCHEMA + 1},a\n")
    for reader in (results.reopen, results.read):
        with pytest.raises(ResultsError, match=r"newer lnbench.*update lnbench"):
            reader(tmp_path)


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "\x00\xff"])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "some.csv"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ResultsError):
        results.read(path)


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match=r"cannot write .*--output"):
        results.create("verify", [CASE], output=tmp_path / "file" / "run")
    with pytest.raises(ResultsError, match="holds no"):
        results.read(tmp_path)


def test_a_whole_file_replaces_the_old_one_or_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    results.write_whole(path, "old")
    results.write_whole(path, "new")
    assert path.read_text() == "new"
    with pytest.raises(ResultsError):
        results.write_whole(tmp_path / "none" / "report.xml", "text")
    assert [p.name for p in tmp_path.iterdir()] == ["report.xml"]


def test_the_documentation_names_every_column() -> None:
    text = (Path(__file__).parents[1] / "docs" / "results.md").read_text()
    for columns in (results.VERDICT_COLUMNS, TIMING_COLUMNS, SAMPLE_COLUMNS):
        for name, meaning in columns.items():
            assert f"| `{name}` | {meaning} |" in text
