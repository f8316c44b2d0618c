"""The arithmetic that every standardizing operator shares: (x - mean) * rstd with an affine tail, and its gradient.

Each function joins the orders of evaluation that sound programs use (`either`); all are the same function of their
arguments.
"""

from __future__ import annotations

from collections.abc import Callable

from lnbench.case import Case
from lnbench.numerics.bounded import Bounded, early, either, saved
from lnbench.numerics.reductions import mean, total


def present(case: Case, of_gamma: str, of_beta: str) -> tuple[str, ...]:
    """The names among these two whose parameter the case has."""
    return ((of_gamma,) if case.gamma else ()) + ((of_beta,) if case.beta else ())


def scaled(a: Bounded, gamma: Bounded | None) -> Bounded:
    """a * gamma, or a where there is no gamma."""
    return a if gamma is None else a * gamma


def shifted(a: Bounded, beta: Bounded | None) -> Bounded:
    """a + beta, or a where there is no beta."""
    return a if beta is None else a + beta


def kept(m: Bounded, r: Bounded) -> tuple[Bounded, Bounded]:
    """Mean and rstd as they are used: after rounding to the format they are kept in, where that is a shorter one."""
    return saved(m), saved(r, converted=True)


def output(x: Bounded, m: Bounded, r: Bounded, gamma: Bounded | None, beta: Bounded | None) -> Bounded:
    """y = (x - m) * r * gamma + beta, shape of x."""

    def direct(x: Bounded, m: Bounded, r: Bounded, gamma: Bounded | None, beta: Bounded | None) -> Bounded:
        return shifted(early(scaled(early((x - m) * r), gamma)), beta)

    def scale_first(x: Bounded, m: Bounded, r: Bounded, gamma: Bounded | None, beta: Bounded | None) -> Bounded:
        return shifted((x - m) * scaled(r, gamma), beta)

    def fused(x: Bounded, m: Bounded, r: Bounded, gamma: Bounded | None, beta: Bounded | None) -> Bounded:
        return shifted(early(scaled(early(x * r - m * r), gamma)), beta)

    def folded(x: Bounded, m: Bounded, r: Bounded, gamma: Bounded | None, beta: Bounded | None) -> Bounded:
        scale = scaled(r, gamma)
        return x * scale - m * scale if beta is None else x * scale + (beta - m * scale)

    others: tuple[Callable[..., Bounded], ...] = (fused,)
    if gamma is not None:
        others = (scale_first, fused, folded)
    elif beta is not None:
        others = (fused, folded)
    return either((x, m, r, gamma, beta), direct, *others)


def gradient(dy: Bounded, x: Bounded, m: Bounded, r: Bounded, gamma: Bounded | None) -> Bounded:
    """dx = r * (g - mean(g) - xhat * mean(g * xhat)) with g = gamma * dy and xhat = (x - m) * r, shape of x."""

    def projected(g: Bounded, r: Bounded, xhat: Bounded) -> Bounded:
        return r * (g - mean(g) - xhat * mean(g * xhat))

    def direct(dy: Bounded, x: Bounded, m: Bounded, r: Bounded, gamma: Bounded | None) -> Bounded:
        return projected(early(scaled(dy, gamma)), r, early((x - m) * r))

    def fused(dy: Bounded, x: Bounded, m: Bounded, r: Bounded, gamma: Bounded | None) -> Bounded:
        return projected(early(scaled(dy, gamma)), r, early(x * r - m * r))

    def affine(dy: Bounded, x: Bounded, m: Bounded, r: Bounded, gamma: Bounded | None) -> Bounded:
        # dx = r g + b x + c with per-row b and c, from sum(g x) and sum(g) (Caffe2, torch on CPU).
        g = early(scaled(dy, gamma))
        db, n = total(g), float(x.shape[1])
        b = (db * m - total(g * x)) * (r * r * r) / n
        return affine_step(g, x, m, r, b, db * r / n)

    return either((dy, x, m, r, gamma), direct, fused, affine)


def affine_step(g: Bounded, x: Bounded, m: Bounded, r: Bounded, b: Bounded, c: Bounded) -> Bounded:
    """r g + b (x - m) - c; evaluated so, or as r g + b x + (-b m - c)."""

    def together(g: Bounded, x: Bounded, m: Bounded, r: Bounded, b: Bounded, c: Bounded) -> Bounded:
        return g * r + (x - m) * b - c

    def apart(g: Bounded, x: Bounded, m: Bounded, r: Bounded, b: Bounded, c: Bounded) -> Bounded:
        return g * r + x * b - (b * m + c)

    return either((g, x, m, r, b, c), together, apart)


def scale_terms(dy: Bounded, x: Bounded, m: Bounded, r: Bounded) -> Bounded:
    """dy * xhat, the terms whose sum is dgamma, shape of x."""

    def direct(dy: Bounded, x: Bounded, m: Bounded, r: Bounded) -> Bounded:
        return dy * early((x - m) * r)

    def apart(dy: Bounded, x: Bounded, m: Bounded, r: Bounded) -> Bounded:
        return dy * x * r - dy * (m * r)

    return either((dy, x, m, r), direct, apart)
