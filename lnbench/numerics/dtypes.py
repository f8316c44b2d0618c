"""The floating-point formats: unit roundoff, range, spacing, correct rounding. Names are those of the config keys."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_EXPONENT = np.int64(0x7FF0000000000000)


@dataclass(frozen=True, slots=True)
class Format:
    """One binary floating-point format.

    precision: significant bits, the hidden one included. unit: unit roundoff, 2**-precision.
    smallest: smallest subnormal. normal: smallest normal. largest: largest finite number.
    """

    name: str
    precision: int
    min_exponent: int
    largest: float

    @property
    def unit(self) -> float:
        return float(2.0**-self.precision)

    @property
    def normal(self) -> float:
        return float(2.0**self.min_exponent)

    @property
    def smallest(self) -> float:
        # ldexp, because 2.0**-1074 passes through an intermediate that some C libraries round to 0.
        return float(np.ldexp(1.0, self.min_exponent - self.precision + 1))


_FORMATS = {
    "float16": Format("float16", 11, -14, 65504.0),
    "bfloat16": Format("bfloat16", 8, -126, float.fromhex("0x1.fep127")),
    "float32": Format("float32", 24, -126, float.fromhex("0x1.fffffep127")),
    "float64": Format("float64", 53, -1022, float.fromhex("0x1.fffffffffffffp1023")),
}


def get(name: str) -> Format:
    """The format called `name`. Raises KeyError."""
    return _FORMATS[name]


@cache
def numpy(name: str) -> np.dtype[Any]:
    """The NumPy dtype called `name`; bfloat16 is that of ml_dtypes. Raises KeyError."""
    _FORMATS[name]
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def is_name(name: str) -> bool:
    """Whether `name` is one of the formats."""
    return name in _FORMATS


def widen(array: Array, dtype: Any = np.float64) -> Array:
    """`array` (any of the formats) as `dtype` (float64 or longdouble); exact. A copy unless nothing changes."""
    if array.dtype == ml_dtypes.bfloat16:
        # A shift is several times quicker than the element-wise cast of ml_dtypes.
        bits = np.ascontiguousarray(array).view(np.uint16).astype(np.uint32)
        array = np.left_shift(bits, 16, out=bits).view(np.float32).reshape(array.shape)
    return array.astype(dtype, copy=False)


def ulp(values: Array, name: str) -> Array:
    """Distance from |value| to the next larger number of the format `name`, as float64; at least its least subnormal.

    values: float64 of any shape; NaN and infinities give infinity.
    """
    form = _FORMATS[name]
    power = (np.ascontiguousarray(values, dtype=np.float64).view(np.int64) & _EXPONENT).view(np.float64)
    spacing = np.maximum(power, form.normal, out=power)
    # Two steps, because 2**(1 - 53) times the smallest normal must come out as the exact subnormal.
    return np.multiply(spacing, 2.0 ** (1 - form.precision), out=spacing)


def round_to(values: Array, name: str) -> Array:
    """`values` (float64 or longdouble) rounded once, to nearest with ties to even, as an array of the format `name`."""
    form, target = _FORMATS[name], numpy(name)
    with np.errstate(all="ignore"):
        if name == "bfloat16":
            # The cast of ml_dtypes goes through float32 and would round twice.
            exact = np.asarray(values, dtype=np.float64)
            spacing = ulp(exact, name)
            rounded = np.where(np.isfinite(exact), np.rint(exact / spacing) * spacing, exact)
            values = np.where(np.abs(rounded) > form.largest, np.copysign(np.inf, rounded), rounded).astype(np.float32)
        return np.asarray(values).astype(target)
