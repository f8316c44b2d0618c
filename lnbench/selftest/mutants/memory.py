"""Family I: accesses outside a buffer, narrow offsets, inputs changed, aliasing that is promised and breaks."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from lnbench.selftest import kernel
from lnbench.selftest.kernel import STEPS, Array, Function, Job, Results, job_for
from lnbench.selftest.mutants._plant import plant
from lnbench.selftest.mutants.layouts import view_at

Touch = Callable[[Array], None]


def _end(array: Array) -> int:
    """Address just behind the last element."""
    span = sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True))
    return int(array.ctypes.data) + int(span) + int(array.itemsize)


def _write_before(array: Array) -> None:
    ctypes.memset(array.ctypes.data - array.itemsize, 0, array.itemsize)


def _write_after(array: Array) -> None:
    ctypes.memset(_end(array), 0, array.itemsize)


def _read_before(array: Array) -> None:
    ctypes.string_at(array.ctypes.data - array.itemsize, array.itemsize)


def _read_after(array: Array) -> None:
    ctypes.string_at(_end(array), array.itemsize)


def _read_vector_after(array: Array) -> None:
    """A last vector load of 16 bytes that begins at the last element."""
    ctypes.string_at(_end(array) - array.itemsize, 16)


def _write_padding(array: Array) -> None:
    """Every row rounded up to whole vectors of 8 elements: into the padding or the next row's place."""
    if (
        array.ndim > 1
        and array.strides[-1] == array.itemsize
        and array.strides[-2] >= (array.shape[-1] + 1) * array.itemsize
    ):
        ctypes.memset(array.ctypes.data + array.shape[-1] * array.itemsize, 0, array.itemsize)


def _scribble(array: Array) -> None:
    """Changes the first element and leaves it changed."""
    ctypes.memset(array.ctypes.data, 0, array.itemsize)


def _scribble_and_restore(array: Array) -> None:
    """Uses an input as scratch and puts it back."""
    saved = ctypes.string_at(array.ctypes.data, array.itemsize)
    ctypes.memset(array.ctypes.data, 0, array.itemsize)
    ctypes.memmove(array.ctypes.data, saved, array.itemsize)


def _touching(what: str | int, touch: Touch) -> Callable[[Function], Function]:
    """Right results, and `touch` on an output by name or an input by position."""

    def around(inner: Function) -> Function:
        def run(*arrays: Any, out: dict[str, Array], **call: Any) -> Results:
            found = inner(*arrays, out=out, **call)
            if isinstance(what, int):
                target = arrays[what]
            else:
                # Filled in place, so that what is written outside belongs to a buffer that is in use.
                target = out.get(what)
                if target is not None and what in found:
                    target[...] = found.pop(what)
            if target is not None and target.size:
                touch(target)
            return found

        return run

    return around


DY, X, GAMMA = 0, 1, 2  # positions in backward; in forward x is 0, gamma 1, beta 2

for name, what, touch, sentence in (
    ("writes_before_y", "y", _write_before, "writes one element before y"),
    ("writes_after_y", "y", _write_after, "writes one element behind y"),
    ("writes_after_mean", "mean", _write_after, "writes one element behind the means"),
    ("writes_row_padding", "y", _write_padding, "rounds rows up and writes into their padding"),
    ("reads_before_x", 0, _read_before, "reads one element before x, to no effect"),
    ("reads_after_x", 0, _read_after, "reads one element behind x, to no effect"),
    ("reads_vector_after_x", 0, _read_vector_after, "a vector load at the last element of x"),
    ("reads_after_gamma", 1, _read_after, "reads one element behind gamma, to no effect"),
    ("reads_after_beta", 2, _read_after, "reads one element behind beta, to no effect"),
    ("x_changed", 0, _scribble, "changes x"),
    ("gamma_changed", 1, _scribble, "changes gamma"),
    ("x_as_scratch", 0, _scribble_and_restore, "uses x as scratch and restores it"),
):
    plant(name, "I", sentence, forward=_touching(what, touch), dies=True)

for name, what, touch, sentence in (
    ("writes_before_dgamma", "dgamma", _write_before, "writes one element before dgamma"),
    ("writes_after_dgamma", "dgamma", _write_after, "writes one element behind dgamma"),
    ("writes_before_dx", "dx", _write_before, "writes one element before dx"),
    ("writes_after_dx", "dx", _write_after, "writes one element behind dx"),
    ("writes_after_dbeta", "dbeta", _write_after, "writes one element behind dbeta"),
    ("reads_after_dy", DY, _read_after, "reads one element behind dy, to no effect"),
    ("reads_before_dy", DY, _read_before, "reads one element before dy, to no effect"),
    ("reads_after_saved_mean", 3, _read_after, "reads one element behind the saved means"),
    ("dy_changed", DY, _scribble, "changes dy"),
    ("gamma_as_scratch", GAMMA, _scribble_and_restore, "backward uses gamma as scratch"),
):
    plant(name, "I", sentence, backward=_touching(what, touch), dies=True)


def _narrow_offsets(bits: int) -> Callable[[Job, Array, str, str], Array]:
    """Row offsets in bytes kept in so many bits."""

    def read(job: Job, array: Array, along: str, name: str) -> Array:
        if name not in ("x", "dy") or array.ndim != 2 or abs(array.strides[0]) * (job.rows - 1) < 2 ** (bits - 1):
            return kernel.read(job, array, along, name)
        rows = []
        for i in range(job.rows):
            offset = i * array.strides[0] % 2**bits
            signed = offset - 2**bits if bits == 32 and offset >= 2**31 else offset
            rows.append(view_at(array, signed, (1, job.cols), (0, array.strides[1])).astype(job.work))
        return np.concatenate(rows)

    return read


plant(
    "offsets_of_32_bits",
    "I",
    "row offsets in signed 32 bits",
    like="vllm-project/vllm#43390",
    read=_narrow_offsets(32),
    dies=True,
)
plant(
    "offsets_of_31_bits",
    "I",
    "row offsets beyond 2 GiB wrap to the first rows",
    like="pytorch/pytorch#181555",
    read=_narrow_offsets(31),
)


def _late_statistics(inner: Function) -> Function:
    """y = x - mean is written before x is read again for the variance: wrong when y is x."""

    def run(x: Array, gamma: Array | None, beta: Array | None, *, out: dict[str, Array], **call: Any) -> Results:
        if 0 in x.shape:
            return inner(x, gamma, beta, out=out, **call)
        job = job_for(STEPS, x.shape, call["axis"], call["epsilon"], call["threads"], call["case"])
        values = kernel.read(job, x, "element", "x")
        mean = kernel.mean(job, values)
        out["y"][...] = job.fold.from_rows((values - mean).astype(job.storage))
        again = kernel.read(job, x, "element", "x")
        rstd = kernel.rstd(job, kernel.variance(job, again, mean))
        scale, shift = (None if a is None else kernel.read(job, a, "column", "") for a in (gamma, beta))
        out["y"][...] = job.fold.from_rows(kernel.output(job, values, mean, rstd, scale, shift).astype(job.storage))
        shape = job.fold.statistic_shape
        return {"mean": mean.reshape(shape), "rstd": rstd.reshape(shape)}

    return run


def _dx_first(inner: Function) -> Function:
    """dx is written before dy is read for dgamma: wrong when dx is dy."""

    def run(dy: Array, *arrays: Any, out: dict[str, Array], **call: Any) -> Results:
        first = inner(dy, *arrays, out=out, **call)
        out["dx"][...] = first.pop("dx")
        second = inner(dy, *arrays, out=out, **call)
        return {"dgamma": second["dgamma"], "dbeta": second["dbeta"]}

    return run


def _aliased_rows(inner: Function) -> Function:
    """A fast path that is taken only in place: y over x, without beta."""

    def run(x: Array, gamma: Array | None, beta: Array | None, *, out: dict[str, Array], **call: Any) -> Results:
        in_place = out["y"].ctypes.data == x.ctypes.data
        return inner(x, gamma, None if in_place else beta, out=out, **call)

    return run


plant(
    "in_place_late_statistics",
    "I",
    "promises y over x, but reads x again after writing y",
    facts={"inplace": "y=x"},
    forward=_late_statistics,
)
plant(
    "in_place_without_beta",
    "I",
    "promises y over x, where a fast path forgets beta",
    facts={"inplace": "y=x"},
    forward=_aliased_rows,
)
plant(
    "in_place_dx_first",
    "I",
    "promises dx over dy, but writes dx before dgamma is formed",
    like="unslothai/unsloth#4550",
    facts={"inplace": "dx=dy"},
    backward=_dx_first,
)
