"""What this machine's memory can do: copies, triads and reads by threads and working set, measured once and kept.

The measuring loops are C (`lnbench/probe/ceilings.c`). Leaves what a ceiling means for a timing to `lnbench.bench`.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise, product
from pathlib import Path

import numpy as np

from lnbench import memory, probe
from lnbench.errors import EnvironmentUnfit
from lnbench.machine import facts

# Changed when the measuring loops change: older files are measured again.
VERSION = 2

COPY, TRIAD, READ = "copy", "triad", "read"
# Load per processor above which what was measured may be too low.
BUSY = 0.5

ORDINARY, STREAMING = "ordinary", "streaming"

# Arrays of each operation, the written one last, and the stores that it can be made with.
_ARRAYS = {COPY: 2, TRIAD: 3, READ: 1}
_STORES = {COPY: (ORDINARY, STREAMING), TRIAD: (ORDINARY, STREAMING), READ: (ORDINARY,)}

_SMALLEST, _LARGEST = 32 << 10, 512 << 20
# Seconds: of all points together, of one point, of one run within a point.
_ALL, _POINT, _RUN = 12.0, 0.08, 0.002
_FEWEST_RUNS, _MOST_RUNS = 2, 20
_PAGE = 4096
_STYLE = {ORDINARY: 0, STREAMING: probe.STREAM}


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
    """All measured points of one machine. load: what else ran then, in programs per processor."""

    points: tuple[Measurement, ...]
    load: float = 0.0

    @property
    def is_doubtful(self) -> bool:
        """Whether the machine was so busy that it may do better."""
        return self.load > BUSY

    def best(self, operation: str, threads: int, working_set: int) -> float | None:
        """GB/s that the machine reaches for `operation` on a working set of so many bytes, with the better stores.

        Between measured sizes it is interpolated over the logarithm of the size, beyond them the nearest counts; among
        thread counts the nearest one measured that is not smaller, else the largest. Fewer threads and larger
        working sets count as well where they were faster: what disturbed a point does not lower the ceiling. None where
        nothing was measured.
        """
        counts = sorted({p.threads for p in self.points if p.operation == operation})
        if not counts:
            return None
        count = next((n for n in counts if n >= threads), counts[-1])
        curve: list[tuple[int, float]] = []
        fastest = 0.0
        for p in sorted(self.points, key=lambda p: -p.bytes):
            if p.operation == operation and p.threads <= count:
                fastest = max(fastest, p.gb_per_s)
                curve.append((p.bytes, fastest))
        return _interpolate(sorted(dict(curve).items()), max(1, working_set))

    def to_json(self) -> str:
        points = [asdict(p) for p in self.points]
        return json.dumps({"version": VERSION, "load": self.load, "points": points}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Ceilings | None:
        """The points, or None when the text is of another version or broken."""
        try:
            document = json.loads(text)
            points = tuple(Measurement(**p) for p in document["points"]) if document["version"] == VERSION else ()
            load = float(document["load"])
        except (ValueError, KeyError, TypeError):
            return None
        return cls(points, load) if points else None


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
    """The ceilings measured earlier on this machine; None without them, or when it was busy then and is not now."""
    text = facts.read_text(cache_file())
    found = None if text is None else Ceilings.from_json(text)
    return None if found is not None and found.is_doubtful and _load() <= BUSY else found


def ceilings(
    *,
    fresh: bool = False,
    counts: Iterable[int] | None = None,
    on_point: Callable[[Measurement], None] = lambda p: None,
) -> Ceilings:
    """The ceilings of this machine: stored ones, else measured now (10 to 20 seconds) and stored.

    fresh: measure again. counts: thread counts, by default the powers of two up to all processors. Raises
    EnvironmentUnfit when the helper library is missing.
    """
    kept = None if fresh else stored()
    if kept is not None:
        return kept
    points: list[Measurement] = []
    load, end, planned = _load(), time.monotonic() + _ALL, plan(counts)
    try:
        for threads, size, operation, stores in planned:
            patience = min(_POINT, (end - time.monotonic()) / (len(planned) - len(points)))
            speed = measure(operation, stores, threads, size, patience)
            points.append(Measurement(operation, stores, threads, size, speed))
            on_point(points[-1])
    finally:
        _memory.cache_clear()
    found = Ceilings(tuple(points), load)
    _store(found)
    return found


def _load() -> float:
    """Programs that wanted to run in the last minute, per processor."""
    return os.getloadavg()[0] / facts.processors()


def plan(counts: Iterable[int] | None = None) -> list[tuple[int, int, str, str]]:
    """(threads, bytes, operation, stores) of every point that `ceilings` measures."""
    threads = sorted(set(counts or _counts()))
    kinds = [(operation, stores) for operation, all_stores in _STORES.items() for stores in all_stores]
    return [(n, size, operation, stores) for n, size, (operation, stores) in product(threads, sizes(), kinds)]


def _counts() -> set[int]:
    """Powers of two up to the number of processors, and that number."""
    return {1 << n for n in range(facts.processors().bit_length())} | {facts.processors()}


def sizes() -> list[int]:
    """Working sets in bytes, powers of two: from 32 KiB to 512 MiB, or four times the last cache where that is more.

    At most an eighth of the memory that this process may have.
    """
    import psutil

    allowed = min(psutil.virtual_memory().total, facts.memory_limit() or 1 << 60)
    most = min(max(_LARGEST, 4 * facts.last_level_cache()), max(_SMALLEST, allowed // 8))
    return [_SMALLEST << n for n in range(most.bit_length()) if _SMALLEST << n <= most]


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


def measure(operation: str, stores: str, threads: int, size: int, patience: float = _POINT) -> float:
    """GB/s of one operation on `size` bytes in all, the fastest of several runs with and without prefetching.

    patience: seconds that the runs may take; two of each kind are made however long they take. Raises
    EnvironmentUnfit when the helper library is missing or cannot start so many threads.
    """
    loaded = probe.library()
    if loaded is None:
        raise EnvironmentUnfit(
            "the C helper of lnbench was not built here; reinstall lnbench where a C compiler is to have ceilings"
        )
    count = _ARRAYS[operation]
    part = max(64, size // count // 64 * 64)
    addresses = _memory(max(size, sizes()[-1])).addresses(count, part)
    loop = getattr(loaded, f"lnb_probe_{operation}")

    def once(style: int) -> float:
        return _fastest(lambda repeats: float(loop(*addresses, part, threads, style, repeats)), patience / 2)

    seconds = [once(_STYLE[stores]), once(_STYLE[stores] | probe.PREFETCH)]
    if min(seconds) <= 0:
        raise EnvironmentUnfit(f"{threads} threads cannot be started here; give fewer")
    return count * part / min(seconds) * 1e-9


def _fastest(run: Callable[[int], float], patience: float) -> float:
    """The shortest time of one repeat among runs that take about `patience` seconds together; negative on failure."""
    first = run(1)
    if first > _RUN:
        repeats, times = 1, [first]
    else:  # the first run brought the arrays into the caches that they fit into, and does not count
        repeats, times = max(1, int(_RUN / max(run(1), 1e-7))), []
    runs = int(patience / max(_RUN, first))
    return min(times + [run(repeats) for _ in range(min(_MOST_RUNS, max(_FEWEST_RUNS, runs)) - len(times))])


class Memory:
    """Touched memory for `size` bytes of arrays, on huge pages where the system offers them, as a benchmark's buffers are."""

    def __init__(self, size: int):
        self._size = (size // _PAGE + 4) * _PAGE
        self._floats = memory.on_huge_pages(self._size).view(np.float32)
        self._floats.fill(1.0)
        self._sum = ctypes.c_double()

    def addresses(self, count: int, part: int) -> list[int]:
        """Addresses as the loop of `count` arrays of `part` bytes takes them: what is written, then what is read.

        What is written lies at the end and never where sums are read, so that values stay small. All begin a page:
        at other distances a load may wait for an unrelated store whose address has the same low bits.
        """
        base, step = self._floats.ctypes.data, (part + _PAGE - 1) // _PAGE * _PAGE
        read = [base + i * step for i in range(max(1, count - 1))]
        return [ctypes.addressof(self._sum) if count == 1 else base + self._size - step, *read]


@lru_cache(maxsize=1)
def _memory(size: int) -> Memory:
    """Memory for `size` bytes of arrays, the same for all points; `ceilings` gives it back."""
    return Memory(size)
