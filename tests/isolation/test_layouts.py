"""Strides, spans and gaps of the named layouts."""

from __future__ import annotations

import numpy as np
import pytest

from lnbench import layouts
from lnbench.errors import UsageError

SHAPES = [(4, 6), (2, 3, 5), (7,), (1, 1), (0, 4), (4, 0), (3, 1)]
DENSE = [n for n in layouts.names() if n not in ("broadcast", "sparse_rows")]


def touched(form: layouts.Form, itemsize: int) -> list[int]:
    """Byte offsets of every element, in logical order."""
    return [sum(i * s for i, s in zip(index, form.strides, strict=True)) for index in np.ndindex(*form.shape)]


def of_gap(gap: layouts.Gap) -> list[int]:
    return [gap.offset + sum(i * s for i, s in zip(at, gap.strides, strict=True)) for at in np.ndindex(*gap.shape)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("itemsize", [2, 8])
def test_elements_and_gaps_tile_the_span_without_overlap(name: str, shape: tuple[int, ...], itemsize: int) -> None:
    form = layouts.place(name, shape, itemsize)
    offsets = touched(form, itemsize) + [at for gap in form.gaps for at in of_gap(gap)]
    assert sorted(offsets) == list(range(0, form.span, itemsize))


@pytest.mark.parametrize("trailing", [1, 2])
def test_rows_of_two_axes_are_padded_as_one(trailing: int) -> None:
    form = layouts.place("row_padded", (3, 4, 6), 4, trailing)
    inner = form.strides[1] == 6 * 4
    assert inner == (trailing == 2)
    offsets = touched(form, 4) + [at for gap in form.gaps for at in of_gap(gap)]
    assert sorted(offsets) == list(range(0, form.span, 4))


def test_layouts_differ_from_contiguous_where_they_say_so() -> None:
    plain = layouts.place("contiguous", (4, 6), 4)
    assert layouts.place("transposed", (4, 6), 4).strides == (4, 16)
    assert layouts.place("column_strided", (4, 6), 4).strides[-1] == 8
    assert layouts.place("row_padded", (4, 6), 4).strides[0] > plain.strides[0]
    assert layouts.place("offset", (4, 6), 4).lead > 0
    assert layouts.place("misaligned", (4, 6), 4).skew == 4


def test_broadcast_stores_one_row_and_every_row_reads_as_the_first() -> None:
    form = layouts.place("broadcast", (5, 6), 4)
    assert form.strides == (0, 4) and form.span == 24
    array = np.arange(30.0).reshape(5, 6)
    assert (layouts.as_seen("broadcast", array) == array[0]).all()
    assert layouts.as_seen("contiguous", array) is array


def test_sparse_rows_lie_beyond_32_bits() -> None:
    form = layouts.place("sparse_rows", (5, 6), 4)
    assert form.span > 2**32
    assert [at for at, _ in form.islands] == [r << 30 for r in range(5)]
    with pytest.raises(UsageError, match="at most 64 rows"):
        layouts.place("sparse_rows", (65, 6), 4)


def test_an_unknown_layout_gets_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="did you mean 'row_padded'"):
        layouts.get("row_paded")


def test_every_layout_says_what_it_reveals_and_suits_something() -> None:
    for name in layouts.names():
        layout = layouts.get(name)
        assert layout.reveals and layout.suits
