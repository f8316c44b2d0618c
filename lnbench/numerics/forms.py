"""Formulas evaluated as a whole: `either` joins legitimate orders of evaluation, `columnwise` cuts long rows in pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lnbench.numerics import bounded
from lnbench.numerics.bounded import Bounded

Array = np.ndarray[Any, np.dtype[Any]]


def columnwise(function: Callable[..., Bounded], *args: Bounded | None) -> Bounded:
    """`function(*args)` for a function without sums over columns: rows longer than `bounded.LONG` are done in pieces."""
    cols = max(a.shape[1] for a in args if a is not None)
    if cols <= bounded.LONG:
        return function(*args)
    ar = next(a.arithmetic for a in args if a is not None)
    rows = max(a.shape[0] for a in args if a is not None)
    value, error, peak = ar.wide.empty((rows, cols)), np.zeros((rows, cols)), 0.0
    beyond: Array | None = None
    for start in range(0, cols, bounded.LONG // 4):
        where = slice(start, min(start + bounded.LONG // 4, cols))
        piece = function(*(None if a is None else a.columns(where) for a in args))
        value[:, where] = piece.value
        if piece.error is not None:
            error[:, where] = piece.error
        if piece.beyond is not None:
            beyond = np.zeros((rows, cols), dtype=bool) if beyond is None else beyond
            beyond[:, where] = piece.beyond
        peak = max(peak, piece.peak)
    return Bounded(value, error, ar, peak, beyond)


def either(args: tuple[Bounded | None, ...], first: Callable[..., Bounded], *others: Callable[..., Bounded]) -> Bounded:
    """`first(*args)`, with the bound that holds for every one of these orders of evaluation of the same formula.

    All forms equal the same function of `args`, so the errors of `args` reach the result in the same way: they are
    propagated once, through `first`. Each form then has only its own roundings, taken at arguments without error (moved
    outward, for the roundings grow with them). Joining independently propagated forms instead would loosen the bound by
    |mean|/std, since errors that cancel in the function do not cancel in its expanded form.
    """
    ar = next(a.arithmetic for a in args if a is not None)
    if ar.exact:
        return first(*args)
    free = ar.without_rounding
    inherited = first(*(None if a is None else a.within(free) for a in args))
    outward = tuple(None if a is None else a.exact() for a in args)
    own: Array | None = None
    beyond = inherited.beyond
    peak = inherited.peak
    for form in (first, *others):
        result: Bounded | None = form(*outward)
        assert result is not None
        peak = max(peak, result.peak)
        if result.beyond is not None:
            beyond = result.beyond if beyond is None else beyond | result.beyond
        more, result = result.error, None
        if more is not None:
            own = more if own is None else np.maximum(own, more, out=own if own.shape == more.shape else None)
    error = own
    if own is not None and inherited.error is not None:
        error = own + inherited.error
    elif own is None:
        error = inherited.error
    out = Bounded(inherited.value, error, ar, peak, beyond)
    out._magnitude = inherited._magnitude
    return out
