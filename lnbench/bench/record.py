"""The records of a benchmark: what is timed (`Item`, `Contender`), what was seen (`Timing`, `Block`), said (`Row`).

Data and their columns only. Statistics of samples are computed from them in `verdicts.py` and never stored beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from lnbench.case import Case

CACHES = ("hot", "cold")
SCREEN, RETEST = 1, 2


class Word(StrEnum):
    """What is said of one backend on one item."""

    BASELINE = "BASELINE"
    FASTER = "FASTER"
    SAME = "SAME"
    SLOWER = "SLOWER"
    UNRESOLVED = "UNRESOLVED"
    SUSPECT = "SUSPECT"
    INVALID = "INVALID"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True, slots=True)
class Item:
    """What is timed: one pass of one case (whose `threads` it runs with) in one cache state."""

    case: Case
    pass_: str
    cache: str = "hot"

    @property
    def key(self) -> tuple[str, str, str]:
        """Identity in tables and resumed runs."""
        return self.case.key, self.pass_, self.cache

    @property
    def label(self) -> str:
        """What a person calls it."""
        return f"{self.case.label} {self.pass_}" + ("" if self.cache == "hot" else f" {self.cache}")


@dataclass(frozen=True, slots=True)
class Contender:
    """One side of the comparison.

    name: what tables call it. spec: how the backend is found. environment: extra variables of its workers. more_rows:
    share of extra rows that it is given, which is honest planted work (see `selfcheck.py`).
    """

    name: str
    spec: str
    environment: tuple[tuple[str, str], ...] = ()
    more_rows: float = 0.0
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Timing:
    """One sample: `inner` calls took `wall_ns` by the worker's clock.

    cpu_ns: processor time of the worker's process meanwhile. elapsed_ns: by the parent's clock, with the untimed call
    and the messages. idle_ns: processor time that the worker used after the sample, when it had nothing to do.
    """

    backend: str
    round: int
    slot: int
    inner: int
    wall_ns: int
    cpu_ns: int
    switches: int
    elapsed_ns: int
    idle_ns: int = 0

    @property
    def seconds(self) -> float:
        """Seconds per call."""
        return self.wall_ns / self.inner * 1e-9


@dataclass(frozen=True, slots=True)
class Block:
    """All samples of one item in one epoch: the unit that is recorded and resumed, whole or not at all."""

    item: Item
    stage: int
    epoch: int
    rounds: int
    backends: tuple[str, ...]
    timings: tuple[Timing, ...]
    seconds: float = 0.0
    machine: Mapping[str, float] = field(default_factory=dict)
    processors: tuple[int, ...] = ()

    def times(self, backend: str) -> list[float]:
        """Seconds per call of one backend, by round."""
        return [t.seconds for t in self.timings if t.backend == backend]

    @property
    def is_complete(self) -> bool:
        """Whether every backend has a sample in every round."""
        return all(len(self.times(b)) == self.rounds for b in self.backends) and bool(self.backends)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a backend has no timing on an item. crashed: it died or hung; skipped: it said that it cannot do the case."""

    reason: str
    crashed: bool = False
    skipped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the report and of timings.csv: one backend on one item.

    seconds: median time of a call. ratio, low, high: time divided by the baseline's and its interval. resolution: the
    smallest difference (0.01 is 1 %) that would have been found nine times in ten. needs_seconds: what is missing until
    the interval is narrow enough. fragile: the sign-flip test does not agree. p_value: of the verdict's claim, None
    where there was none. Absent numbers are None.
    """

    case: Case
    pass_: str
    backend: str
    baseline: str
    cache: str = "hot"
    verdict: Word = Word.UNRESOLVED
    seconds: float | None = None
    gb_per_s: float | None = None
    ceiling: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    resolution: float | None = None
    epochs: int = 0
    rounds: int = 0
    inner: int = 0
    needs_seconds: float | None = None
    fragile: bool = False
    p_value: float | None = None
    crashed: bool = False
    reason: str = ""

    @property
    def threads(self) -> int:
        """Threads that the backend was given."""
        return self.case.threads

    @property
    def item(self) -> Item:
        """What the row is about."""
        return Item(self.case, self.pass_, self.cache)


TIMING_COLUMNS: dict[str, str] = {
    "cache": "hot (buffers in cache as far as they fit) or cold (buffers rotate over three times the last-level cache)",
    "baseline": "name of the backend that the ratio is to",
    "verdict": "BASELINE, FASTER, SAME, SLOWER, UNRESOLVED, SUSPECT, INVALID or SKIPPED",
    "seconds": "median time of one call, in seconds",
    "gb_per_s": "minimal traffic of the operator divided by the time, in 1e9 bytes a second",
    "ceiling": "gb_per_s divided by what the machine copies (forward) or triads (backward) at that size and threads",
    "ratio": "time divided by the baseline's time; above 1 is slower",
    "low": "lower end of the 95 % interval of the ratio, over epochs",
    "high": "upper end of that interval",
    "resolution": "smallest difference found nine times in ten; 0.01 is 1 %",
    "epochs": "sets of fresh processes: the number of independent observations",
    "rounds": "samples of each backend in an epoch",
    "inner": "calls in one sample",
    "needs_seconds": "time still missing until the interval is narrow enough; empty when none is",
    "fragile": "whether the sign-flip test disagrees with the interval (true or false)",
    "p_value": "two-sided p value of the verdict's claim; empty when it makes none",
    "crashed": "whether the backend died or hung (true or false)",
    "reason": "a sentence; always there for UNRESOLVED, SUSPECT, INVALID and SKIPPED",
}

SAMPLE_COLUMNS: dict[str, str] = {
    "key": "identity of the case",
    "pass": "forward or backward",
    "cache": "hot or cold",
    "stage": "1: every item; 2: items that looked slower, measured again",
    "epoch": "number of the set of fresh processes, from 0",
    "rounds": "rounds of this item in this epoch",
    "lanes": "backends of this item in this epoch; a block with fewer than rounds x lanes rows was cut off",
    "backend": "name of the backend",
    "round": "number of the round, from 0",
    "slot": "place within the round, from 0",
    "inner": "timed calls",
    "wall_ns": "time of the timed calls by the worker's clock",
    "cpu_ns": "processor time of the worker's process meanwhile",
    "switches": "context switches meanwhile",
    "elapsed_ns": "time by the parent's clock, with the untimed call and messages",
    "idle_ns": "processor time that the worker used after the sample, when it had nothing to do",
    "load": "load average of the machine at the end of the block",
    "pressure": "percent of the last ten seconds in which something waited for a processor, at the end of the block",
    "steal": "share of processor time that the hypervisor took away since the block before",
    "mhz": "clock of the processors at the end of the block, mean, where the system tells",
    "processors": "numbers of those that the workers ran on; empty: any",
}


def timing_cells(row: Row) -> dict[str, Any]:
    """The `TIMING_COLUMNS` of a row."""
    return {name: getattr(row, name) for name in TIMING_COLUMNS}


def sample_cells(block: Block) -> Iterable[dict[str, Any]]:
    """The rows of samples.csv of one block."""
    key, pass_, cache = block.item.key
    place = {"key": key, "pass": pass_, "cache": cache, "stage": block.stage, "epoch": block.epoch}
    place |= {"rounds": block.rounds, "lanes": len(block.backends)}
    place |= {name: block.machine.get(name) for name in ("load", "pressure", "steal", "mhz")}
    place["processors"] = " ".join(map(str, block.processors))
    for timing in block.timings:
        own = {n: getattr(timing, n) for n in SAMPLE_COLUMNS if n not in place}
        yield {**place, **own}


def blocks_of(rows: Iterable[Mapping[str, str]], items: Iterable[Item]) -> list[Block]:
    """The complete blocks in the rows of samples.csv that belong to `items`; half-written ones are left out."""
    known = {item.key: item for item in items}
    groups: dict[tuple[Any, ...], list[Mapping[str, str]]] = {}
    for row in rows:
        key = (row["key"], row["pass"], row["cache"])
        if key in known:
            groups.setdefault((key, int(row["stage"]), int(row["epoch"])), []).append(row)
    found = [
        Block(
            item=known[key],
            stage=stage,
            epoch=epoch,
            rounds=int(group[0]["rounds"]),
            backends=tuple(dict.fromkeys(r["backend"] for r in group)),
            timings=tuple(_timing(r) for r in group),
        )
        for (key, stage, epoch), group in groups.items()
    ]
    lanes = [int(group[0]["lanes"]) for group in groups.values()]
    return [b for b, n in zip(found, lanes, strict=True) if b.is_complete and len(b.backends) == n]


def _timing(row: Mapping[str, str]) -> Timing:
    names = ("round", "slot", "inner", "wall_ns", "cpu_ns", "switches", "elapsed_ns", "idle_ns")
    return Timing(row["backend"], *(int(row[name]) for name in names))
