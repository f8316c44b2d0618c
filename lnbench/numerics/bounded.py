"""`Bounded`: an array of expected values, each with a bound on how far any sound program may be from it.

Running error analysis (Wilkinson; Higham 2002, chapter 3): every operation propagates the errors of its operands and
adds its own rounding, u |result|, and underflow. Terms of second order in u are covered by the margin that the judge
adds. Values are computed in an arithmetic so wide that their own error is far below the bound. Sums live in
`reductions`, roots in `functions`, orders of evaluation in `forms`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lnbench.numerics import dtypes
from lnbench.numerics.rules import Arithmetic
from lnbench.numerics.wide import Value

Array = np.ndarray[Any, np.dtype[Any]]


# Rows longer than this are worked on in pieces, and nothing about them is remembered: memory must not grow with the
# number of operations.
LONG = 1 << 20


class Bounded:
    """A 2-D array (rows, cols), (rows, 1), (1, cols) or (1, 1) of expected values with error bounds.

    value: wide array. error: float64 array that broadcasts to it, or None for none at all.
    peak: a number that |value| + error does not exceed where both are finite.
    floor: a number that no sound program gets below, or None.
    beyond: where an intermediate may have overflowed, or None for nowhere.
    summed: for a sum over rows, the sum of magnitudes that its summation constant multiplies.
    """

    __slots__ = ("_magnitude", "arithmetic", "beyond", "error", "floor", "peak", "summed", "value")

    def __init__(
        self,
        value: Value,
        error: Array | None,
        arithmetic: Arithmetic,
        peak: float,
        beyond: Array | None = None,
        floor: float | None = None,
    ):
        self.value, self.error, self.arithmetic = value, error, arithmetic
        self.peak, self.beyond, self.floor = peak, beyond, floor
        self.summed: Array | None = None
        self._magnitude: Array | None = None
        if not peak <= arithmetic.limit:
            self._look_for_overflow()

    def _look_for_overflow(self) -> None:
        # The cheap scalar bound is exceeded: look at every element. What is not finite came in with the inputs.
        # A wide value may be finite where its magnitude, a float64, is infinite already: that is beyond the range.
        top = self.magnitude if self.error is None else self.magnitude + self.error
        over = self.magnitude > self.arithmetic.limit
        if self.error is not None:
            over = over | ((top > self.arithmetic.limit) & np.isfinite(self.error))
        over = over & is_finite(self.value)
        self.peak = float(np.max(top, where=np.isfinite(top) & ~over, initial=0.0))
        if over.any():
            self.beyond = over if self.beyond is None else self.beyond | over

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape  # type: ignore[no-any-return]

    @property
    def magnitude(self) -> Array:
        """|value| as float64."""
        if self._magnitude is not None:
            return self._magnitude
        found = self.arithmetic.wide.magnitude(self.value)
        if self.value.size <= LONG:
            self._magnitude = found
        return found

    def reach(self) -> Array:
        """|value| + error: the largest magnitude a program may have here."""
        return self.magnitude if self.error is None else self.magnitude + self.error

    def columns(self, where: slice) -> Bounded:
        """Some columns of it, as views; all of what has one column."""
        if self.shape[1] == 1:
            return self
        error, beyond = (a if a is None or a.shape[1] == 1 else a[:, where] for a in (self.error, self.beyond))
        return Bounded(self.value[:, where], error, self.arithmetic, self.peak, beyond, self.floor)

    def within(self, arithmetic: Arithmetic) -> Bounded:
        """The same numbers in another arithmetic."""
        return _like(self, self.error, arithmetic)

    def exact(self) -> Bounded:
        """The same values, moved outward by their error and then free of it."""
        if self.error is None:
            return self
        moved = self.value + np.copysign(self.error, self.arithmetic.wide.narrow(self.value))
        return Bounded(moved, None, self.arithmetic, self.peak, self.beyond, self.floor)

    def plus_error(self, more: Array | float) -> Bounded:
        """The same values with `more` error."""
        error = more + np.zeros(self.shape) if self.error is None else self.error + more
        return _like(self, error, self.arithmetic)

    def __neg__(self) -> Bounded:
        return Bounded(-self.value, self.error, self.arithmetic, self.peak, self.beyond)

    def __add__(self, other: Bounded | float) -> Bounded:
        return _add(self, _bounded(other, self.arithmetic), subtract=False)

    def __radd__(self, other: float) -> Bounded:
        return _add(_bounded(other, self.arithmetic), self, subtract=False)

    def __sub__(self, other: Bounded | float) -> Bounded:
        return _add(self, _bounded(other, self.arithmetic), subtract=True)

    def __rsub__(self, other: float) -> Bounded:
        return _add(_bounded(other, self.arithmetic), self, subtract=True)

    def __mul__(self, other: Bounded | float) -> Bounded:
        return _multiply(self, _bounded(other, self.arithmetic))

    __rmul__ = __mul__

    def __truediv__(self, other: Bounded | float) -> Bounded:
        return _divide(self, _bounded(other, self.arithmetic))

    def __rtruediv__(self, other: float) -> Bounded:
        return _divide(_bounded(other, self.arithmetic), self)


def _like(a: Bounded, error: Array | None, arithmetic: Arithmetic) -> Bounded:
    out = Bounded.__new__(Bounded)
    out.value, out.error, out.arithmetic, out._magnitude = a.value, error, arithmetic, a._magnitude
    out.peak, out.beyond, out.floor, out.summed = a.peak, a.beyond, a.floor, a.summed
    if error is not None and error is not a.error:
        out.peak = a.peak + float(np.max(error, where=np.isfinite(error), initial=0.0))
    return out


def is_finite(value: Value) -> Array:
    """Where a wide value is finite, also beyond the range of float64."""
    return np.asarray(np.isfinite(value.high if hasattr(value, "high") else value))


def _merged(a: Bounded, b: Bounded) -> Array | None:
    if a.beyond is None or b.beyond is None:
        return b.beyond if a.beyond is None else a.beyond
    return a.beyond | b.beyond


def given(values: Array, dtype: str, arithmetic: Arithmetic) -> Bounded:
    """An input: exact in its own format `dtype`, rounded when that has more bits than the arithmetic."""
    value = arithmetic.wide.array(values)
    magnitude = arithmetic.wide.magnitude(value)
    peak = float(magnitude.max(initial=0.0))
    error = None
    if dtypes.get(dtype).precision > dtypes.get(arithmetic.rules.work).precision:
        error = arithmetic.unit * magnitude + arithmetic.tiny
    elif arithmetic.rules.flush:
        normal = max(dtypes.get(dtype).normal, arithmetic.tiny)
        if (small := magnitude < normal).any():
            error = np.where(small, magnitude, 0.0)
    out = Bounded(value, error, arithmetic, peak if error is None else 2.0 * peak)
    if magnitude.size <= LONG:
        out._magnitude = magnitude
    return out


def _bounded(number: Bounded | float, arithmetic: Arithmetic) -> Bounded:
    return number if isinstance(number, Bounded) else constant(number, arithmetic)


def constant(number: float, arithmetic: Arithmetic) -> Bounded:
    """A number of the formula (epsilon, a momentum); rounded to the arithmetic unless it is one of its numbers."""
    value = np.array([[float(number)]])
    error, size = 0.0, abs(number)
    if not arithmetic.exact and arithmetic.rules.work != "float64" and float(np.float32(number)) != number:
        error = arithmetic.unit * size + arithmetic.tiny
    floor = max(number - error, 0.0) if number >= 0 else None
    return Bounded(
        arithmetic.wide.array(value), np.array([[error]]) if error else None, arithmetic, size + error, floor=floor
    )


def _add(a: Bounded, b: Bounded, *, subtract: bool) -> Bounded:
    ar = a.arithmetic
    value = a.value - b.value if subtract else a.value + b.value
    out_magnitude: Array | None = None
    error: Array | None = None
    if ar.unit:
        out_magnitude = ar.wide.magnitude(value)
        error = out_magnitude * ar.unit
        for other in (a.error, b.error):
            if other is not None:
                error += other
        if ar.rules.flush:
            error += ar.tiny
    elif a.error is not None and b.error is not None:
        error = a.error + b.error
    else:
        error = b.error if a.error is None else a.error
    floor = None
    if not subtract and a.floor is not None and b.floor is not None:
        floor = (a.floor + b.floor) * (1.0 - ar.unit)
    out = Bounded(value, error, ar, a.peak + b.peak, _merged(a, b), floor)
    if out_magnitude is not None and value.size <= LONG:
        out._magnitude = out_magnitude
    return out


def _multiply(a: Bounded, b: Bounded) -> Bounded:
    ar = a.arithmetic
    value = a.value * b.value
    if a.value.size < b.value.size:
        a, b = b, a  # what can be computed on the smaller operand alone is cheap
    out_magnitude: Array | None = None
    error: Array | None = None
    if b.value.size < value.size:
        by_a = ar.unit * b.magnitude if ar.unit else None  # what multiplies |a|
        if b.error is not None:
            by_a = b.error if by_a is None else by_a + b.error
        if by_a is not None:
            error = a.magnitude * by_a
    else:
        if ar.unit:
            out_magnitude = ar.wide.magnitude(value)
            error = out_magnitude * ar.unit
        if b.error is not None:
            error = _sum_of(error, a.magnitude * b.error)
    if a.error is not None:
        error = _sum_of(error, a.error * b.reach())
    if error is not None and ar.tiny:
        error += ar.tiny
    out = Bounded(value, error, ar, a.peak * b.peak, _merged(a, b))
    if out_magnitude is not None and value.size <= LONG:
        out._magnitude = out_magnitude
    return out


def _sum_of(error: Array | None, more: Array) -> Array:
    # `error` is overwritten where it is large enough: it belongs to the operation that calls.
    if error is None:
        return more
    if error.shape == np.broadcast_shapes(error.shape, more.shape):
        error += more
        return error
    return error + more


@np.errstate(all="ignore")
def _divide(a: Bounded, b: Bounded) -> Bounded:
    ar = a.arithmetic
    value = a.value / b.value
    magnitude = ar.wide.magnitude(value)
    error = magnitude * ar.unit + ar.tiny
    if a.error is not None or b.error is not None:
        inherited = np.zeros_like(magnitude) if a.error is None else a.error + np.zeros_like(magnitude)
        room = b.magnitude
        if b.error is not None:
            inherited = inherited + magnitude * b.error
            room = np.maximum(b.magnitude - b.error, 0.0)
        error = error + np.where(room > 0, inherited / room, np.where(inherited > 0, np.inf, 0.0))
    top = magnitude + error
    return Bounded(value, error, ar, float(np.max(top, where=np.isfinite(top), initial=0.0)), _merged(a, b))
