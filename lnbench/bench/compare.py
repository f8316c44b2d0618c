"""Two stored runs against each other: which rows are alike, by how much they differ, what else was different.

Unlike a benchmark this compares different moments. Where both runs hold the same baseline, ratios to it are compared,
so that a slower day cancels out; elsewhere plain times, with a wider margin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lnbench.bench import statistics as st
from lnbench.bench.record import Word
from lnbench.bench.verdicts import claim
from lnbench.errors import UsageError

Cells = Mapping[str, str]
Place = tuple[str, str, str, str]  # key, pass, cache, backend
Epochs = dict[Place, dict[str, dict[str, float]]]  # place -> epoch -> round -> seconds
# Plain times of two moments differ by what the machine did in between.
WIDER = 2.5


@dataclass(frozen=True, slots=True)
class Change:
    """One row of the comparison. ratio: time in B divided by time in A (relative: of ratios to the common baseline)."""

    case: str
    pass_: str
    cache: str
    backend: str
    before: float
    after: float
    ratio: float
    low: float | None
    high: float | None
    verdict: Word
    relative: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows that both runs hold, labels of those that only one holds, and facts of the machines that differ."""

    changes: tuple[Change, ...]
    only_before: tuple[str, ...] = ()
    only_after: tuple[str, ...] = ()
    environment: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """A stored run: rows of timings.csv, rows of samples.csv (may be none) and environment.json (may be empty)."""

    timings: Sequence[Cells]
    samples: Sequence[Cells] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)


def compare(before: Run, after: Run, margin: float, backends: tuple[str, str] | None = None) -> Comparison:
    """Compares runs. backends: a backend of each where the names differ. Raises UsageError when nothing is alike."""
    old, new = _index(before, backends and backends[0]), _index(after, backends and backends[1])
    if backends is not None:
        old = {(*k[:3], backends[1]): v for k, v in old.items()}
    shared = [place for place in old if place in new]
    if not shared:
        raise UsageError(f"the two runs have nothing in common: {_why(old, new)}")
    values = _epochs(before), _epochs(after)
    changes = [_change(place, old[place], new[place], values, margin) for place in shared]
    return Comparison(
        tuple(changes),
        tuple(_label(old[p]) for p in old if p not in new),
        tuple(_label(new[p]) for p in new if p not in old),
        _differences(before.environment.get("machine", {}), after.environment.get("machine", {})),
    )


def _index(run: Run, backend: str | None) -> dict[Place, Cells]:
    rows = [r for r in run.timings if r.get("seconds") and (backend is None or r["backend"] == backend)]
    return {(r["key"], r["pass"], r["cache"], r["backend"]): r for r in rows}


def _label(row: Cells) -> str:
    return f"{row['case']} {row['pass']} on {row['backend']}" + ("" if row["cache"] == "hot" else f" ({row['cache']})")


def _why(old: Mapping[Place, Cells], new: Mapping[Place, Cells]) -> str:
    if not old or not new:
        return "one of them holds no timing"
    for position, word in ((0, "cases"), (3, "backends"), (1, "passes"), (2, "cache states")):
        a, b = {p[position] for p in old}, {p[position] for p in new}
        if not a & b:
            return f"their {word} differ ({', '.join(sorted(a)[:3])} against {', '.join(sorted(b)[:3])})"
    return "no case was measured on the same backend in the same way"


def _epochs(run: Run) -> Epochs:
    """Seconds of a call by place, epoch and round, from the first stage's samples."""
    found: Epochs = {}
    for row in run.samples:
        if row["stage"] == "1":
            place = row["key"], row["pass"], row["cache"], row["backend"]
            seconds = int(row["wall_ns"]) / int(row["inner"]) * 1e-9
            found.setdefault(place, {}).setdefault(row["epoch"], {})[row["round"]] = seconds
    return found


def _change(
    place: Place,
    old: Cells,
    new: Cells,
    values: tuple[Epochs, Epochs],
    margin: float,
) -> Change:
    base = old["baseline"]
    relative = base == new["baseline"] and old["backend"] != base and new["backend"] != base
    a = _series(values[0], (*place[:3], old["backend"]), base if relative else None)
    b = _series(values[1], (*place[:3], new["backend"]), base if relative else None)
    common = (new["case"], place[1], place[2], new["backend"], float(old["seconds"]), float(new["seconds"]))
    if len(a) < 2 or len(b) < 2:
        ratio = common[5] / common[4]
        reason = "without samples of at least two epochs on both sides nothing can be claimed"
        return Change(*common, ratio, None, None, Word.UNRESOLVED, relative=False, reason=reason)
    theta, half = _welch(a, b)
    log_margin = math.log1p(margin if relative else WIDER * margin)
    word = claim(theta - half, theta + half, log_margin)
    reason = "" if word is not Word.UNRESOLVED else f"the interval of +-{100 * math.expm1(half):.2g} % allows no claim"
    low, high = math.exp(theta - half), math.exp(theta + half)
    return Change(*common, math.exp(theta), low, high, word, relative=relative, reason=reason)


def _series(values: Epochs, place: Place, base: str | None) -> list[float]:
    """One logarithm for every epoch: of the time, or of its ratio to the baseline's in the same rounds."""
    mine = values.get(place, {})
    if base is None:
        return [st.log_quantile(list(rounds.values())) for rounds in mine.values()]
    theirs = values.get((*place[:3], base), {})
    both = [(mine[e], theirs[e]) for e in mine if e in theirs]
    return [st.log_ratio([a[r] for r in a], [b[r] for r in a]) for a, b in both if a.keys() == b.keys()]


def _welch(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Difference of means (b - a) and half-width of its 95 % interval, for unequal spreads (Welch 1947)."""
    from statistics import fmean, variance

    va, vb = variance(a) / len(a), variance(b) / len(b)
    if va + vb == 0:
        return fmean(b) - fmean(a), 0.0
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    return fmean(b) - fmean(a), st.t_quantile(1 - st.ALPHA / 2, freedom) * math.sqrt(va + vb)


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {k: (a.get(k), b.get(k)) for k in sorted({*a, *b}) if a.get(k) != b.get(k)}
