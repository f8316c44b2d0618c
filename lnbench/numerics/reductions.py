"""Sums, means and the variance of `Bounded` arrays.

A sum of n terms has error at most gamma(A) sum(|a| + e), A the summation constant of the rules' tier (Higham 1993).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lnbench.numerics.bounded import LONG, Bounded, is_finite
from lnbench.numerics.wide import Value

Array = np.ndarray[Any, np.dtype[Any]]


def _row_sums(a: Bounded, cols: int) -> tuple[Value, Array | float, Array]:
    """Sum of values, of errors (0.0 for none) and of magnitudes with errors, each (rows, 1)."""
    values = a.arithmetic.wide.sum_cols(a.value)
    reach = np.add.reduce(a.magnitude, axis=1, keepdims=True)
    if a.error is None:
        return values, 0.0, reach
    errors = np.add.reduce(np.broadcast_to(a.error, a.shape), axis=1, keepdims=True)
    return values, errors, reach + errors


def _of_rows(a: Bounded, value: Value, error: Array | None, reach: Array) -> Bounded:
    # The partial sums, in any order, are no larger than the sum of magnitudes: that decides on overflow.
    beyond = (
        None if a.beyond is None else np.logical_or.reduce(np.broadcast_to(a.beyond, a.shape), axis=1, keepdims=True)
    )
    over = (reach > a.arithmetic.limit) & is_finite(value)
    if over.any():
        beyond = over if beyond is None else beyond | over
    top = reach if error is None else reach + error
    peak = float(np.max(top, where=np.isfinite(top) & (top <= a.arithmetic.limit), initial=0.0))
    return Bounded(value, error, a.arithmetic, peak, beyond)


def total(a: Bounded) -> Bounded:
    """Sums over the columns, shape (rows, 1)."""
    ar, cols = a.arithmetic, a.shape[1]
    values, errors, reach = _row_sums(a, cols)
    error = ar.gamma(cols) * reach + errors + cols * ar.tiny
    if ar.sum_unit:
        error = error + ar.sum_unit * ar.wide.magnitude(values)
    return _of_rows(a, values, error, reach)


def mean(a: Bounded) -> Bounded:
    """Means over the columns, shape (rows, 1).

    Two roundings beyond the sum: the division (or 1/N and a product), or the update of a running mean. Exact for one
    column, and for a row of equal numbers whose multiples up to N fit into the significand, N a power of two.
    """
    ar, cols = a.arithmetic, a.shape[1]
    values, errors, reach = _row_sums(a, cols)
    n = float(max(cols, 1))
    value = values / n
    if ar.sum_unit:
        error = (ar.gamma(cols, 2) * reach + errors) / n + 3.0 * ar.unit * ar.wide.magnitude(value)
    else:
        error = (ar.gamma(cols, 2) * reach + errors) / n
    # Updates of a running mean underflow up to `cols` times.
    error = error + (cols + 2) * ar.tiny
    if a.error is None and not ar.exact:
        exact = _has_exact_mean(a)
        if exact is not None:
            error = np.where(exact, 0.0, error)
    return _of_rows(a, value, error, reach)


def _has_exact_mean(a: Bounded) -> Array | None:
    rows, cols = a.shape
    if cols == 1:
        return np.ones((rows, 1), dtype=bool)
    if cols == 0 or cols & (cols - 1) or rows == 0:
        return None
    narrow = a.arithmetic.wide.narrow(a.value)
    first = narrow[:, :1]
    equal = first == narrow[:, -1:]
    if not equal.any():
        return None
    equal &= (narrow == first).all(axis=1, keepdims=True)
    integer = (first == np.rint(first)) & (np.abs(first) * cols < 2.0**a.arithmetic.sum_format.precision)
    return np.asarray(equal & integer)


def variance(x: Bounded, m: Bounded) -> Bounded:
    """mean((x - m)**2) over the columns, shape (rows, 1); `m` must be `mean(x)`.

    Two-pass sums see an error of the mean only squared, since sum((x-c)**2) = sum((x-m)**2) + N (c-m)**2. Welford and
    merged (Chan, Golub, LeVeque 1983) updates see it to first order, 2 std |error of m|: that is allowed to all.
    """
    ar, cols = x.arithmetic, x.shape[1]
    n = float(max(cols, 1))
    d = x.value - m.value
    value = ar.wide.sum_squares(d) / n
    v = ar.wide.narrow(value)
    shift: Array | float = 0.0 if m.error is None else m.error
    if x.error is not None:
        # An error of each x moves its deviation as an error of the mean does.
        spread = np.broadcast_to(x.error, x.shape)
        shift = shift + np.sqrt(np.add.reduce(spread * spread, axis=1, keepdims=True) / n)
    if ar.rules.one_pass:
        return _one_pass(x, m, value, v, shift)
    moved = (2.0 * np.sqrt(v) + shift) * shift
    few = 5 if not ar.sum_unit else 0
    error = ar.gamma(cols, few) * (v + moved) + moved + 4.0 * ar.tiny
    if ar.sum_unit:
        error = error + 5.0 * ar.unit * (v + moved)
    out = _of_rows(m, value, error, np.asarray(n * (v + moved)))
    out.floor = 0.0
    return out


def _one_pass(x: Bounded, m: Bounded, value: Value, v: Array, shift: Array | float) -> Bounded:
    # mean(x*x) - mean(x)**2: both terms carry the rounding of numbers of size mean**2, and nothing keeps it positive.
    ar, cols = x.arithmetic, x.shape[1]
    squared = m.magnitude * m.magnitude
    error = (ar.gamma(cols, 4) + (4.0 * ar.unit if ar.sum_unit else 0.0)) * (v + squared)
    error = error + (2.0 * m.magnitude + shift) * shift + 2.0 * ar.unit * squared + ar.unit * v + 4.0 * ar.tiny
    return _of_rows(m, value, error, np.asarray(cols * (v + squared)))


def total_rows(a: Bounded) -> Bounded:
    """Sums over the rows, shape (1, cols): of the block at hand, as a part of the sum over all rows.

    Values and errors of parts add up to those of the whole: the summation constant is that of all rows.
    """
    ar = a.arithmetic
    value = ar.wide.sum_rows(a.value)
    reach = np.add.reduce(a.magnitude, axis=0, keepdims=True)
    error = None
    if a.error is not None:
        errors = np.add.reduce(np.broadcast_to(a.error, a.shape), axis=0, keepdims=True)
        reach += errors
        error = errors
    share = ar.gamma(ar.rows) + ar.sum_unit
    if share or ar.tiny:
        own = reach * share if share < np.inf else np.full_like(reach, np.inf)
        own += a.shape[0] * ar.tiny
        error = own if error is None else own + error
    beyond = (
        None if a.beyond is None else np.logical_or.reduce(np.broadcast_to(a.beyond, a.shape), axis=0, keepdims=True)
    )
    out = Bounded(value, error, ar, float(np.max(reach, where=np.isfinite(reach), initial=0.0)), beyond)
    if a.shape[1] <= LONG:
        out.summed = reach
    return out
