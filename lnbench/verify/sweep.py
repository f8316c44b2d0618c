"""Visits all rows of a problem: in row blocks on all cores, or from the cache of small expected values."""

from __future__ import annotations

import ctypes
import sys
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from threading import Lock
from typing import Any

import numpy as np

from lnbench import places
from lnbench.digest import of
from lnbench.numerics.rules import Arithmetic
from lnbench.verify.compare import Tally
from lnbench.verify.expected import Expected, Parts, Problem, Rows

Array = np.ndarray[Any, np.dtype[Any]]
Blocks = list[tuple[int, dict[str, Expected]]]

CACHE_BYTES = 64 << 20
# Larger problems are neither cached nor worth keeping on one thread.
SMALL_ELEMENTS = 1 << 18
# Temporaries of one evaluation, in float64 copies of a block: limits the blocks in flight when rows are very long.
COPIES = 24
FREE_BYTES = 192 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


class _Cache:
    """Expected values of small problems, least recently used out first."""

    def __init__(self, limit: int):
        self._limit, self._held, self._bytes, self._lock = limit, OrderedDict[Any, tuple[Blocks, int]](), 0, Lock()

    def get(self, key: Any) -> Blocks | None:
        with self._lock:
            if key not in self._held:
                return None
            self._held.move_to_end(key)
            return self._held[key][0]

    def put(self, key: Any, blocks: Blocks) -> None:
        size = sum(e.nbytes for _, found in blocks for e in found.values())
        if size > self._limit // 4:
            return
        with self._lock:
            if key in self._held:
                return
            self._held[key] = (blocks, size)
            self._bytes += size
            while self._bytes > self._limit:
                _, (_, dropped) = self._held.popitem(last=False)
                self._bytes -= dropped


_cache = _Cache(CACHE_BYTES)


def digest(inputs: Mapping[str, Array]) -> bytes:
    """An identity of the inputs' content."""
    return b"".join(name.encode() + of(array) for name, array in sorted(inputs.items()))


def key_of(problem: Problem, inputs: Mapping[str, Array]) -> Any:
    """What the expected values of a problem depend on, beside the rules."""
    c = problem.case
    what = (c.op, c.shape, c.axis, c.epsilon, c.dtype, c.affine_dtype, c.gamma, c.beta, c.attributes)
    used = digest({n: inputs[n] for n in problem.inputs})
    formats = tuple((n, t.dtype) for n, t in problem.outputs.items())
    return (*what, problem.pass_, problem.domain, formats, used)


@cache
def keep_freed_memory() -> None:
    """Lets the C library's allocator keep what is freed, up to a limit; done once for a process.

    Temporaries of one block are just so large that every one of them is mapped, faulted in page by page and unmapped
    again: more than half of the time of a judgement.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 32 << 20)
            mallopt(_M_TRIM_THRESHOLD, 64 << 20)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(len(places.allowed()), thread_name_prefix="lnbench-bound")


def _workers(problem: Problem) -> int:
    if problem.elements <= SMALL_ELEMENTS:
        return 1
    block = 8 * max(1 << 15, problem.fold.cols) * COPIES
    return max(1, min(len(places.allowed()), FREE_BYTES // block))


def _evaluated(problem: Problem, arithmetic: Arithmetic, key: Any) -> Blocks:
    # All blocks of a small problem, finished, with `column` outputs as one block at row 0.
    found = None if key is None else _cache.get((key, arithmetic.rules))
    if found is not None:
        return found
    blocks: Blocks = []
    parts: dict[str, Parts] = {}
    for rows in problem.blocks():
        values = problem.evaluate(arithmetic, rows, problem.outputs)
        blocks.append((rows.start, {n: e for n, e in values.items() if problem.outputs[n].along != "column"}))
        for name, e in values.items():
            if problem.outputs[name].along == "column":
                parts.setdefault(name, Parts()).add(e)
    blocks.append((0, {n: problem.finished(n, p.total(), arithmetic) for n, p in parts.items()}))
    if key is not None:
        _cache.put((key, arithmetic.rules), blocks)
    return blocks


def _split(problem: Problem, pieces: int) -> list[tuple[int, int]]:
    rows = problem.fold.rows
    edges = [rows * i // pieces for i in range(pieces + 1)]
    return [(a, b) for a, b in pairwise(edges) if b > a] or [(0, 0)]


Visit = Callable[[int, dict[str, Expected]], None]


def visit(
    problem: Problem, arithmetic: Arithmetic, names: Collection[str], make: Callable[[], Visit], key: Any = None
) -> None:
    """Calls visitors, one made by `make` per thread, with every block: its first row and its outputs `names`."""
    keep_freed_memory()
    workers = _workers(problem)
    if workers == 1 and problem.elements <= SMALL_ELEMENTS:
        see = make()
        for start, values in _evaluated(problem, arithmetic, key):
            see(start, {n: e for n, e in values.items() if n in names})
        return
    columns = [n for n in names if problem.outputs[n].along == "column"]

    def work(piece: tuple[int, int], see: Visit) -> dict[str, Parts]:
        parts = {n: Parts() for n in columns}
        for rows in problem.blocks(*piece):
            values = problem.evaluate(arithmetic, rows, names)
            for name in columns:
                parts[name].add(values.pop(name))
            see(rows.start, values)
        return parts

    pieces = _split(problem, 1 if workers == 1 else min(4 * workers, problem.fold.rows))
    if workers == 1:
        done = [work(p, make()) for p in pieces]
    else:
        waiting = [_threads().submit(work, p, make()) for p in pieces]
        done = [w.result() for w in waiting]
    totals = {}
    for name in columns:
        parts = Parts()
        for found in done:
            parts.add(found[name].total())
        totals[name] = problem.finished(name, parts.total(), arithmetic)
    if totals:
        make()(0, totals)


def tallies(
    problem: Problem, arithmetic: Arithmetic, got: Mapping[str, Rows], new: Callable[[str], Tally], key: Any = None
) -> dict[str, Tally]:
    """Compares every output in `got` with its expected value: one tally each."""
    made: list[dict[str, Tally]] = []

    def make() -> Visit:
        own = {n: new(n) for n in got}
        made.append(own)

        def see(start: int, values: dict[str, Expected]) -> None:
            for name, expected in values.items():
                own[name].add(expected, got[name].block(slice(start, start + expected.bound.shape[0])), start)

        return see

    visit(problem, arithmetic, set(got), make, key)
    total = made[0]
    for other in made[1:]:
        for name, tally in other.items():
            total[name].merge(tally)
    return total
