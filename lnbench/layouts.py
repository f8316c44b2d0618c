"""How an array lies in memory, by name: strides, span and gaps from a shape and an item size.

Owns the list of layouts and their arithmetic. Where the bytes are, and what guards them, is `lnbench.memory`'s.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lnbench.errors import UsageError, nearest

LINE_BYTES = 64
SPARSE_PITCH = 1 << 30
SPARSE_ROWS = 64
_PAD = 5  # elements between padded rows: odd, so that rows keep no common vector alignment


@dataclass(frozen=True, slots=True)
class Gap:
    """Elements that lie inside the span but belong to nobody: offset and strides in bytes from the first element."""

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Form:
    """One array of `shape` as it lies in memory. All lengths in bytes.

    span: from the first element to the end of the last one.
    lead: bytes before the first element that belong to the same allocation (a slice with an offset).
    gaps: what lies between elements; holds canaries.
    skew: what the base address is modulo a 64-byte line, or None when any element boundary will do.
    islands: (offset, length) of the parts of the span that are backed by memory, when not all of it is.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    span: int
    lead: int = 0
    gaps: tuple[Gap, ...] = ()
    skew: int | None = None
    islands: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """A named layout: what it reveals, and the roles of tensors (`x`, `dy`, `gamma`, `out`) that it suits."""

    name: str
    reveals: str
    suits: tuple[str, ...]
    build: Callable[[tuple[int, ...], int, int], Form]


def place(name: str, shape: tuple[int, ...], itemsize: int, trailing: int = 1) -> Form:
    """How an array of `shape` lies in layout `name`.

    trailing: how many of the last axes make up one row; rows are what is padded, broadcast or set apart.
    Raises UsageError for an unknown name or a shape that the layout cannot hold.
    """
    return get(name).build(tuple(shape), itemsize, min(trailing, len(shape)))


def as_seen(name: str, array: np.ndarray, trailing: int = 1) -> np.ndarray:
    """`array` with the values that a backend will find in layout `name`: for `broadcast` every row is the first one."""
    if name != "broadcast" or not array.size or array.ndim <= trailing:
        return array
    return np.broadcast_to(array[(0,) * (array.ndim - trailing)], array.shape)


def packed(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Strides in bytes of a C-contiguous array."""
    return tuple(itemsize * math.prod(shape[a + 1 :]) for a in range(len(shape)))


def _contiguous(shape: tuple[int, ...], itemsize: int, trailing: int) -> Form:
    return Form(shape, packed(shape, itemsize), math.prod(shape) * itemsize)


def _pitched(shape: tuple[int, ...], itemsize: int, trailing: int, pitch: int) -> tuple[tuple[int, ...], int, int]:
    """Strides, number of rows and bytes of a row when rows start `pitch` bytes apart."""
    cut = len(shape) - trailing
    row = math.prod(shape[cut:]) * itemsize
    strides = tuple(n * pitch for n in packed(shape[:cut], 1)) + packed(shape[cut:], itemsize)
    return strides, math.prod(shape[:cut]), row


def _row_padded(shape: tuple[int, ...], itemsize: int, trailing: int) -> Form:
    pad = _PAD * itemsize
    row = math.prod(shape[len(shape) - trailing :]) * itemsize
    strides, rows, row = _pitched(shape, itemsize, trailing, row + pad)
    if rows * row == 0:
        return Form(shape, strides, 0)
    gaps = (Gap(row, (rows - 1, _PAD), (row + pad, itemsize)),) if rows > 1 else ()
    return Form(shape, strides, (rows - 1) * (row + pad) + row, gaps=gaps)


def _column_strided(shape: tuple[int, ...], itemsize: int, trailing: int) -> Form:
    n = math.prod(shape)
    gaps = (Gap(itemsize, (n - 1,), (2 * itemsize,)),) if n > 1 else ()
    return Form(shape, packed(shape, 2 * itemsize), max(0, 2 * n - 1) * itemsize, gaps=gaps)


def _transposed(shape: tuple[int, ...], itemsize: int, trailing: int) -> Form:
    if len(shape) < 2:
        return _contiguous(shape, itemsize, trailing)
    inner = packed((*shape[:-2], shape[-1], shape[-2]), itemsize)
    return Form(shape, (*inner[:-2], inner[-1], inner[-2]), math.prod(shape) * itemsize)


def _offset(shape: tuple[int, ...], itemsize: int, trailing: int) -> Form:
    row = math.prod(shape[len(shape) - trailing :])
    lead = row if 0 < row <= 4096 else 64
    return Form(shape, packed(shape, itemsize), math.prod(shape) * itemsize, lead=lead * itemsize)


def _misaligned(shape: tuple[int, ...], itemsize: int, trailing: int) -> Form:
    return Form(shape, packed(shape, itemsize), math.prod(shape) * itemsize, skew=itemsize)


def _broadcast(shape: tuple[int, ...], itemsize: int, trailing: int) -> Form:
    strides, rows, row = _pitched(shape, itemsize, trailing, 0)
    return Form(shape, strides, row if rows else 0)


def _sparse_rows(shape: tuple[int, ...], itemsize: int, trailing: int) -> Form:
    row = math.prod(shape[len(shape) - trailing :]) * itemsize
    pitch = SPARSE_PITCH * max(1, -(-row // SPARSE_PITCH))
    strides, rows, row = _pitched(shape, itemsize, trailing, pitch)
    if rows > SPARSE_ROWS:
        raise UsageError(f"layout 'sparse_rows' takes at most {SPARSE_ROWS} rows, the case has {rows}; use fewer rows")
    if rows * row == 0:
        return Form(shape, strides, 0)
    return Form(shape, strides, (rows - 1) * pitch + row, islands=tuple((r * pitch, row) for r in range(rows)))


_ALL = (
    Layout("contiguous", "the ordinary case", ("x", "dy", "gamma", "out"), _contiguous),
    Layout(
        "row_padded",
        "row strides ignored, taken from another tensor, or assumed to keep vector alignment",
        ("x", "dy", "out"),
        _row_padded,
    ),
    Layout(
        "column_strided",
        "column strides ignored in one of the passes over a row",
        ("x", "dy", "gamma", "out"),
        _column_strided,
    ),
    Layout("transposed", "a permuted array read as if it were contiguous", ("x", "dy", "gamma", "out"), _transposed),
    Layout(
        "offset", "the offset of a slice ignored: the memory before it is read", ("x", "dy", "gamma", "out"), _offset
    ),
    Layout(
        "misaligned",
        "vector accesses that trust the base address: it is one element off a 64-byte line",
        ("x", "dy", "gamma", "out"),
        _misaligned,
    ),
    Layout("broadcast", "row stride 0: every row of dy is the same memory", ("dy",), _broadcast),
    Layout("sparse_rows", "row offsets computed in 32 bits: rows are 1 GiB apart", ("x", "dy", "out"), _sparse_rows),
)
LAYOUTS = {layout.name: layout for layout in _ALL}


def names() -> tuple[str, ...]:
    """Names of all layouts."""
    return tuple(LAYOUTS)


def get(name: str) -> Layout:
    """The layout called `name`. Raises UsageError with the nearest name."""
    if name not in LAYOUTS:
        raise UsageError(f"unknown layout {name!r}{nearest(name, list(LAYOUTS))}; allowed: {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
