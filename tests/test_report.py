"""Reports: what is said first, what each format holds, and that no text can break a format."""

from __future__ import annotations

import io
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from lnbench.case import Case
from lnbench.report import console, github, junit, markdown, summary, terminal
from lnbench.verify.differences import Difference
from lnbench.verify.verdict import Status, Verdict

SMALL = Case(shape=(2, 3), name="small")
LARGE = Case(shape=(20, 30), name="large")
NASTY = 'a | b & <c> "d"\n%\x00:,'


def verdict(case: Case, status: Status, backend: str = "mine", **more: object) -> Verdict:
    accepted = status in (Status.PASSED, Status.SKIPPED)
    base = Verdict(
        case=case, backend=backend, pass_="forward", check="bound", status=status, output="y", accepted=accepted
    )
    return replace(base, **more)  # type: ignore[arg-type]


def repro(v: Verdict) -> str:
    return f"again {v.case.label}"


def printed(verdicts: list[Verdict], **more: object) -> list[str]:
    stream = io.StringIO()
    shown = console.make(stream)
    terminal.print_report(shown, verdicts, repro=repro, seconds=1.0, matrix={}, **more)  # type: ignore[arg-type]
    return stream.getvalue().splitlines()


def test_the_smallest_failure_is_first_and_the_counts_are_last() -> None:
    lines = printed(
        [verdict(LARGE, Status.FAILED), verdict(SMALL, Status.FAILED), verdict(SMALL, Status.PASSED, "other")]
    )
    assert lines[0] == "FAILED small on mine"
    assert lines[-1].startswith("3 verdicts on 2 cases and 2 backends: 2 FAILED, 1 PASSED in 1.0 s")
    assert lines[-1].endswith("smallest small.")


def test_every_failing_backend_is_shown_even_when_many_fail() -> None:
    many = [verdict(Case(shape=(n, 1)), Status.FAILED) for n in range(1, 20)]
    lines = printed([*many, verdict(LARGE, Status.CRASHED, "other")])
    assert sum(line.startswith("FAILED") for line in lines) == terminal.SHOWN - 1
    assert "CRASHED large on other" in lines
    assert any(line.startswith("and 15 more failing cases") for line in lines)
    assert sum(line.startswith("FAILED") for line in printed(many, verbose=True)) == 19


def test_the_worst_verdict_of_a_failure_comes_first() -> None:
    found = summary.failures(
        [
            verdict(SMALL, Status.FAILED, budget=2.0),
            verdict(SMALL, Status.FAILED, budget=9.0),
            verdict(SMALL, Status.ERROR),
        ]
    )
    assert [(v.status, v.budget) for v in found[0].verdicts] == [("ERROR", None), ("FAILED", 9.0), ("FAILED", 2.0)]


def test_skips_are_counted_by_reason_and_accepted_weaknesses_are_named() -> None:
    weak = verdict(SMALL, Status.UNSTABLE, reason="one-pass variance", accepted=True)
    lines = printed(
        [
            verdict(SMALL, Status.SKIPPED, reason="no backward"),
            verdict(LARGE, Status.SKIPPED, reason="no backward"),
            weak,
        ]
    )
    assert "SKIPPED 2 on mine: no backward" in lines
    assert "UNSTABLE mine y on small, accepted: one-pass variance" in lines
    assert len(printed([weak], quiet=True)) == 1


def test_the_matrix_of_two_backends_is_a_list_and_of_three_a_square() -> None:
    stream = io.StringIO()
    pair = {("y", "a", "b"): Difference(3.0, "small")}
    console.make(stream).print(terminal.differences(pair))
    assert "largest difference between a and b" in stream.getvalue() and "small" in stream.getvalue()
    three = {**pair, ("y", "a", "c"): Difference(1.0, "small"), ("y", "b", "c"): Difference(2.0, "large")}
    console.make(stream).print(terminal.differences(three))
    rows = [line.split() for line in stream.getvalue().splitlines()[-3:]]
    assert rows == [["a", "-", "3", "1"], ["b", "3", "-", "2"], ["c", "1", "2", "-"]]
    assert terminal.differences({}) is None


def test_junit_counts_failures_errors_and_skips_and_survives_any_text() -> None:
    verdicts = [
        verdict(SMALL, Status.PASSED),
        verdict(SMALL, Status.FAILED, reason=NASTY),
        verdict(SMALL, Status.TIMEOUT, "b<ad>"),
        verdict(SMALL, Status.SKIPPED, reason=NASTY),
    ]
    root = ElementTree.fromstring(junit.text(verdicts, repro).partition("\n")[2])
    assert {k: root.get(k) for k in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
    }
    assert {s.get("name") for s in root} == {"mine", "b<ad>"}
    assert 'a | b & <c> "d"' in (root.findtext(".//failure") or "")


def test_markdown_cells_cannot_break_the_table() -> None:
    text = markdown.text([verdict(SMALL, Status.FAILED, reason=NASTY)], repro=repro, seconds=1.0, matrix={})
    [line] = [line for line in text.splitlines() if line.startswith("| FAILED")]
    assert line.count("|") - line.count("\\|") == 8
    assert "again small" in text


def test_annotations_are_one_line_each_and_escaped() -> None:
    [line] = github.lines([verdict(SMALL, Status.FAILED, reason=NASTY, backend="a:b,c")], repro)
    assert "\n" not in line and "%25" in line and "%0A" in line
    assert line.startswith("::error title=FAILED small on a%3Ab%2Cc::")


def test_values_have_the_digits_of_their_dtype() -> None:
    narrow = summary.detail(verdict(SMALL, Status.FAILED, expected=0.1, got=1 / 3, worst_index=(0, 1)))
    wide = summary.detail(verdict(SMALL.replace(dtype="float64"), Status.FAILED, expected=0.1, got=1 / 3))
    assert narrow == "y[0, 1]: expected 0.1, got 0.333333333"
    assert wide == "y: expected 0.10000000000000001, got 0.33333333333333331"


def test_tables_in_a_pipe_are_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # set by some test runners
    stream = io.StringIO()
    console.make(stream).print(console.table(["a", "b"], [["x" * 70, "y" * 70]]))
    assert "x" * 70 in stream.getvalue() and "y" * 70 in stream.getvalue()
