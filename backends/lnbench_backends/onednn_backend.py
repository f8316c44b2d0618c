"""oneDNN's layer normalization primitives on the CPU, through the C library: forward training and backward.

Rows are described to the library by their stride; where a tensor has none, contiguous copies are made outside the
timed part. The statistic is the variance.
"""

from __future__ import annotations

from collections.abc import Mapping
from ctypes import c_int, c_void_p

import numpy as np

from lnbench.backend import Call, Tensors
from lnbench.case import Case
from lnbench.errors import Unsupported
from lnbench_backends import _onednn_library as onednn
from lnbench_backends._frameworks import (
    Array,
    fold,
    needs_affine_dtype,
    needs_trailing_axes,
)

ELEMENTWISE = ("x", "y", "dx", "dy")


class OneDnnBackend:
    """float32, bfloat16 and, where the processor has it, float16.

    Parameters are float32 for the library: those of a half type are widened by `load`, and their gradients rounded by
    `outputs`.
    """

    name = "onednn"

    def __init__(self) -> None:
        self._threads = 0

    def describe(self) -> Mapping[str, str]:
        found = onednn.library()
        v = found.version
        return {
            "version": f"{v.major}.{v.minor}.{v.patch}",
            "device": "cpu",
            "runtime": found.runtime,
            "call": "dnnl_primitive_execute of forward_training and backward",
            "casts": "half types are computed in float32; parameters and statistics are float32",
            "statistics": "var",
            "threads": "call" if found.runtime == "OpenMP" else "ignored",
        }

    def supports(self, case: Case) -> str | None:
        if case.op != "layer_norm":
            return f"the onednn backend has no {case.op}"
        if case.dtype not in onednn.TYPES:
            return f"oneDNN's layer normalization does not take {case.dtype}"
        return needs_trailing_axes(case, "oneDNN") or needs_affine_dtype(case, "oneDNN", mixed=("float32",))

    def prepare(self, case: Case, pass_: str, tensors: Tensors, threads: int) -> Call:
        self.use_threads(threads)  # a primitive keeps the count that it was created with
        try:
            return _OneDnnCall(self, case, pass_, tensors, threads)
        except onednn.NotImplementedByOneDnn as error:
            raise Unsupported(f"oneDNN has no implementation for it: {error}") from error

    def use_threads(self, threads: int) -> None:
        if threads != self._threads:
            onednn.library().use_threads(threads)
            self._threads = threads


class _OneDnnCall:
    def __init__(self, backend: OneDnnBackend, case: Case, pass_: str, tensors: Tensors, threads: int):
        self._library, self._backend, self._threads = onednn.library(), backend, threads
        inputs = {n: a for n, a in tensors.inputs.items() if n in onednn.ARGUMENTS}
        if case.beta and "beta" not in inputs:
            # The primitive asks for the shift in backward too, although nothing depends on it.
            inputs["beta"] = np.zeros(tensors.out["dbeta"].shape, np.float32)
        self._inputs = {n: _Rows(n, a, case) for n, a in inputs.items()}
        self._out = {n: _Rows(n, a, case) for n, a in tensors.out.items() if n in onednn.ARGUMENTS}
        rows = self._inputs | self._out
        self._layouts = {n: self._library.layout(r.array.shape, r.strides, r.dtype) for n, r in rows.items()}
        self._primitive = self._library.primitive(self._descriptor(case, pass_))
        memories = {n: self._library.memory(self._layouts[n], r.array.ctypes.data) for n, r in rows.items()}
        pairs = [onednn.Argument(onednn.ARGUMENTS[n], m) for n, m in memories.items()]
        arguments = (onednn.Argument * len(pairs))(*pairs)
        self._execute = self._library.execution(self._primitive, c_int(len(pairs)), arguments)

    def _descriptor(self, case: Case, pass_: str) -> c_void_p:
        """The primitive's descriptor, built from the tensors of this pass."""
        flags = onednn.USE_SCALE * case.gamma | onednn.USE_SHIFT * case.beta
        layouts, library = self._layouts, self._library
        x, stat = layouts["x"], layouts["mean"]
        forward = library.forward(x, layouts.get("y", x), stat, case.epsilon, flags)
        if pass_ == "forward":
            return forward
        return library.backward(layouts["dx"], layouts["dy"], x, stat, case.epsilon, flags, forward)

    def load(self) -> None:
        for rows in self._inputs.values():
            rows.load()

    def run(self) -> None:
        self._backend.use_threads(self._threads)
        self._execute()

    def outputs(self) -> Mapping[str, Array]:
        return {n: rows.result() for n, rows in self._out.items()}


class _Rows:
    """A tensor as the library sees it, (rows, cols), (rows,) or (cols,): in place where strides and dtype allow it."""

    def __init__(self, name: str, array: Array, case: Case):
        view = fold(array, case) if name in ELEMENTWISE else array.reshape(-1)
        dtype = array.dtype if name in ELEMENTWISE else np.dtype(np.float32)
        in_place = array.dtype == dtype and (array.size == 0 or np.shares_memory(view, array))
        # A broadcast tensor has row stride 0, which the library refuses.
        usable = in_place and view.strides[-1] == view.itemsize and all(s > 0 for s in view.strides)
        self._source, self._copied = array, not usable
        self.array = view if usable else np.array(view, dtype=dtype, order="C", copy=True)
        self.dtype = dtype.name

    @property
    def strides(self) -> tuple[int, ...]:
        """In elements."""
        return tuple(s // self.array.itemsize for s in self.array.strides)

    def load(self) -> None:
        if self._copied:
            np.copyto(self.array, self._source.reshape(self.array.shape), casting="same_kind")

    def result(self) -> Array:
        return self.array.reshape(self._source.shape).astype(self._source.dtype, copy=False)
