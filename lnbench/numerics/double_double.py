"""`DoubleDouble`: arrays of unevaluated sums of two doubles, about 106 bits (Dekker 1971; Hida, Li and Bailey 2001)."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
_SPLIT = 134217729.0  # 2**27 + 1


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _quick_two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    total = a + b
    return total, b - (total - a)


def _split(a: Array) -> tuple[Array, Array]:
    # Large numbers are scaled, since the product with 2**27 would overflow.
    big = np.abs(a) > 2.0**990
    scaled = np.where(big, a * 2.0**-28, a)
    carried = _SPLIT * scaled
    high = carried - (carried - scaled)
    low = scaled - high
    return np.where(big, high * 2.0**28, high), np.where(big, low * 2.0**28, low)


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    product = a * b
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


class DoubleDouble:
    """An array of numbers high + low, |low| at most half an ulp of high; for what is not finite, low is 0."""

    __slots__ = ("high", "low")
    __array_ufunc__ = None  # NumPy arrays leave mixed operations to this class

    def __init__(self, high: Any, low: Any = None):
        self.high = np.asarray(high, dtype=np.float64)
        self.low = np.zeros_like(self.high) if low is None else low

    @classmethod
    def _of(cls, high: Array, low: Array) -> DoubleDouble:
        return cls(high, np.where(np.isfinite(high) & np.isfinite(low), low, 0.0))

    @staticmethod
    def _as(other: Any) -> DoubleDouble:
        return other if isinstance(other, DoubleDouble) else DoubleDouble(other)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.high.shape

    @property
    def size(self) -> int:
        return self.high.size

    @property
    def T(self) -> DoubleDouble:
        return DoubleDouble(self.high.T, self.low.T)

    def __getitem__(self, key: Any) -> DoubleDouble:
        return DoubleDouble(self.high[key], self.low[key])

    def __setitem__(self, key: Any, other: DoubleDouble) -> None:
        self.high[key], self.low[key] = other.high, other.low

    def __neg__(self) -> DoubleDouble:
        return DoubleDouble(-self.high, -self.low)

    def __add__(self, other: Any) -> DoubleDouble:
        b = self._as(other)
        high, low = _two_sum(self.high, b.high)
        tail, rest = _two_sum(self.low, b.low)
        total, low = _quick_two_sum(high, low + tail)
        total2, low = _quick_two_sum(total, low + rest)
        return self._of(np.where(np.isfinite(high), total2, high), low)

    __radd__ = __add__

    def __sub__(self, other: Any) -> DoubleDouble:
        return self + (-self._as(other))

    def __rsub__(self, other: Any) -> DoubleDouble:
        return self._as(other) + (-self)

    def __mul__(self, other: Any) -> DoubleDouble:
        b = self._as(other)
        high, low = _two_product(self.high, b.high)
        total, low = _quick_two_sum(high, low + (self.high * b.low + self.low * b.high))
        return self._of(np.where(np.isfinite(high) & np.isfinite(total), total, high), low)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> DoubleDouble:
        b = self._as(other)
        first = self.high / b.high
        rest = self - b * DoubleDouble(first)
        high, low = _quick_two_sum(first, (rest.high + rest.low) / b.high)
        return self._of(np.where(np.isfinite(high), high, first), low)

    def __rtruediv__(self, other: Any) -> DoubleDouble:
        return self._as(other) / self

    def sqrt(self) -> DoubleDouble:
        """Element-wise square root by one Newton step."""
        first = np.sqrt(self.high)
        square, low = _two_product(first, first)
        rest = self - DoubleDouble._of(square, low)
        step = np.where(first > 0, (rest.high + rest.low) / np.where(first > 0, 2.0 * first, 1.0), 0.0)
        high, low = _quick_two_sum(first, step)
        return self._of(np.where(np.isfinite(high), high, first), low)
