"""`Rules`: what a program under judgement may do; `Arithmetic`: the same as numbers, carried by every `Bounded`.

The text of an operator never looks at rules: every operation on `Bounded` consults the arithmetic of its operands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

from lnbench.numerics import dtypes, wide

TIERS = (2, 1, 0)


def summation_constant(n: int, tier: int) -> int:
    """A such that |fl(sum) - sum| <= gamma(A) sum|.| for n terms: 0 any order, 1 blocks of sqrt(n), 2 a tree."""
    if n < 2:
        return 0
    if tier == 0:
        return n - 1
    if tier == 1:
        return min(n - 1, 2 * math.isqrt(n - 1) + 2 + 4)
    return min(n - 1, (n - 1).bit_length() + 4)


def gamma(k: float, unit: float) -> float:
    """k u / (1 - k u), infinite when k u >= 1 (Higham 2002, lemma 3.1)."""
    return k * unit / (1.0 - k * unit) if k * unit < 1.0 else math.inf


@dataclass(frozen=True, slots=True)
class Rules:
    """The rounding errors that a program is allowed.

    work: format of its arithmetic. storage: format of x, y and their gradients.
    tier: summation constants, see `summation_constant`; `constant` replaces them by one number.
    sums: format of sums, by default `work`.
    saved: format to which mean and the statistic are rounded before they are used.
    converted: the statistic was given in some form and may have been converted (two more roundings).
    one_pass: the variance is mean(x*x) - mean(x)**2. early: casts to `storage` before the affine step.
    flush: subnormal numbers count as zero. narrow: nothing is promised beyond the range of `storage`.
    """

    work: str = "float32"
    storage: str = "float32"
    tier: int = 2
    constant: int | None = None
    sums: str = ""
    saved: str = ""
    converted: bool = False
    one_pass: bool = False
    early: bool = False
    flush: bool = False
    narrow: bool = False

    def replace(self, **changes: object) -> Rules:
        """A copy with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


def work_format(storage: str) -> str:
    """The format in which a sound program computes: float32 for the half types, otherwise that of the data."""
    return "float64" if storage == "float64" else "float32"


@dataclass(frozen=True)
class Arithmetic:
    """`Rules` as numbers, for one problem of `rows` rows in all (a block of them may be at hand).

    exact: without any rounding of its own; inherited errors still propagate.
    """

    rules: Rules
    rows: int
    exact: bool = False
    wide: wide.Wide = field(default=wide.float64)

    @classmethod
    def of(cls, rules: Rules, rows: int) -> Arithmetic:
        """The arithmetic of `rules`, with expected values in the arithmetic that is wide enough for it."""
        return cls(rules, rows, wide=wide.choose(rules.work))

    @cached_property
    def without_rounding(self) -> Arithmetic:
        """The same with no rounding errors of its own."""
        return self if self.exact else replace(self, exact=True)

    @cached_property
    def unit(self) -> float:
        """Unit roundoff of one operation."""
        return 0.0 if self.exact else dtypes.get(self.rules.work).unit

    @cached_property
    def tiny(self) -> float:
        """Largest error of one operation by underflow."""
        if self.exact:
            return 0.0
        form = dtypes.get(self.rules.storage if self.rules.narrow else self.rules.work)
        return form.normal if self.rules.flush else form.smallest

    @cached_property
    def limit(self) -> float:
        """Magnitude beyond which an intermediate may overflow."""
        return dtypes.get(self.rules.storage if self.rules.narrow else self.rules.work).largest

    @cached_property
    def sum_format(self) -> dtypes.Format:
        """The format of sums."""
        return dtypes.get(self.rules.sums or self.rules.work)

    def gamma(self, n: int, more: int = 0) -> float:
        """Relative error of a sum of n terms and `more` roundings, against the sum of magnitudes."""
        if self.exact:
            return 0.0
        constant = self.rules.constant
        a = summation_constant(n, self.rules.tier) if constant is None else min(max(n - 1, 0), constant)
        return gamma(a + more, self.sum_format.unit)

    @cached_property
    def sum_unit(self) -> float:
        """One more rounding of a sum that is kept in another format than the arithmetic's."""
        return self.unit if self.sum_format.name != self.rules.work else 0.0

    @cached_property
    def cast_unit(self) -> float:
        """Unit roundoff of an early cast to storage; 0 where none happens."""
        if self.exact or not self.rules.early or self.rules.storage == self.rules.work:
            return 0.0
        return dtypes.get(self.rules.storage).unit
