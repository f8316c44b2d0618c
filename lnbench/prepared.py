"""One call inside the worker: its arrays as the backend sees them, and what the backend returned.

Owns views of shared memory, private twins for timing, and copying returned arrays to where the parent reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from time import perf_counter_ns
from typing import Any

import numpy as np

from lnbench import memory
from lnbench.backend import Backend, Tensors
from lnbench.case import Case
from lnbench.numerics import dtypes
from lnbench.protocol import Lies, Plan

Answer = dict[str, Any]


class Prepared:
    """One call, with the arrays it was prepared on."""

    def __init__(self, backend: Backend, case: Case, pass_: str, threads: int, plan: Plan, segment: memory.Segment):
        self.plan, self.segment = plan, segment
        self.shared = _arrays(segment, {**plan.inputs, **plan.out})
        self.arrays = _twins(plan) if plan.private else self.shared
        inputs = {n: self.arrays[n] for n in plan.inputs}
        for name, array in inputs.items():
            array.flags.writeable = bool(plan.alias and name == plan.alias[1]) or bool(plan.private)
        self.refresh()
        if plan.private:
            inputs = {n: _read_only(a) for n, a in inputs.items()}
        self.out = {n: self.arrays[n] for n in plan.out}
        self.call = backend.prepare(case, pass_, Tensors(inputs, self.out), threads)
        self.run: Callable[[], None] = self.call.run
        self.load: Callable[[], None] | None = getattr(self.call, "load", None)

    def refresh(self, names: Iterable[str] | None = None) -> None:
        """Brings private twins (all, or those called `names`) up to what the parent wrote."""
        if self.plan.private:
            for name in self.arrays if names is None else names:
                memory.copy(self.arrays[name], self.shared[name])

    def collect(self) -> Answer:
        """Copies what the backend returned to where the parent reads it."""
        start = perf_counter_ns()
        found = self.call.outputs()
        arrays = {n: np.asarray(found[n]) for n in self.plan.scratch if found.get(n) is not None}
        elapsed = perf_counter_ns() - start
        return {
            "outputs": {n: self._store(n, a) for n, a in arrays.items()},
            "collect_ns": elapsed,
            "modified": self._modified(),
        }

    def _modified(self) -> list[str]:
        """Private inputs that the backend changed; guarded ones cannot be."""
        own = [n for n in self.plan.inputs if not (self.plan.alias and n == self.plan.alias[1])]
        return [n for n in own if self.plan.private and not memory.is_same(self.arrays[n], self.shared[n])]

    def _store(self, name: str, array: np.ndarray) -> Answer:
        lies = self.plan.scratch[name]
        own = self.shared.get(name)
        if own is not None and _same(array, own):
            return {"in": "out"}
        target = self.segment.array(lies.dtype, lies.offset, lies.shape, lies.strides)
        if array.dtype != target.dtype or array.size != target.size:
            return {"in": "nowhere", "dtype": str(array.dtype), "shape": list(array.shape)}
        length = memory.pages(target.nbytes)
        self.segment.protect(lies.offset, length, memory.WRITE)
        np.copyto(target.reshape(array.shape), array)
        self.segment.protect(lies.offset, length, memory.NONE)
        filled = _same(array, self.arrays[name]) if name in self.arrays else False
        return {"in": "scratch", "shape": list(array.shape), "returned": not filled}


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    there = one.__array_interface__
    here = other.__array_interface__
    return bool(
        there["data"][0] == here["data"][0]
        and one.dtype == other.dtype
        and one.shape == other.shape
        and one.strides == other.strides
    )


def _arrays(segment: memory.Segment, lies: Mapping[str, Lies]) -> dict[str, np.ndarray]:
    return {n: segment.array(a.dtype, a.offset, a.shape, a.strides) for n, a in lies.items()}


def _twins(plan: Plan) -> dict[str, np.ndarray]:
    """Private arrays at the drawn offsets, on huge pages where the system offers them."""
    block = memory.on_huge_pages(plan.private)
    return {
        n: np.ndarray(a.shape, dtypes.numpy(a.dtype), block, a.twin_offset, a.twin_strides)
        for n, a in {**plan.inputs, **plan.out}.items()
    }


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view
