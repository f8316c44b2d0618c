"""Timings for a person: a table by case and pass, and the sentence that sums it up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from lnbench import results
from lnbench.bench.record import TIMING_COLUMNS, Row
from lnbench.report import markdown
from lnbench.report.console import styled, table

COLUMNS = (*results.CASE_COLUMNS, *TIMING_COLUMNS)
_HEAD = ["case", "pass", "dtype", "thr", "backend", "time", "GB/s", "ceiling", "ratio", "interval", "verdict", "sees"]
_RIGHT = ("thr", "time", "GB/s", "ceiling", "ratio", "sees")


def cells(row: Row) -> dict[str, Any]:
    """One row of timings.csv, by column."""
    from lnbench.bench.record import timing_cells

    return {**results.case_cells(row.case), "pass": row.pass_, "backend": row.backend, **timing_cells(row)}


def csv(rows: Sequence[Row]) -> str:
    """The text of timings.csv."""
    return results.csv_text(COLUMNS, map(cells, rows))


def as_json(rows: Sequence[Row], *, exit_code: int, seconds: float, environment: Mapping[str, Any]) -> str:
    """One JSON document: schema, environment, exit code and rows."""
    document = {
        "schema": results.SCHEMA,
        "command": "bench",
        "environment": environment,
        "seconds": seconds,
        "exit_code": exit_code,
        "timings": [cells(row) for row in rows],
    }
    return json.dumps(results.json_value(document), indent=2) + "\n"


def as_markdown(rows: Sequence[Row], seconds: float) -> str:
    """The table and the sentence in GitHub-flavoured Markdown."""
    lines = [[str(c) for c in _line(row)] for row in rows]
    return "\n\n".join(["## lnbench bench", markdown.table(_HEAD, lines), sentence(rows, seconds)]) + "\n"


def as_table(rows: Sequence[Row]) -> RenderableType:
    """All rows; a case, pass and dtype that repeats is said once."""
    lines, last = [], None
    for row in rows:
        line, place = _line(row), (row.item.key, row.threads)
        lines.append(line if place != last else ["", "", "", "", *line[4:]])
        last = place
    return table(_HEAD, lines, right=_RIGHT)


def as_line(row: Row) -> Text:
    """One row on one line, as `-v` prints them while they change."""
    words = [str(w) for w in _line(row) if str(w)]
    return Text("  ".join([*words, row.reason] if row.reason else words))


def notes(rows: Sequence[Row]) -> list[Text]:
    """The reasons of rows that make no claim, each once."""
    found = {(r.backend, str(r.verdict), r.reason): r for r in reversed(rows) if r.reason}
    return [
        Text.assemble(styled(word), f" {backend} on {row.item.label}: {reason}")
        for (backend, word, reason), row in reversed(found.items())
    ]


def sentence(rows: Sequence[Row], seconds: float) -> str:
    """The last line: how many rows say what, in which time."""
    counts = Counter(str(r.verdict) for r in rows)
    said = ", ".join(f"{n} {word}" for word, n in counts.items())
    items = len({r.item.key for r in rows})
    where = "1 case and pass" if items == 1 else f"{items} cases and passes"
    return f"{len(rows)} rows on {where}: {said} in {seconds:.1f} s."


def _line(row: Row) -> list[Any]:
    interval = "" if row.low is None or row.high is None else f"{row.low:.3f}-{row.high:.3f}"
    return [
        row.case.label + ("" if row.cache == "hot" else f" ({row.cache})"),
        row.pass_,
        row.case.dtype,
        str(row.threads),
        row.backend,
        duration(row.seconds),
        "" if row.gb_per_s is None else f"{row.gb_per_s:.2f}",
        "" if row.ceiling is None else f"{100 * row.ceiling:.0f} %",
        "" if row.ratio is None else f"{row.ratio:.3f}",
        interval,
        styled(str(row.verdict)),
        "" if row.resolution is None else f"{100 * row.resolution:.1f} %",
    ]


def duration(seconds: float | None) -> str:
    """Seconds for people: 1.23 us, 45.6 ms."""
    if seconds is None:
        return ""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"
