"""Functions of one `Bounded` array: roots, the square, and roundings to the formats that programs keep numbers in."""

from __future__ import annotations

from typing import Any

import numpy as np

from lnbench.numerics import dtypes
from lnbench.numerics.bounded import Bounded

Array = np.ndarray[Any, np.dtype[Any]]


def _root_gap(a: Bounded) -> tuple[Array, Array, Array]:
    # sqrt of the least value a program may have, sqrt of the value, and the distance between the two arguments.
    magnitude = np.maximum(a.arithmetic.wide.narrow(a.value), 0.0)
    gap = np.zeros_like(magnitude) if a.error is None else a.error + np.zeros_like(magnitude)
    if a.floor is not None:
        gap = np.minimum(gap, np.maximum(magnitude - a.floor, 0.0))
    return np.sqrt(np.maximum(magnitude - gap, 0.0)), np.sqrt(magnitude), gap


def rsqrt(a: Bounded) -> Bounded:
    """1/sqrt(a), one primitive of at most 4 units (an estimate with Newton steps, or a root and a division)."""
    ar = a.arithmetic
    value = 1.0 / ar.wide.sqrt(a.value)
    low, middle, gap = _root_gap(a)
    # 1/low - 1/middle without cancellation; the other side of the interval is always nearer. Infinite where a may be 0.
    up = np.where(gap > 0, gap / (low * middle * (low + middle)), 0.0)
    error = up + 4.0 * ar.unit / low + ar.tiny
    error = np.where(np.isinf(middle), 0.0, error)
    error = np.where(np.isnan(error) | (low == 0.0), np.inf, error)
    magnitude = ar.wide.magnitude(value)
    top = magnitude + error
    return Bounded(value, error, ar, float(np.max(top, where=np.isfinite(top), initial=0.0)), a.beyond)


def sqrt(a: Bounded) -> Bounded:
    """sqrt(a), one primitive of at most 5 units (a * rsqrt(a) is one way to compute it)."""
    ar = a.arithmetic
    value = ar.wide.sqrt(a.value)
    low, middle, gap = _root_gap(a)
    magnitude = ar.wide.magnitude(value)
    error = np.where(gap > 0, gap / (low + middle), 0.0) + 5.0 * ar.unit * magnitude + ar.tiny
    top = magnitude + error
    return Bounded(value, error, ar, float(np.max(top, where=np.isfinite(top), initial=0.0)), a.beyond, 0.0)


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
    return a.plus_error(units * a.reach() + tiny) if units else a


def early(a: Bounded) -> Bounded:
    """`a` rounded to the storage format where the rules say that a program casts before the affine step."""
    ar = a.arithmetic
    if not ar.cast_unit:
        return a
    return a.plus_error(ar.cast_unit * a.reach() + dtypes.get(ar.rules.storage).smallest)
