"""Family H: strides, offsets and alignment that are ignored or taken from the wrong tensor."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from lnbench.selftest import kernel
from lnbench.selftest.kernel import STEPS, Array, Function, Job, Results, job_for
from lnbench.selftest.mutants._plant import plant

Reader = Callable[[Job, Array, str, str], Array]


def view_at(array: Array, shift: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    """Memory `shift` bytes from an array's first element, as it would be seen through a bare pointer."""
    last = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + array.itemsize
    raw: Any = (ctypes.c_char * max(last, 1)).from_address(array.ctypes.data + shift)
    return np.ndarray(shape, array.dtype, raw, 0, strides)


def contiguous_strides(array: Array) -> tuple[int, ...]:
    """Strides of a packed array of the same shape."""
    strides, size = [], array.itemsize
    for n in reversed(array.shape):
        strides.append(size)
        size *= n
    return tuple(reversed(strides))


def packed(array: Array) -> Array:
    """What a kernel reads that takes the array for contiguous."""
    return view_at(array, 0, array.shape, contiguous_strides(array))


def _packed_reader(*names: str) -> Reader:
    def read(job: Job, array: Array, along: str, name: str) -> Array:
        return kernel.read(job, packed(array) if name in names else array, along, name)

    return read


def _offset_ignored(job: Job, array: Array, along: str, name: str) -> Array:
    if name == "x" and job.case.layout == "offset":
        array = view_at(array, -array.strides[0], array.shape, array.strides)
    return kernel.read(job, array, along, name)


def _aligned_down(job: Job, array: Array, along: str, name: str) -> Array:
    if name == "x":
        array = view_at(array, -(array.ctypes.data % 16), array.shape, array.strides)
    return kernel.read(job, array, along, name)


def _peeled(job: Job, array: Array, along: str, name: str) -> Array:
    rows = kernel.read(job, array, along, name)
    if name == "x" and array.ctypes.data % 64 and job.cols > 1:
        rows[:, 0] = rows[:, 1]
    return rows


def _first_stride(job: Job, array: Array, along: str, name: str) -> Array:
    if name == "x" and array.ndim > 2 and job.fold.reduced == (array.ndim - 1,):
        return as_strided(array, (job.rows, job.cols), (array.strides[0], array.strides[-1])).astype(job.work)
    return kernel.read(job, array, along, name)


def _inner_stride(job: Job, array: Array, along: str, name: str) -> Array:
    """The stride of the last outer axis for all rows: wrong where the outer axes do not fold."""
    if name == "x" and array.ndim > 2 and job.fold.reduced == (array.ndim - 1,):
        return view_at(array, 0, (job.rows, job.cols), (array.strides[-2], array.strides[-1])).astype(job.work)
    return kernel.read(job, array, along, name)


def _memory_order(job: Job, array: Array, along: str, name: str) -> Array:
    if name == "x":
        array = np.ravel(array, order="K").reshape(array.shape)
    return kernel.read(job, array, along, name)


def _not_transposed(job: Job, array: Array, along: str, name: str) -> Array:
    if along == "element":
        return array.reshape(job.rows, job.cols).astype(job.work)
    return kernel.read(job, array, along, name)


def _half_strided(inner: Function) -> Function:
    """Statistics from the strided x, the normalize step from x read as contiguous."""

    def run(x: Array, gamma: Array | None, beta: Array | None, **call: Any) -> Results:
        found = inner(x, gamma, beta, **call)
        if 0 in x.shape:
            return found
        job = job_for(STEPS, x.shape, call["axis"], call["epsilon"], call["threads"], call["case"])
        mean, rstd = (job.fold.to_rows(found[n], "row") for n in ("mean", "rstd"))
        scale, shift = (None if a is None else kernel.read(job, a, "column", "") for a in (gamma, beta))
        y = kernel.output(job, kernel.read(job, packed(x), "element", "x"), mean, rstd, scale, shift)
        return found | {"y": job.fold.from_rows(y.astype(job.storage))}

    return run


def _dy_as_x(inner: Function) -> Function:
    """dy read with the strides of x."""

    def run(dy: Array, x: Array, *arrays: Any, **call: Any) -> Results:
        return inner(view_at(dy, 0, x.shape, x.strides) if dy.itemsize == x.itemsize else dy, x, *arrays, **call)

    return run


def _written(name: str, strides_of: Callable[[Array, Array], tuple[int, ...]]) -> Callable[[Function], Function]:
    """Output `name` written with strides of the wrong array: (first input, output) -> strides."""

    def around(inner: Function) -> Function:
        def run(first: Array, *arrays: Any, out: dict[str, Array], **call: Any) -> Results:
            found = inner(first, *arrays, out=out, **call)
            if 0 in first.shape:
                return found
            target = out[name]
            view_at(target, 0, target.shape, strides_of(first, target))[...] = found.pop(name)
            return found

        return run

    return around


def _broadcast_once(inner: Function) -> Function:
    """A broadcast dy counted once in dbeta."""

    def run(dy: Array, x: Array, *arrays: Any, **call: Any) -> Results:
        found = inner(dy, x, *arrays, **call)
        if dy.size and dy.strides[0] == 0 and dy.shape[0] > 1:
            found["dbeta"] = (found["dbeta"] / dy.shape[0]).astype(found["dbeta"].dtype)
        return found

    return run


plant(
    "x_as_contiguous",
    "H",
    "a strided x read as contiguous",
    like="microsoft/DirectML#588",
    read=_packed_reader("x"),
    dies=True,
)
plant(
    "dy_as_contiguous",
    "H",
    "a strided or broadcast dy read as contiguous",
    like="pytorch/pytorch#175189",
    backward=lambda inner: kernel.LayerNorm(kernel.edited(read=_packed_reader("dy"))).backward,
    dies=True,
)
plant(
    "affine_as_contiguous",
    "H",
    "strided gamma and beta read as contiguous",
    like="pytorch/pytorch#176238",
    read=_packed_reader("gamma", "beta"),
    dies=True,
)
plant(
    "beta_as_contiguous",
    "H",
    "strided beta read as contiguous, gamma right",
    read=_packed_reader("beta"),
    passes="forward",
    dies=True,
)
plant(
    "offset_ignored",
    "H",
    "the storage offset of a slice ignored",
    like="pytorch/pytorch#131750",
    read=_offset_ignored,
    dies=True,
)
plant(
    "base_aligned_down",
    "H",
    "base pointer rounded down to 16 bytes",
    like="microsoft/onnxruntime#15054",
    read=_aligned_down,
    dies=True,
)
plant(
    "peeled_element_lost",
    "H",
    "an unaligned row's first element replaced by its second",
    like="flashinfer-ai/flashinfer#634",
    read=_peeled,
)
plant(
    "first_stride_for_rows",
    "H",
    "rank 3: the first stride paired with the flattened row count",
    like="vllm-project/vllm-xpu-kernels#397",
    read=_first_stride,
    dies=True,
)
plant(
    "inner_stride_for_rows",
    "H",
    "rank 3: the inner stride used across the outer axis",
    like="openvinotoolkit/openvino#36649",
    read=_inner_stride,
    dies=True,
)
plant("memory_order", "H", "x taken in the order of memory", like="microsoft/DirectML#588", read=_memory_order)
plant(
    "axes_not_transposed",
    "H",
    "normalized axes that are not the last ones folded without transposing",
    like="microsoft/onnxruntime#9160",
    read=_not_transposed,
)
plant(
    "stride_in_statistics_only",
    "H",
    "the column stride used for statistics, not for the output",
    like="ModelTC/LightLLM#1467",
    forward=_half_strided,
    dies=True,
)
plant(
    "dy_with_stride_of_x",
    "H",
    "dy read with the strides of x",
    like="unslothai/unsloth#10617",
    backward=_dy_as_x,
    dies=True,
)
plant(
    "y_with_stride_of_x",
    "H",
    "y written with the strides of x",
    like="pytorch/FBGEMM#4796",
    forward=_written("y", lambda x, y: x.strides),
    dies=True,
)
plant(
    "y_as_contiguous",
    "H",
    "y written as contiguous",
    forward=_written("y", lambda x, y: contiguous_strides(y)),
    dies=True,
)
plant(
    "dx_as_contiguous",
    "H",
    "dx written as contiguous",
    backward=_written("dx", lambda dy, dx: contiguous_strides(dx)),
    dies=True,
)
plant(
    "dx_with_stride_of_dy",
    "H",
    "dx written with the strides of dy",
    backward=_written("dx", lambda dy, dx: dy.strides),
    dies=True,
)
plant("broadcast_counted_once", "H", "a broadcast dy counted once in dbeta", backward=_broadcast_once)
