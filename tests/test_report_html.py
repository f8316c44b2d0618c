"""`lnbench report`: whole and well-formed pages that load nothing, escape everything and hold what the run said."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lnbench import results
from lnbench.bench.record import Row, Word
from lnbench.case import Case
from lnbench.cli._app import app
from lnbench.errors import Exit
from lnbench.report import html, timings
from lnbench.report.html import markup, plot
from lnbench.verify.verdict import Status, Verdict

NASTY = "<script>alert('1')</script> & \"b\""
CASE = Case(shape=(2, 3), name=NASTY)
VOID = {"meta"}


class Page(HTMLParser):
    """Tags with their attributes, all text, and whether every element was closed."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", list[str]()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data if self.open and self.open[-1] != "style" else ""

    def count(self, tag: str) -> int:
        return Counter(name for name, _ in self.tags)[tag]


def verdict(status: Status, backend: str = "mine", **more: object) -> Verdict:
    base = Verdict(
        case=CASE, backend=backend, pass_="forward", check="bound", status=status, output="y",
        accepted=status in (Status.PASSED, Status.SKIPPED),
    )  # fmt: skip
    return replace(base, **more)  # type: ignore[arg-type]


def row(backend: str, word: Word, **more: object) -> dict[str, str]:
    made = Row(case=CASE, pass_="forward", backend=backend, baseline="old", verdict=word, **more)  # type: ignore[arg-type]
    return {name: results.cell(value) for name, value in timings.cells(made).items()}


def verify_page(*verdicts: Verdict) -> Page:
    return Page(html.verify_page(verdicts, {"machine": {"cpu": NASTY}}, repro=lambda v: f"again {NASTY}", seconds=1.0))


BENCH_ROWS = [
    row("old", Word.BASELINE, seconds=2e-6, gb_per_s=10.0, ceiling=0.5, ratio=1.0),
    row("new", Word.FASTER, seconds=1e-6, gb_per_s=20.0, ceiling=1.0, ratio=0.5, low=0.45, high=0.55, resolution=0.01),
    row(NASTY, Word.INVALID, reason=f"wrong {NASTY}"),
]
SAMPLES = [
    {**{k: BENCH_ROWS[0][k] for k in ("key", "pass", "cache")}, "backend": "old", "wall_ns": str(n), "inner": "2"}
    for n in (3000, 4000, 5000)
]


def bench_page() -> Page:
    return Page(html.bench_page(BENCH_ROWS, SAMPLES, {"settings": {"baseline": NASTY}}))


@pytest.mark.parametrize("page", [verify_page(verdict(Status.FAILED, reason=NASTY, budget=3.0)), bench_page()])
def test_a_page_is_well_formed_loads_nothing_and_shows_text_as_text(page: Page) -> None:
    assert page.open == []
    assert {"script", "link", "img", "iframe"}.isdisjoint(tag for tag, _ in page.tags)
    values = [(name, value or "") for _, attributes in page.tags for name, value in attributes.items()]
    assert not [name for name, value in values if name in ("href", "src") or name.startswith("on") or "url(" in value]
    assert NASTY in page.text


def test_a_verification_shows_counts_failures_and_the_command_of_each() -> None:
    page = verify_page(
        verdict(Status.PASSED, "good", budget=0.5, tier=2),
        verdict(Status.FAILED, "bad", budget=7.0, expected=1.0, got=1.5, worst_index=(0, 1), reason="is far off"),
        verdict(Status.CRASHED, "dead", output="", reason="killed by SIGSEGV"),
        verdict(Status.SKIPPED, "lazy", output="", reason="has no forward function"),
    )
    for words in ("1 CRASHED, 1 FAILED, 1 PASSED, 1 SKIPPED", "expected 1, got 1.5", "is far off", "killed by SIGSEGV",
                  "has no forward function"):  # fmt: skip
        assert words in page.text
    assert page.count("pre") == 2 and page.text.count("again ") == 2
    assert page.text.index("bad") < page.text.index("Budgets by output")


def test_budgets_that_cannot_be_told_apart_are_one_dot_and_those_beyond_all_numbers_are_at_the_edge() -> None:
    many = [verdict(Status.PASSED, budget=0.5) for _ in range(5)]
    page = verify_page(*many, verdict(Status.FAILED, budget=math.inf), verdict(Status.PASSED, budget=0.0))
    circles = [attributes for tag, attributes in page.tags if tag == "circle"]
    assert len(circles) == 3
    places = sorted(float(c["cx"] or 0) for c in circles)
    assert all(math.isfinite(p) for p in places) and places[0] < places[1] < places[2]
    assert "budget 0.5 and 4 more" in page.text


def test_a_benchmark_shows_times_ratios_intervals_and_ceilings() -> None:
    page = bench_page()
    for words in ("2 us", "0.500", "0.450 to 0.550", "100 %", "FASTER", "1.0 %", "new: 20.00 GB/s", "old: 2 us"):
        assert words in page.text
    assert "divided by those of old" in page.text and "Time per call" in page.text
    assert page.text.count("its result was wrong") == 1


def test_a_benchmark_without_any_time_has_no_plots() -> None:
    page = Page(html.bench_page(BENCH_ROWS[2:], [], {}))
    assert page.count("svg") == 0 and "1 INVALID" in page.text


def test_only_markup_is_not_escaped_and_nothing_is_left_out_but_none() -> None:
    made = markup.element("p", "<", markup.word("PASSED"), None, 0, class_="a", title='"')
    assert made == ('<p class="a" title="&quot;">&lt;<span class="word" style="color:#1a7f37">PASSED</span>0</p>')


@pytest.mark.parametrize("values", [[], [0.0], [math.nan, math.inf], [1e-300, 1e300], [5.0], [1.0, 1.1], [1e-9, 3e-4]])
def test_an_axis_has_some_ticks_within_the_plot_for_any_values(values: list[float]) -> None:
    text = plot.dots([plot.Line("row", [plot.Mark(v, "#000", "") for v in values], 2.0)], shown=str, reference=1.0)
    numbers = [float(n) for n in re.findall(r' (?:cx|cy|x|y|x1|x2|y1|y2)="([^"]+)"', text)]
    assert numbers and all(-20 <= n <= 1100 for n in numbers)
    assert 2 <= text.count('class="axis"') <= 24


def report(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["report", *arguments])


def test_the_command_writes_a_page_into_the_folder_or_to_a_pipe(tmp_path: Path) -> None:
    folder = results.create("verify", [CASE], output=tmp_path / "run", facts={"settings": {"require": "any"}})
    folder.table("verdicts.csv", results.VERDICT_COLUMNS).append([results.verdict_cells(verdict(Status.FAILED))])
    folder.finish(1)
    result = report(str(tmp_path / "run"))
    assert result.exit_code == Exit.OK and result.stdout == "" and "report.html" in result.stderr
    text = (tmp_path / "run" / "report.html").read_text()
    assert "--require any" in Page(text).text
    assert report(str(tmp_path / "run"), "--output", "-").stdout == text


def test_a_run_of_bench_becomes_a_page(tmp_path: Path) -> None:
    folder = results.create("bench", [CASE], output=tmp_path / "run")
    assert report(str(tmp_path / "run")).exit_code == Exit.USAGE
    results.write_whole(folder.path / "timings.csv", results.csv_text(timings.COLUMNS, BENCH_ROWS))
    assert report(str(tmp_path / "run"), "--output", str(tmp_path / "b.html")).exit_code == Exit.OK
    assert "FASTER" in Page((tmp_path / "b.html").read_text()).text


@pytest.mark.parametrize("what", ["none", "empty", "other", "started", "elsewhere"])
def test_what_is_no_run_is_one_sentence_and_leaves_nothing(tmp_path: Path, what: str) -> None:
    folder = tmp_path / what
    if what == "empty":
        folder.mkdir()
    if what in ("other", "started", "elsewhere"):
        run = results.create("other" if what == "other" else "verify", [CASE], output=folder)
        if what == "elsewhere":
            run.table("verdicts.csv", results.VERDICT_COLUMNS).append([results.verdict_cells(verdict(Status.PASSED))])
            run.close()
    before = sorted(tmp_path.rglob("*"))
    result = report(str(folder), *(["--output", str(tmp_path / "no" / "r.html")] if what == "elsewhere" else []))
    assert result.exit_code == Exit.USAGE
    [line] = result.stderr.splitlines()
    assert line.startswith("lnbench: error: ")
    assert sorted(tmp_path.rglob("*")) == before
