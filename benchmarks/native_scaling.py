"""Is the native backend's cost linear in rows and columns, and does a second thread pay? Tables of docs/native.md.

    python benchmarks/native_scaling.py --largest 28

Shapes grow from 2^10 elements to 2^LARGEST, once by rows (of 1024 columns) and once by columns (of 16 rows). Samples of one
and of two threads take turns. "of the best" divides the time of an element by the shortest of the same level: the smallest
memory that holds all tensors of the call (for two threads, two second-level caches).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np
import pages

from lnbench import machine
from lnbench.bench.lock import machine_lock
from lnbench.case import Case
from lnbench.operators import registry
from lnbench.pool import Handle, Reply, Request, Session

SAMPLE_SECONDS, ROUNDS = 2e-3, 15
WIDTH, HEIGHT = 1024, 16


@dataclass(frozen=True)
class Point:
    """Medians of one shape and pass, in nanoseconds for an element. seconds: by number of threads."""

    shape: tuple[int, int]
    pass_: str
    level: dict[int, str]
    ns: dict[int, float]


def shapes(largest: int) -> Iterator[tuple[int, int]]:
    """By rows, then by columns."""
    for power in range(10, largest + 1, 2):
        yield 2**power // WIDTH, WIDTH
    for power in range(10, largest + 1, 2):
        yield HEIGHT, 2**power // HEIGHT


def level(traffic: int, threads: int) -> str:
    """The smallest memory that holds so many bytes."""
    for cache in machine.caches():
        own = threads if cache.shared < threads else 1
        if traffic <= cache.bytes * own:
            return f"L{cache.level}"
    return "memory"


def opened(session: Session, case: Case, pass_: str, threads: int) -> Handle:
    """A prepared call on private memory; numbers repeat after a mebibyte, which costs a kernel nothing."""
    operator = registry.get(case.op)
    tensors = operator.tensors(case, "rstd", None)
    some = np.random.default_rng(0).standard_normal(1 << 18)
    given = operator.forward_inputs if pass_ == "forward" else operator.backward_inputs
    names = ["rstd" if n == "stat" else n for n in given]
    inputs = {n: np.resize(some.astype(tensors[n].dtype), tensors[n].shape) for n in names if n in tensors}
    if "rstd" in inputs:  # of such numbers
        inputs |= {"mean": np.zeros_like(inputs["mean"]), "rstd": np.ones_like(inputs["rstd"])}
    wanted = ["rstd" if n == "stat" else n for n in operator.outputs(case, pass_)]
    outputs = {n: tensors[n] for n in wanted if n in tensors}
    handle = session.open(Request(case, pass_, inputs, outputs, threads, "private"))
    if isinstance(handle, Reply):
        raise SystemExit(f"{case.label} {pass_}: {handle.reason}")
    return handle


def seconds(handle: Handle, inner: int) -> float:
    """Of one call, from one sample."""
    found = handle.sample(inner)
    if isinstance(found, Reply):
        raise SystemExit(found.reason)
    return found.wall_ns / found.inner * 1e-9


def measure(shape: tuple[int, int], pass_: str, threads: tuple[int, ...]) -> Point:
    """One point: the thread counts take turns."""
    elements = shape[0] * shape[1]
    with ExitStack() as stack:
        handles = {}
        for count in threads:
            case = Case(shape=shape, passes=pass_, threads=count)
            session = stack.enter_context(Session("native", threads=count))
            handles[count] = stack.enter_context(closing(opened(session, case, pass_, count)))
        inner = max(1, round(SAMPLE_SECONDS / min(seconds(h, 3) for h in handles.values())))
        times: dict[int, list[float]] = {count: [] for count in threads}
        for _ in range(ROUNDS):
            for count, handle in handles.items():
                times[count].append(seconds(handle, inner))
    tensors = 2 if pass_ == "forward" else 3
    ns = {count: statistics.median(t) / elements * 1e9 for count, t in times.items()}
    return Point(shape, pass_, {c: level(4 * tensors * elements, c) for c in threads}, ns)


def table(points: list[Point], threads: tuple[int, ...]) -> Iterator[str]:
    """Markdown lines of one pass."""
    best = {(c, p.level[c]): min(q.ns[c] for q in points if q.level[c] == p.level[c]) for p in points for c in threads}
    yield "| shape | " + " | ".join(f"level | ns, {c} thr. | of the best" for c in threads) + " | speed-up |"
    yield "| --- |" + " --- | ---: | ---: |" * len(threads) + " ---: |"
    for p in points:
        cells = [f"{p.level[c]} | {p.ns[c]:.3f} | {p.ns[c] / best[c, p.level[c]]:.2f}" for c in threads]
        gain = p.ns[threads[0]] / p.ns[threads[-1]]
        yield f"| {p.shape[0]}x{p.shape[1]} | " + " | ".join(cells) + f" | {gain:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--largest", type=int, default=28, help="logarithm to base 2 of the most elements (default: 28)"
    )
    parser.add_argument("--threads", default="1,2", help="thread counts (default: 1,2)")
    given = parser.parse_args()
    threads = tuple(map(int, given.threads.split(",")))
    lines: list[str] = []
    with machine_lock():
        for pass_ in ("forward", "backward"):
            points = []
            for shape in shapes(given.largest):
                points.append(measure(shape, pass_, threads))
                print(points[-1], flush=True)
            lines += [f"\n### {pass_}\n", *table(points, threads)]
    text = "\n".join(lines)
    print(text)
    pages.put(pages.DOCS / "native.md", "scaling", text)


if __name__ == "__main__":
    main()
