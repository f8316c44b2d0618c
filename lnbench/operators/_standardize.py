"""The arithmetic that every standardizing operator shares: (x - mean) * rstd with an affine tail, and its gradient.

Each function joins the orders of evaluation that sound programs use (`either`); all are the same function of their
arguments.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from lnbench.case import Case
from lnbench.numerics import dtypes
from lnbench.numerics.bounded import Bounded
from lnbench.numerics.forms import columnwise, either
from lnbench.numerics.functions import early, saved
from lnbench.numerics.reductions import mean, total
from lnbench.numerics.rules import work_format


def present(case: Case, of_gamma: str, of_beta: str) -> tuple[str, ...]:
    """The names among these two whose parameter the case has."""
    return ((of_gamma,) if case.gamma else ()) + ((of_beta,) if case.beta else ())


def exact_rows(x: np.ndarray[Any, np.dtype[Any]], dtype: str) -> np.ndarray[Any, np.dtype[Any]]:
    """Rows of x (rows, cols) whose mean every sound program gets exactly, and whose deviations are then exactly 0.

    One element; or equal small integers, whose partial sums are exact in any order, with a power of two of columns, so
    that the division is exact too. Returns bool (rows,).
    """
    rows, cols = x.shape
    if cols == 0 or (cols & (cols - 1)):
        return np.zeros(rows, dtype=bool)
    wide = x.astype(np.float64)
    first = wide[:, :1]
    with np.errstate(invalid="ignore"):
        small = (np.abs(first) * cols < 2.0 ** dtypes.get(work_format(dtype)).precision) & (first == np.rint(first))
        found = (wide == first).all(axis=1) & (small[:, 0] | (cols == 1))
    exact: np.ndarray[Any, np.dtype[Any]] = found & np.isfinite(first[:, 0])
    return exact


def scaled(a: Bounded, gamma: Bounded | None) -> Bounded:
    """a * gamma, or a where there is no gamma."""
    return a if gamma is None else a * gamma


def early_scaled(dy: Bounded, gamma: Bounded | None) -> Bounded:
    """g = gamma * dy, the gradient at xhat."""
    return columnwise(lambda dy, gamma: early(scaled(dy, gamma)), dy, gamma)


def shifted(a: Bounded, beta: Bounded | None) -> Bounded:
    """a + beta, or a where there is no beta."""
    return a if beta is None else a + beta


def kept(m: Bounded, r: Bounded) -> tuple[Bounded, Bounded]:
    """Mean and rstd as they are used: after rounding to the format they are kept in, where that is a shorter one."""
    return saved(m), saved(r, converted=True)


def output(x: Bounded, m: Bounded, r: Bounded, gamma: Bounded | None, beta: Bounded | None) -> Bounded:
    """y = (x - m) * r * gamma + beta, shape of x.

    (x - m) * (r * gamma) + beta has the same roundings as the first form, so it need not be evaluated.
    """

    def direct(x: Bounded, m: Bounded, r: Bounded, gamma: Bounded | None, beta: Bounded | None) -> Bounded:
        return shifted(early(scaled(early((x - m) * r), gamma)), beta)

    def fused(x: Bounded, m: Bounded, r: Bounded, gamma: Bounded | None, beta: Bounded | None) -> Bounded:
        return shifted(early(scaled(early(x * r - m * r), gamma)), beta)

    def folded(x: Bounded, m: Bounded, r: Bounded, gamma: Bounded | None, beta: Bounded | None) -> Bounded:
        scale = scaled(r, gamma)
        return x * scale - m * scale if beta is None else x * scale + (beta - m * scale)

    others = (fused,) if gamma is None and beta is None else (fused, folded)
    return columnwise(lambda *args: either(args, direct, *others), x, m, r, gamma, beta)


def standardized(x: Bounded, m: Bounded, r: Bounded) -> Bounded:
    """xhat = (x - m) * r as backward passes recompute it, shape of x."""

    def joined(x: Bounded, m: Bounded, r: Bounded) -> Bounded:
        return early(either((x, m, r), lambda x, m, r: (x - m) * r, lambda x, m, r: x * r - m * r))

    return columnwise(joined, x, m, r)


def gradient(g: Bounded, xhat: Bounded, x: Bounded, m: Bounded, r: Bounded) -> Bounded:
    """dx = r * (g - mean(g) - xhat * mean(g * xhat)), shape of x, for g = gamma * dy."""

    def projected(g: Bounded, xhat: Bounded, x: Bounded, m: Bounded, r: Bounded) -> Bounded:
        return columnwise(_projected, g, xhat, r, mean(g), mean(columnwise(operator.mul, g, xhat)))

    def affine(g: Bounded, xhat: Bounded, x: Bounded, m: Bounded, r: Bounded) -> Bounded:
        # dx = r g + b x + c with per-row b and c, from sum(g x) and sum(g) (Caffe2, torch on CPU).
        db, n = total(g), float(x.shape[1])
        b = (db * m - total(columnwise(operator.mul, g, x))) * (r * r * r) / n
        return columnwise(lambda *args: either(args, _centred, _expanded), g, x, m, r, b, db * r / n)

    return either((g, xhat, x, m, r), projected, affine)


def _projected(g: Bounded, xhat: Bounded, r: Bounded, mean_g: Bounded, h: Bounded) -> Bounded:
    return r * (g - mean_g - xhat * h)


def _centred(g: Bounded, x: Bounded, m: Bounded, r: Bounded, b: Bounded, c: Bounded) -> Bounded:
    return g * r + (x - m) * b - c


def _expanded(g: Bounded, x: Bounded, m: Bounded, r: Bounded, b: Bounded, c: Bounded) -> Bounded:
    return g * r + x * b - (b * m + c)


def scale_terms(dy: Bounded, xhat: Bounded, x: Bounded, m: Bounded, r: Bounded) -> Bounded:
    """dy * xhat, the terms whose sum is dgamma, shape of x."""

    def direct(dy: Bounded, xhat: Bounded, x: Bounded, m: Bounded, r: Bounded) -> Bounded:
        return dy * xhat

    def apart(dy: Bounded, xhat: Bounded, x: Bounded, m: Bounded, r: Bounded) -> Bounded:
        return dy * x * r - dy * (m * r)

    return columnwise(lambda *args: either(args, direct, apart), dy, xhat, x, m, r)
