"""How near is the native backend to what this machine's memory can do? The table of docs/native.md.

    python benchmarks/native_vs_ceilings.py
    python benchmarks/native_vs_ceilings.py --dtypes float32 --shapes 4096x4096,8192x8192 --threads 2

The ceiling of forward is a copy, that of backward a triad (two arrays read, one written) of as many bytes, with ordinary or
non-temporal stores, with or without prefetching: what was fastest in the median. Samples of native and of the loops take
turns on the same processors, because a shared machine's memory is twice as fast in one minute as in the next. A cell is the
median over the rounds of ceiling's time / native's time, and its quartiles.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from contextlib import closing
from itertools import product

import pages
from native_scaling import opened, seconds

from lnbench import places, probe
from lnbench.bench.lock import machine_lock
from lnbench.case import Case
from lnbench.machine import bandwidth
from lnbench.pool import Session

VISITS, ROUNDS = 3, 8
OPERATION = {"forward": bandwidth.COPY, "backward": bandwidth.TRIAD}
STYLES = [stores | fetch for stores in (0, probe.STREAM) for fetch in (0, probe.PREFETCH)]


class Ceiling:
    """The loop that a pass is compared with, on arrays of `size` bytes."""

    def __init__(self, pass_: str, size: int, threads: int) -> None:
        name = f"lnb_probe_{OPERATION[pass_]}"
        library = probe.library()
        if library is None:
            raise SystemExit("the C helper of lnbench was not built; reinstall lnbench where a C compiler is")
        self._loop, self._size, self._threads = getattr(library, name), size, threads
        self._memory = bandwidth.Memory(probe.LOOPS[name] * size)
        self._addresses = self._memory.addresses(probe.LOOPS[name], size)

    def seconds(self) -> list[float]:
        """Of each style, once."""
        return [float(self._loop(*self._addresses, self._size, self._threads, style, 1)) for style in STYLES]


def fractions(case: Case, pass_: str, threads: int) -> list[float]:
    """Of each round: time of the ceiling divided by native's."""
    ceiling = Ceiling(pass_, case.bytes, threads)
    everywhere = places.allowed()
    loops: list[list[float]] = []
    native: list[float] = []
    for visit in range(VISITS):  # both on the same processors, which differ in speed
        here = tuple((everywhere + everywhere)[visit % len(everywhere) :][:threads])
        with (
            Session("native", threads=threads, processors=here) as session,
            closing(opened(session, case, pass_, threads)) as handle,
        ):
            places.move(here)
            seconds(handle, 2)
            ceiling.seconds()
            for _ in range(ROUNDS):
                native.append(seconds(handle, 1))
                loops.append(ceiling.seconds())
            places.move(everywhere)
    best = min(zip(*loops, strict=True), key=statistics.median)
    return [c / n for c, n in zip(best, native, strict=True)]


def table(shapes: list[tuple[int, int]], dtypes: list[str], threads: list[int]) -> Iterator[str]:
    """Markdown lines; each is printed when it is known."""
    kinds = list(product(("forward", "backward"), threads))
    yield "| shape | dtype | " + " | ".join(f"{p} / {OPERATION[p]}, {n} thr." for p, n in kinds) + " |"
    yield "| --- | --- |" + " ---: |" * len(kinds)
    for dtype, shape in product(dtypes, shapes):
        cells = []
        for pass_, count in kinds:
            case = Case(shape=shape, dtype=dtype, passes=pass_, threads=count)
            low, middle, high = statistics.quantiles(fractions(case, pass_, count), n=4)
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
        yield f"| {shape[0]}x{shape[1]} | {dtype} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="32768x1024,4096x4096,8192x8192")
    parser.add_argument("--dtypes", default="float32,float64,bfloat16,float16")
    parser.add_argument("--threads", default="1,2")
    given = parser.parse_args()
    shapes = [tuple(map(int, shape.split("x"))) for shape in given.shapes.split(",")]
    lines = []
    with machine_lock():
        for line in table(shapes, given.dtypes.split(","), [int(n) for n in given.threads.split(",")]):
            print(line, flush=True)
            lines.append(line)
    pages.put(pages.DOCS / "native.md", "ceilings", "\n".join(lines))


if __name__ == "__main__":
    main()
