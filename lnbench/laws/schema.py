"""What a data law is (`Law`), and what it is given to draw from (`Block`).

A law draws one block of rows of one tensor in the working type; `drawing` rounds it to the tensor's
dtype and places it. Laws hold no state: the same block always gets the same numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lnbench.numerics.dtypes import widen

Array = np.ndarray[Any, np.dtype[Any]]

# What a tensor can be to a law.
KINDS = ("x", "dy", "affine", "state")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a dtype can represent, as far as the laws care.

    offset: largest |mean|/sd of a row whose spread still covers a few units in the last place.
    decades: scale of the smallest and largest ordinary row, and how much larger the one big row is.
    tiny: a scale whose square is still a normal number of the arithmetic (float32 or float64).
    sum_of_squares: what a whole row's sum of squares may reach.
    largest: cap on magnitudes; below the largest finite number.
    overflow: a scale whose square overflows the arithmetic, if the dtype can hold one.
    """

    offset: float
    decades: tuple[float, float, float]
    tiny: float
    sum_of_squares: float
    largest: float
    overflow: float
    subnormal: float
    significant_bits: int


LIMITS = {
    "float32": Limits(1e4, (1e-3, 1e1, 1e8), 1e-15, 1e35, 1e37, 1e30, 2.0**-149, 24),
    "float64": Limits(1e6, (1e-6, 1e4, 1e8), 1e-120, 1e300, 1e305, 1e200, 2.0**-1074, 53),
    "float16": Limits(500.0, (3e-4, 2e-3, 1e7), 1e-4, 1e30, 6e4, 6e4, 2.0**-24, 11),
    "bfloat16": Limits(50.0, (1e-3, 1e1, 1e8), 1e-15, 1e35, 1e37, 1e30, 2.0**-133, 8),
}


def stream(*words: object) -> np.random.Generator:
    """A generator whose numbers depend on `words` only: the same on every machine and in every process."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


@dataclass(slots=True)
class Block:
    """Rows `start` to `start + rows` of one tensor folded to (total, cols).

    words: what the tensor's random numbers depend on (seed, law, tensor, variant).
    x: for the gradient, the same rows of the already rounded x, shape (rows, cols).
    """

    words: tuple[object, ...]
    start: int
    rows: int
    cols: int
    total: int
    dtype: str
    epsilon: float
    x: Array | None = None
    _rng: np.random.Generator | None = None

    @property
    def rng(self) -> np.random.Generator:
        """The block's own numbers; they depend on where it starts, not on who draws it."""
        if self._rng is None:
            self._rng = stream(*self.words, self.start)
        return self._rng

    def shared(self) -> np.random.Generator:
        """Numbers that are the same for every block of the tensor; a new generator each time."""
        return stream(*self.words, "shared")

    @property
    def limits(self) -> Limits:
        return LIMITS[self.dtype]

    @property
    def work(self) -> type[np.float32] | type[np.float64]:
        """The type that laws compute in; float32 except for float64."""
        return np.float64 if self.dtype == "float64" else np.float32

    def floats(self, values: Any) -> Array:
        """`values` in the working type."""
        return np.asarray(values, self.work)

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.cols

    @property
    def row(self) -> Array:
        """Absolute row numbers, shape (rows, 1)."""
        return np.arange(self.start, self.start + self.rows)[:, None]

    @property
    def col(self) -> Array:
        """Column numbers, shape (1, cols)."""
        return np.arange(self.cols)[None, :]

    def normal(self) -> Array:
        """Standard normal numbers for the whole block."""
        return self.rng.standard_normal(self.shape, dtype=self.work)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Array:
        """Uniform numbers in [low, high) for the whole block."""
        out = self.rng.random(self.shape, dtype=self.work)
        out *= self.work(high - low)
        out += self.work(low)
        return out

    def per_row(self, low: float, high: float) -> Array:
        """One uniform number per row, shape (rows, 1)."""
        return self.floats(low + (high - low) * self.rng.random((self.rows, 1)))

    def scale_per_row(self, low: float, high: float) -> Array:
        """One log-uniform positive number per row, shape (rows, 1)."""
        return self.floats(log_uniform(self.rng, low, high, (self.rows, 1)))

    def sign_per_row(self) -> Array:
        """+1 or -1 per row, shape (rows, 1)."""
        return self.signs((self.rows, 1))

    def signs(self, shape: tuple[int, ...], negative: float = 0.5) -> Array:
        """-1 with the probability `negative`, otherwise +1."""
        return self.floats(np.where(self.rng.random(shape) < negative, -1, 1))


def coprime(rng: np.random.Generator, modulus: int) -> int:
    """A random step that visits every residue of `modulus`."""
    step = int(rng.integers(1, 1 << 20))
    while math.gcd(step, modulus) != 1:
        step += 1
    return step


def log_uniform(rng: np.random.Generator, low: float, high: float, shape: tuple[int, ...]) -> Array:
    """About log-uniform numbers in [low, high], float64. No library exponential, so that bits do not depend on one."""
    t = math.log2(low) + (math.log2(high) - math.log2(low)) * rng.random(shape)
    whole = np.floor(t)
    return np.clip(np.ldexp(1.0 + (t - whole), whole.astype(np.int64)), low, high)


def standardized(values: Array, epsilon: float = 0.0) -> Array:
    """Each row of `values` centred and divided by sqrt(var + epsilon), float64; rows where that is not finite are 0."""
    centred = widen(values) if values.dtype != np.float64 else values.copy()
    with np.errstate(all="ignore"):
        centred -= centred.mean(axis=1, keepdims=True)
        variance = np.einsum("ij,ij->i", centred, centred)[:, None] / max(values.shape[1], 1)
        scale = 1.0 / np.sqrt(variance + epsilon)
        centred *= scale
    # One element that is not finite, or a row without spread, makes the scale so.
    lost = ~np.isfinite(scale[:, 0]) | (scale[:, 0] == 0)
    centred[lost] = 0
    return centred


@dataclass(frozen=True, slots=True)
class Law:
    """A named way to draw one tensor.

    reveals: one sentence: which mistakes show on these data.
    tensors: the kinds of tensor it suits, among `KINDS`.
    unsystematic: rounding errors on these data behave like random signs, so that a sum of n terms may be held to
        about sqrt(n) roundings instead of n.
    """

    name: str
    reveals: str
    tensors: tuple[str, ...]
    function: Callable[[Block], Array]
    unsystematic: bool = False


LAWS: dict[str, Law] = {}


def law(
    *tensors: str, reveals: str, unsystematic: bool = False
) -> Callable[[Callable[[Block], Array]], Callable[[Block], Array]]:
    """Decorator: the function becomes the law of its name (a trailing underscore dropped)."""

    def register(function: Callable[[Block], Array]) -> Callable[[Block], Array]:
        name = function.__name__.rstrip("_")
        LAWS[name] = Law(name, reveals, tensors, function, unsystematic)
        return function

    return register
