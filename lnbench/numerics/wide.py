"""Arithmetic wider than the one under test, in which expected values are computed.

float64 serves 16- and 32-bit cases. float64 cases take long double where it has more bits, else pairs of doubles
(Dekker 1971, Knuth): `double_double`. Every kind offers the same few operations over 2-D arrays; `slack` is what its
own error can be at most, as a fraction of the bound of the arithmetic under test.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from lnbench.numerics import dtypes
from lnbench.numerics.double_double import DoubleDouble

Array = np.ndarray[Any, np.dtype[Any]]
Value = Any  # an Array, or a DoubleDouble where long double is no wider than double


class Wide(Protocol):
    """The operations on wide values beyond + - * /."""

    slack: float

    def array(self, values: Array) -> Value:
        """Wide values equal to `values` (any format), shape kept."""

    def empty(self, shape: tuple[int, int]) -> Value:
        """Wide values yet to be set."""

    def sqrt(self, value: Value) -> Value:
        """Element-wise square root."""

    def sum_cols(self, value: Value) -> Value:
        """Sums over axis 1, shape (rows, 1)."""

    def sum_squares(self, value: Value) -> Value:
        """Sums of squares over axis 1, shape (rows, 1)."""

    def sum_rows(self, value: Value) -> Value:
        """Sums over axis 0, shape (1, cols)."""

    def magnitude(self, value: Value) -> Array:
        """Absolute values as float64; infinite beyond its range."""

    def narrow(self, value: Value) -> Array:
        """Values rounded to float64."""

    def distance(self, got: Array, value: Value) -> Array:
        """|got - value| as float64, for `got` of any format."""


def halve_rows(value: Value) -> Value:
    """Sum over axis 0 by halving: log2(rows) roundings instead of rows. Keeps the axis."""
    while (rows := value.shape[0]) > 1:
        half = rows // 2
        folded = value[:half] + value[half : 2 * half]
        if rows % 2:
            folded[:1] = folded[:1] + value[2 * half :]
        value = folded
    return value


class Plain:
    """A NumPy floating-point type as wide arithmetic."""

    def __init__(self, dtype: Any, slack: float):
        self.dtype, self.slack = dtype, slack

    def array(self, values: Array) -> Array:
        return dtypes.widen(values, self.dtype)

    def empty(self, shape: tuple[int, int]) -> Array:
        return np.empty(shape, self.dtype)

    def sqrt(self, value: Array) -> Array:
        return np.sqrt(value)

    def sum_cols(self, value: Array) -> Array:
        return np.asarray(np.add.reduce(value, axis=1, keepdims=True))

    def sum_squares(self, value: Array) -> Array:
        if self.dtype is np.float64 and value.shape[1] <= 1 << 17:
            # One sweep, not pairwise: up to 2**17 terms that stays far below float32's bound.
            return np.asarray(np.einsum("ij,ij->i", value, value))[:, None]
        return self.sum_cols(value * value)

    def sum_rows(self, value: Array) -> Array:
        if self.dtype is np.float64 or value.shape[0] == 0:
            return np.asarray(np.add.reduce(value, axis=0, keepdims=True))
        return np.asarray(halve_rows(value))

    def magnitude(self, value: Array) -> Array:
        return np.abs(value) if self.dtype is np.float64 else np.abs(value).astype(np.float64)

    def narrow(self, value: Array) -> Array:
        with np.errstate(over="ignore"):  # beyond float64 is infinite
            return value.astype(np.float64, copy=False)

    def distance(self, got: Array, value: Array) -> Array:
        gap = np.subtract(self.array(got), value)
        return np.abs(gap, out=gap).astype(np.float64, copy=False)


class Pairs:
    """`DoubleDouble` as wide arithmetic."""

    slack = 2.0**-40

    def array(self, values: Array) -> DoubleDouble:
        return DoubleDouble(dtypes.widen(values))

    def empty(self, shape: tuple[int, int]) -> DoubleDouble:
        return DoubleDouble(np.empty(shape))

    def sqrt(self, value: DoubleDouble) -> DoubleDouble:
        return value.sqrt()

    def sum_cols(self, value: DoubleDouble) -> DoubleDouble:
        if value.shape[1] == 0:
            return DoubleDouble(np.zeros((value.shape[0], 1)))
        summed: DoubleDouble = halve_rows(value.T)
        return summed.T

    def sum_squares(self, value: DoubleDouble) -> DoubleDouble:
        return self.sum_cols(value * value)

    def sum_rows(self, value: DoubleDouble) -> DoubleDouble:
        return halve_rows(value) if value.shape[0] else DoubleDouble(np.zeros((1, value.shape[1])))

    def magnitude(self, value: DoubleDouble) -> Array:
        return np.abs(value.high + value.low)

    def narrow(self, value: DoubleDouble) -> Array:
        return value.high + value.low

    def distance(self, got: Array, value: DoubleDouble) -> Array:
        return self.magnitude(self.array(got) - value)


# float64 against float32: 2**-29 per rounding, times at most 2**7 for plainer summation than the bound assumes.
float64 = Plain(np.float64, 2.0**-22)
# 64 bits against 53: 2**-11 per rounding, and pairwise sums of about twice the constant of the best tier.
long_double = Plain(np.longdouble, 2.0**-10)
double_double = Pairs()


def has_wide_long_double() -> bool:
    """Whether long double is an IEEE-like type with at least 64 significant bits."""
    return np.finfo(np.longdouble).nmant in (63, 112)


def choose(work: str) -> Wide:
    """The wide arithmetic for programs that compute in `work`."""
    if work != "float64":
        return float64
    return long_double if has_wide_long_double() else double_double
