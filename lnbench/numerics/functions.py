"""Functions of one `Bounded` array: roots, the square, and roundings to the formats that programs keep numbers in."""

from __future__ import annotations

from typing import Any

import numpy as np

from lnbench.numerics import dtypes
from lnbench.numerics.bounded import Bounded, is_finite
from lnbench.numerics.wide import Value

Array = np.ndarray[Any, np.dtype[Any]]


def _interval(a: Bounded) -> tuple[Array, Array, Array, Array, Array]:
    """Roots of the least, the expected and the largest argument of a program; distances to the least and largest."""
    middle = np.maximum(a.arithmetic.wide.narrow(a.value), 0.0)
    above = np.zeros_like(middle) if a.error is None else a.error + np.zeros_like(middle)
    below = above if a.floor is None else np.minimum(above, np.maximum(middle - a.floor, 0.0))
    return np.sqrt(np.maximum(middle - below, 0.0)), np.sqrt(middle), np.sqrt(middle + above), below, above


def _bounded(a: Bounded, value: Value, error: Array, floor: float | None = None) -> Bounded:
    top = a.arithmetic.wide.magnitude(value) + error
    return Bounded(value, error, a.arithmetic, float(np.max(top, where=np.isfinite(top), initial=0.0)), a.beyond, floor)


@np.errstate(all="ignore")
def rsqrt(a: Bounded) -> Bounded:
    """1/sqrt(a), one primitive of at most 4 units (an estimate with Newton steps, or a root and a division)."""
    ar = a.arithmetic
    low, middle, high, below, above = _interval(a)
    # Differences of reciprocal roots, without cancellation. Infinite where a may be 0.
    up = np.where(below > 0, below / low / middle / (low + middle), 0.0)
    down = np.where(above > 0, above / high / middle / (high + middle), 0.0)
    error = np.maximum(up, down) + 4.0 * ar.unit / low + ar.tiny
    error = np.where(np.isinf(middle), 0.0, error)
    error = np.where(np.isnan(error) | (low == 0.0), np.inf, error)
    return _bounded(a, 1.0 / ar.wide.sqrt(a.value), error)


@np.errstate(all="ignore")
def sqrt(a: Bounded) -> Bounded:
    """sqrt(a), one primitive of at most 5 units (a * rsqrt(a) is one way to compute it).

    Infinite where a program's argument may be 0 or negative although the expected one is not (one-pass variance).
    """
    ar = a.arithmetic
    low, middle, high, below, above = _interval(a)
    moved = np.maximum(
        np.where(below > 0, below / (low + middle), 0.0), np.where(above > 0, above / (high + middle), 0.0)
    )
    error = moved + 5.0 * ar.unit * high + ar.tiny
    if a.floor is None:
        error = np.where(low == 0.0, np.inf, error)
    return _bounded(a, ar.wide.sqrt(a.value), error, 0.0)


def square(a: Bounded) -> Bounded:
    """a * a, never negative."""
    out = a * a
    out.floor = 0.0
    return out


def saved(a: Bounded, *, converted: bool = False) -> Bounded:
    """`a` (a statistic) as rounded to the format it is kept in; `converted` when its kind may have changed too."""
    ar, rules = a.arithmetic, a.arithmetic.rules
    units = tiny = 0.0
    if not ar.exact and rules.saved and dtypes.get(rules.saved).unit > ar.unit:
        units, tiny = dtypes.get(rules.saved).unit, dtypes.get(rules.saved).smallest
    if converted and rules.converted:
        units += 2.0 * ar.unit
    if not units:
        return a
    out = a.plus_error(units * a.reach() + tiny)
    if tiny:
        # A statistic beyond the range of its format is kept as an infinity: nothing that follows from it can be right.
        over = (out.reach() > dtypes.get(rules.saved).largest) & is_finite(out.value)
        if over.any():
            out.beyond = over if out.beyond is None else out.beyond | over
    return out


def early(a: Bounded) -> Bounded:
    """`a` rounded to the storage format where the rules say that a program casts before the affine step."""
    ar = a.arithmetic
    if not ar.cast_unit:
        return a
    return a.plus_error(ar.cast_unit * a.reach() + dtypes.get(ar.rules.storage).smallest)
