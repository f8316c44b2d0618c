"""One kind of plot, as inline SVG: rows of dots over a logarithmic axis, with intervals, a tick per row and a line."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lnbench.report.html.markup import Markup, element, joined

# Of series in order: told apart by people who do not see all colours, too.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")

_WIDTH, _ROW, _TOP, _BOTTOM, _RIGHT = 1100, 22, 8, 34, 24
_LETTER, _LONGEST = 7.2, 46


@dataclass(frozen=True, slots=True)
class Mark:
    """A dot at `value`, with an interval where it has one. title: what a pointer over it tells."""

    value: float
    color: str
    title: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A row of dots. tick: a mark of its own, such as a ceiling."""

    label: str
    marks: Sequence[Mark] = field(default=())
    tick: float | None = None


class _Axis:
    """Values to places: logarithmic; what lies outside, zero and infinity too, is drawn at the edge."""

    def __init__(self, values: Sequence[float], left: float):
        proper = [v for v in values if 0 < v < math.inf] or [1.0]
        low, high = math.log10(min(proper)), math.log10(max(proper))
        room = max(0.04, (high - low) * 0.03)
        self.low, self.high, self.left = max(-307.0, low - room), min(307.0, high + room), left

    def at(self, value: float) -> float:
        """Pixels from the left; of NaN as of infinity."""
        power = -math.inf if value == 0 else math.log10(value) if value > 0 else math.inf
        share = (min(max(power, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.left + share * (_WIDTH - _RIGHT - self.left), 1)

    def ticks(self) -> list[float]:
        """Powers of ten, with their multiples where those alone would be few; thinned to about ten."""
        for factors in ((1,), (1, 3), (1, 2, 5), tuple(n / 10 for n in range(10, 100, 5))):
            powers = range(math.floor(self.low), math.ceil(self.high) + 1)
            found = [f * 10.0**p for p in powers for f in factors if self.low <= p + math.log10(f) <= self.high]
            if len(found) >= 4:
                break
        step = 1 + len(found) // 12
        return found[::step]


def dots(lines: Sequence[Line], *, shown: Callable[[float], str], reference: float | None = None) -> Markup:
    """The plot. shown: a value as the axis writes it. reference: where a line stands through all rows."""
    longest = max((min(len(line.label), _LONGEST) for line in lines), default=0)
    values = [v for line in lines for m in line.marks for v in (m.value, m.low, m.high) if v is not None]
    values += [line.tick for line in lines if line.tick is not None]
    axis = _Axis([*values, *([] if reference is None else [reference])], 16 + longest * _LETTER)
    bottom = _TOP + _ROW * len(lines)
    parts = [_grid(axis, bottom, shown)]
    if reference is not None:
        x = axis.at(reference)
        parts.append(_stroke(x, _TOP, x, bottom, "#cf222e", width=1.5))
    parts += [_row(line, axis, _TOP + _ROW * (i + 0.5)) for i, line in enumerate(lines)]
    height = bottom + _BOTTOM
    drawing = element("svg", *parts, viewBox=f"0 0 {_WIDTH} {height}", width=_WIDTH, height=height, role="img")
    return element("div", drawing, class_="scroll")


def _grid(axis: _Axis, bottom: float, shown: Callable[[float], str]) -> Markup:
    parts = []
    for value in axis.ticks():
        x = axis.at(value)
        parts.append(_stroke(x, _TOP, x, bottom, "#e4e8ec"))
        parts.append(element("text", shown(value), x=x, y=bottom + 18, text_anchor="middle", class_="axis"))
    return joined(parts)


def _row(line: Line, axis: _Axis, y: float) -> Markup:
    label = line.label if len(line.label) <= _LONGEST else line.label[: _LONGEST - 1] + "…"
    parts = [element("text", label, element("title", line.label), x=axis.left - 12, y=y + 4, text_anchor="end")]
    parts.append(_stroke(axis.left, y + _ROW / 2, _WIDTH - _RIGHT, y + _ROW / 2, "#eff2f5"))
    if line.tick is not None:
        x = axis.at(line.tick)
        parts.append(_stroke(x, y - 9, x, y + 9, "#1f2328", width=2.5))
    for mark in line.marks:
        if mark.low is not None and mark.high is not None:
            parts.append(_stroke(axis.at(mark.low), y, axis.at(mark.high), y, mark.color, width=3, opacity=0.45))
        circle = element("circle", element("title", mark.title), cx=axis.at(mark.value), cy=y, r=4,
                         fill=mark.color, fill_opacity=0.7)  # fmt: skip
        parts.append(circle)
    return joined(parts)


def _stroke(
    x1: float, y1: float, x2: float, y2: float, color: str, *, width: float = 1, opacity: float | None = None
) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=color, stroke_width=width, stroke_opacity=opacity)


def interval(low: float, value: float, high: float, *, least: float, most: float, color: str) -> Markup:
    """A small drawing for a cell of a table: an interval and its middle, around a line at one; `least` to `most`."""
    width, height = 150, 16

    def at(v: float) -> float:
        inside = min(max(v, least), most)
        return round(4 + (width - 8) * math.log(inside / least) / math.log(most / least), 1)

    middle = height / 2
    parts = [
        _stroke(at(1.0), 0, at(1.0), height, "#8c959f"),
        _stroke(at(low), middle, at(high), middle, color, width=3, opacity=0.5),
        element("circle", cx=at(value), cy=middle, r=3.5, fill=color),
    ]
    return element("svg", *parts, viewBox=f"0 0 {width} {height}", width=width, height=height, role="img")


def share(part: float) -> Markup:
    """A small bar for a cell of a table: `part` of one, with a frame that stands for the whole."""
    width, height = 80, 10
    full = round(min(max(part, 0.0), 1.0) * (width - 2), 1)
    parts = [
        element("rect", x=0.5, y=0.5, width=width - 1, height=height - 1, fill="none", stroke="#afb8c1"),
        element("rect", x=1, y=1, width=full, height=height - 2, fill="#0072b2" if part <= 1.05 else "#d55e00"),
    ]
    return element("svg", *parts, viewBox=f"0 0 {width} {height}", width=width, height=height, role="img")
