"""What this machine's memory can do: copy and triad bandwidth by threads and working set, measured once and kept.

The measuring loops are C (`lnbench/probe/ceilings.c`). Leaves what a ceiling means for a timing to `lnbench.bench`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise, product
from pathlib import Path

from lnbench.errors import EnvironmentUnfit
from lnbench.machine import facts

# Changed when the measuring loops change: older files are measured again.
VERSION = 1

COPY, TRIAD = "copy", "triad"
ORDINARY, STREAMING = "ordinary", "streaming"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measured point. bytes: of all arrays together. gb_per_s: bytes read and written in 1e9 a second."""

    operation: str
    stores: str
    threads: int
    bytes: int
    gb_per_s: float


@dataclass(frozen=True, slots=True)
class Ceilings:
    """All measured points of one machine."""

    points: tuple[Measurement, ...]

    def best(self, operation: str, threads: int, working_set: int) -> float | None:
        """GB/s that the machine reaches for `operation` on a working set of so many bytes, with the better stores.

        Between measured sizes it is interpolated over the logarithm of the size, beyond them the nearest counts; among
        thread counts the nearest one measured that is not smaller, else the largest. None where nothing was measured.
        """
        counts = sorted({p.threads for p in self.points if p.operation == operation})
        if not counts:
            return None
        count = next((n for n in counts if n >= threads), counts[-1])
        curve: dict[int, float] = {}
        for p in self.points:
            if p.operation == operation and p.threads == count:
                curve[p.bytes] = max(p.gb_per_s, curve.get(p.bytes, 0.0))
        return _interpolate(sorted(curve.items()), max(1, working_set))

    def to_json(self) -> str:
        return json.dumps({"version": VERSION, "points": [asdict(p) for p in self.points]}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Ceilings | None:
        """The points, or None when the text is of another version or broken."""
        try:
            document = json.loads(text)
            points = tuple(Measurement(**p) for p in document["points"]) if document["version"] == VERSION else ()
        except (ValueError, KeyError, TypeError):
            return None
        return cls(points) if points else None


def _interpolate(curve: list[tuple[int, float]], size: int) -> float:
    if size <= curve[0][0]:
        return curve[0][1]
    for (left, a), (right, b) in pairwise(curve):
        if size <= right:
            share = math.log(size / left) / math.log(right / left)
            return a + share * (b - a)
    return curve[-1][1]


def cache_file() -> Path:
    """Where the ceilings of this machine are kept: one file per processor model and number of processors."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    identity = f"{facts.cpu_model()}|{facts.processors()}|{facts.caches()}|{facts.cpu_quota()}"
    return Path(base) / "lnbench" / f"ceilings-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.json"


def stored() -> Ceilings | None:
    """The ceilings measured earlier on this machine, or None."""
    text = facts.read_text(cache_file())
    return None if text is None else Ceilings.from_json(text)


def ceilings(
    *,
    fresh: bool = False,
    counts: Iterable[int] | None = None,
    on_point: Callable[[Measurement], None] = lambda p: None,
) -> Ceilings:
    """The ceilings of this machine: stored ones, else measured now (about ten seconds) and stored.

    fresh: measure again. counts: thread counts, by default one and all processors. Raises EnvironmentUnfit when the
    helper library is missing.
    """
    kept = None if fresh else stored()
    if kept is not None:
        return kept
    points = []
    for threads, size, operation, stores in plan(counts):
        point = Measurement(operation, stores, threads, size, measure(operation, stores, threads, size))
        points.append(point)
        on_point(point)
    found = Ceilings(tuple(points))
    _store(found)
    return found


def plan(counts: Iterable[int] | None = None) -> list[tuple[int, int, str, str]]:
    """(threads, bytes, operation, stores) of every point that `ceilings` measures."""
    threads = sorted(set(counts or (1, facts.processors())))
    return list(product(threads, sizes(), (COPY, TRIAD), (ORDINARY, STREAMING)))


def sizes() -> list[int]:
    """Working sets in bytes that stand for each cache and for memory: half of each cache, and four times the last."""
    held = sorted({c.bytes // 2 for c in facts.caches()}) or [16 << 10, 512 << 10, 16 << 20]
    import psutil

    beyond = min(4 * facts.last_level_cache(), psutil.virtual_memory().available // 4)
    return [*held, beyond] if beyond > held[-1] else held


def _store(found: Ceilings) -> None:
    """Keeps the ceilings; a cache that cannot be written costs only time."""
    path = cache_file()
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(found.to_json())
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def measure(operation: str, stores: str, threads: int, size: int) -> float:
    """GB/s of one operation on `size` bytes in all. Raises EnvironmentUnfit."""
    raise EnvironmentUnfit(
        "the C helper of lnbench has no bandwidth loops here; reinstall lnbench where a C compiler is"
    )
