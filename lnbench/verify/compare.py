"""`Tally`: holds what a backend returned against expected values and bounds, element by element.

Rules for what is not finite: where the inputs make the expected value NaN, NaN must come; where they make it infinite,
or for a statistic, anything not finite may come. A value that rounds beyond the output's range must be the infinity of
its sign. An undecided element (infinite bound) may be anything but NaN, which only epsilon = 0 or a weaker bound
excuses; out of domain, anything may come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lnbench.numerics import dtypes
from lnbench.numerics.wide import Wide
from lnbench.verify.expected import Expected

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(slots=True)
class Tally:
    """The comparison of one output, over the blocks added so far; `worst` is (row, col) in the folded problem."""

    wide: Wide
    dtype: str
    nan_refused: bool
    any_nonfinite: bool
    any_special: bool = False  # where the inputs are not finite, anything may come
    compared: int = 0
    undecided: int = 0
    out_of_domain: int = 0
    failed: int = 0
    budget: float = -1.0
    max_abs: float = 0.0
    max_ulp: float = 0.0
    max_bound: float = 0.0
    max_value: float = 0.0
    worst: tuple[int, int] | None = None
    at_worst: tuple[float, float, float, float] = (np.nan,) * 4  # expected, got, bound, summed magnitudes (see Bounded)

    @property
    def passed(self) -> bool:
        return self.failed == 0

    @property
    def resolution(self) -> float | None:
        """A wrongness of twice the largest bound is seen wherever it is; relative to the largest value."""
        if not self.compared or self.max_value == 0.0:
            return None
        return 2.0 * self.max_bound / self.max_value

    def add(self, expected: Expected, got: Array, row: int) -> None:
        """Compares one block whose first row is `row`."""
        if expected.bound.size == 0:
            return
        with np.errstate(all="ignore"):
            gap = self.wide.distance(got, expected.value)
            ratio = gap / expected.bound
            at = int(ratio.argmax())
            top, bound = float(ratio.flat[at]), float(expected.bound.max())
            if top <= 1.0 and bound < np.inf and expected.beyond is None:
                self.compared += ratio.size
            else:
                gap, ratio = self._look_closely(expected, got, gap, ratio)
                at = int(ratio.argmax())
                top = float(ratio.flat[at])
                bound = float(np.max(expected.bound, where=np.isfinite(ratio), initial=0.0))
            self._extremes(expected, gap, bound)
        if top > self.budget:
            self._note(expected, got, at, top, row)

    def _look_closely(self, expected: Expected, got: Array, gap: Array, ratio: Array) -> tuple[Array, Array]:
        """Counts by kind and failures; gap and ratio are NaN-free afterwards, with 0 where nothing was compared."""
        narrow = self.wide.narrow(expected.value)
        beyond = (
            np.zeros(gap.shape, dtype=bool)
            if expected.beyond is None
            else expected.beyond | np.zeros_like(gap, dtype=bool)
        )
        finite = np.isfinite(narrow)
        special = np.zeros_like(beyond)
        if expected.tainted is not None:
            special = ~finite & expected.tainted & ~beyond
        decided = finite & np.isfinite(expected.bound) & ~beyond
        undecided = ~(decided | special | beyond)
        wide_got = dtypes.widen(got)
        right = np.where(decided, ratio <= 1.0, True)
        overflow = np.isinf(wide_got) & (np.sign(wide_got) == np.sign(narrow))
        overflow &= decided & (expected.magnitude + expected.bound > dtypes.get(self.dtype).largest)
        right |= overflow
        nan = np.isnan(wide_got)
        if self.nan_refused:
            right &= ~(undecided & nan)
        excused = (
            ~np.isfinite(wide_got) if self.any_nonfinite else np.where(np.isnan(narrow), nan, ~np.isfinite(wide_got))
        )
        right &= ~special | excused | self.any_special
        self.compared += int(decided.sum() + special.sum())
        self.undecided += int(undecided.sum())
        self.out_of_domain += int(beyond.sum())
        self.failed += int((~right).sum())
        plain = decided & ~overflow
        ratio = np.where(plain, np.where(np.isnan(ratio), np.inf, ratio), 0.0)
        ratio = np.where(right, np.minimum(ratio, 1.0), np.where(plain, ratio, np.inf))
        gap = np.where(plain, gap, 0.0)
        return gap, ratio

    def _extremes(self, expected: Expected, gap: Array, bound: float) -> None:
        self.max_bound = max(self.max_bound, bound)
        value = float(expected.magnitude.max())
        if not value < np.inf:
            value = float(np.max(expected.magnitude, where=expected.magnitude < np.inf, initial=0.0))
        self.max_value = max(self.max_value, value)
        largest = float(gap.max())
        if largest > 0.0 or np.isnan(largest):
            self.max_abs = max(self.max_abs, np.inf if np.isnan(largest) else largest)
            ulps = float((gap / dtypes.ulp(expected.magnitude, self.dtype)).max())
            self.max_ulp = max(self.max_ulp, np.inf if np.isnan(ulps) else ulps)

    def _note(self, expected: Expected, got: Array, at: int, top: float, row: int) -> None:
        i, j = divmod(at, expected.bound.shape[1])
        self.budget = top
        self.worst = (row + i, j)
        value = float(self.wide.narrow(expected.value)[i, j])
        summed = np.nan if expected.summed is None else float(expected.summed[i, j])
        self.at_worst = (value, float(got[i, j]), float(expected.bound[i, j]), summed)

    def merge(self, other: Tally) -> None:
        """Adds the comparison of other rows of the same output."""
        self.compared += other.compared
        self.undecided += other.undecided
        self.out_of_domain += other.out_of_domain
        self.failed += other.failed
        for name in ("max_abs", "max_ulp", "max_bound", "max_value"):
            setattr(self, name, max(getattr(self, name), getattr(other, name)))
        if other.budget > self.budget:
            self.budget, self.worst, self.at_worst = other.budget, other.worst, other.at_worst
