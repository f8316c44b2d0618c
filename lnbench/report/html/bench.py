"""The page of a benchmark: rows with intervals and verdicts, times and bandwidths as plots. Reads stored rows as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import quantiles
from typing import Any

from lnbench.report.html import plot
from lnbench.report.html.markup import COLORS, Markup, element, facts, joined, legend, page, section, table, word
from lnbench.report.timings import duration

Row = Mapping[str, str]
Place = tuple[str, str, str]

_SAID = {
    "BASELINE": "what the others are compared with",
    "FASTER": "the whole interval lies below one by more than the margin",
    "SAME": "the whole interval lies within the margin",
    "SLOWER": "the whole interval lies above one by more than the margin",
    "UNRESOLVED": "the interval is too wide to tell; not a pass",
    "SUSPECT": "too good to be believed; why stands below",
    "INVALID": "its result was wrong, so its time means nothing",
    "SKIPPED": "the backend does not do this case",
}
_COLUMNS = ("case", "pass", "dtype", "threads", "backend", "time", "GB/s", "of ceiling", "", "ratio", "95 % interval", "",
            "verdict", "sees")  # fmt: skip
_NUMBERS = ("threads", "time", "GB/s", "of ceiling", "ratio", "95 % interval", "sees")


def page_of(rows: Sequence[Row], samples: Iterable[Row], environment: Mapping[str, Any]) -> str:
    """The document for these rows of timings.csv and samples.csv. environment: what environment.json holds."""
    return page(
        "lnbench bench",
        element("h1", "lnbench bench"),
        element("p", environment.get("started", ""), class_="note"),
        element("p", _sentence(rows), class_="lead"),
        _meanings(rows),
        _table(rows),
        _reasons(rows),
        _times(rows, _middles(samples)),
        _bandwidths(rows),
        facts(environment),
    )


def _sentence(rows: Sequence[Row]) -> str:
    counts = Counter(r["verdict"] for r in rows)
    said = ", ".join(f"{n} {verdict}" for verdict, n in counts.items()) or "no rows"
    baselines = ", ".join(dict.fromkeys(r["baseline"] for r in rows if r["baseline"]))
    return f"{said}. Ratios are times divided by those of {baselines}; above 1 is slower." if baselines else f"{said}."


def _meanings(rows: Sequence[Row]) -> Markup:
    present = {r["verdict"] for r in rows}
    lines = [joined([word(v), f" {said}"]) for v, said in _SAID.items() if v in present]
    return element("p", *[joined([line, "; " if line is not lines[-1] else "."]) for line in lines], class_="note")


def _number(row: Row, name: str) -> float | None:
    return float(row[name]) if row.get(name) else None


def _place(row: Row) -> Place:
    return row["key"], row["pass"], row.get("cache", "")


def _label(row: Row) -> str:
    cold = "" if row.get("cache", "hot") == "hot" else f" ({row['cache']})"
    return f"{row['case']}{cold}"


def _table(rows: Sequence[Row]) -> Markup | None:
    """The rows that have a time; what is wrong with the others stands below."""
    rows = [r for r in rows if r["seconds"]]
    if not rows:
        return None
    spread = _spread(rows)
    lines, first, last = [], [], None
    for n, row in enumerate(rows):
        told: list[Any] = [_label(row), row["pass"], row["dtype"], row["threads"]]
        if _place(row) == last:
            told = [None] * 4
        else:
            first.append(n)
        last = _place(row)
        lines.append([*told, row["backend"], *_numbers(row, spread)])
    return section("Rows", table(_COLUMNS, lines, right=_NUMBERS, first=first))


def _numbers(row: Row, spread: tuple[float, float]) -> list[Any]:
    names = ("seconds", "gb_per_s", "ceiling", "ratio", "low", "high", "resolution")
    seconds, speed, part, ratio, low, high, sees = (_number(row, n) for n in names)
    drawing = None
    if ratio and low and high:
        color = COLORS.get(row["verdict"], "#1f2328")
        drawing = plot.interval(low, ratio, high, least=spread[0], most=spread[1], color=color)
    return [
        duration(seconds),
        "" if speed is None else f"{speed:.2f}",
        "" if part is None else f"{100 * part:.0f} %",
        None if part is None else plot.share(part),
        _ratio(ratio),
        "" if low is None or high is None else f"{_ratio(low)} to {_ratio(high)}",
        drawing,
        word(row["verdict"]),
        "" if sees is None else f"{100 * sees:.1f} %",
    ]


def _ratio(value: float | None) -> str:
    """Three digits behind the point as long as the number is about one."""
    return "" if value is None else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _spread(rows: Sequence[Row]) -> tuple[float, float]:
    """The ratios that the drawings of intervals reach, the same for all rows and with one inside; at most 256-fold."""
    ends = [v for r in rows for v in (_number(r, "low"), _number(r, "high")) if v]
    return max(1 / 256, min([0.9, *ends])), min(256.0, max([1.1, *ends]))


def _reasons(rows: Sequence[Row]) -> Markup | None:
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for r in rows:
        if r["reason"]:
            groups.setdefault((r["backend"], r["verdict"], r["reason"]), []).append(r)
    lines = []
    for (backend, verdict, reason), found in groups.items():
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        lines.append(
            element("p", word(verdict), f" {backend} on {_label(found[0])} {found[0]['pass']}{more}: {reason}")
        )
    return section("What is to be said of single rows", *lines) if lines else None


def _middles(samples: Iterable[Row]) -> dict[tuple[Place, str], tuple[float, float]]:
    """Between which times per call the middle half of the samples lies, by place and backend."""
    times: dict[tuple[Place, str], list[float]] = {}
    for s in samples:
        times.setdefault((_place(s), s["backend"]), []).append(int(s["wall_ns"]) / int(s["inner"]) * 1e-9)
    return {key: (q[0], q[2]) for key, ts in times.items() if len(ts) > 1 for q in [quantiles(ts, n=4)]}


def _times(rows: Sequence[Row], middles: Mapping[tuple[Place, str], tuple[float, float]]) -> Markup | None:
    colors = _colors(rows, "seconds")
    if not colors:
        return None

    def mark(row: Row) -> plot.Mark:
        low, high = middles.get((_place(row), row["backend"]), (None, None))
        seconds = float(row["seconds"])
        return plot.Mark(seconds, colors[row["backend"]], f"{row['backend']}: {duration(seconds)}", low, high)

    timed = [r for r in rows if r["seconds"]]
    lines = [plot.Line(label, [mark(r) for r in group]) for label, group in _groups(timed)]
    said = "The dot is the median call, the bar the middle half of the samples. Compare by ratios, not by these bars."
    return section("Time per call", element("p", said, class_="note"), legend(colors), plot.dots(lines, shown=duration))


def _bandwidths(rows: Sequence[Row]) -> Markup | None:
    colors = _colors(rows, "gb_per_s")
    if not colors:
        return None
    lines = []
    for label, group in _groups([r for r in rows if r["gb_per_s"]]):
        moved = [(r, float(r["gb_per_s"])) for r in group]
        tops = [speed / part for r, speed in moved if (part := _number(r, "ceiling"))]
        marks = [plot.Mark(v, colors[r["backend"]], f"{r['backend']}: {v:.2f} GB/s") for r, v in moved]
        lines.append(plot.Line(label, marks, max(tops, default=None)))
    said = "GB/s of the traffic that the operator cannot avoid. The black tick is what this machine moves at that size."
    shown = plot.dots(lines, shown=lambda v: f"{v:g} GB/s")
    return section("Bandwidth against the machine's ceiling", element("p", said, class_="note"), legend(colors), shown)


def _groups(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Rows of one place together, with what a person calls it."""
    groups: dict[Place, list[Row]] = {}
    for row in rows:
        groups.setdefault(_place(row), []).append(row)
    return [(f"{_label(group[0])} {group[0]['pass']}", group) for group in groups.values()]


def _colors(rows: Iterable[Row], column: str) -> dict[str, str]:
    """A colour for each backend that has a value there; the same in every plot."""
    kept: dict[str, bool] = {}
    for r in rows:
        kept[r["backend"]] = kept.get(r["backend"], False) or bool(r[column])
    return {b: plot.PALETTE[i % len(plot.PALETTE)] for i, b in enumerate(kept) if kept[b]}
