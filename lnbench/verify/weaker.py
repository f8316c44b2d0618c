"""The named weaker bounds: a program that breaks the strict bound but keeps one of these is told why.

It is UNSTABLE where the weakness is that of a known method, FAILED where nobody would choose it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lnbench.numerics import dtypes
from lnbench.numerics.rules import Rules


@dataclass(frozen=True, slots=True)
class Weaker:
    """One weaker bound.

    rules: from the strict rules to the weaker ones, or None where there is no difference (statistics of a float32
    program are in float32 anyway). nan_allowed: where the weaker bound is infinite even NaN is accepted.
    in_statistics: the weakness shows in the statistics too, so it excuses no output beside statistics that are right.
    excuses: whether the verdict is UNSTABLE; otherwise the sentence only says what is wrong.
    """

    name: str
    sentence: str
    rules: Callable[[Rules], Rules | None]
    nan_allowed: bool = False
    in_statistics: bool = False
    excuses: bool = True


def _is_short(rules: Rules) -> bool:
    return dtypes.get(rules.storage).precision < dtypes.get(rules.work).precision


WEAKER = (
    Weaker(
        "one-pass variance",
        "they keep the bound of a one-pass variance, mean(x*x) - mean(x)**2, which cancels where |mean| is large "
        "beside the standard deviation; sum (x - mean)**2 instead",
        lambda rules: None if rules.one_pass else rules.replace(one_pass=True),
        nan_allowed=True,
        in_statistics=True,
    ),
    Weaker(
        "statistics in the storage type",
        "they keep the bound for mean and statistic rounded to the storage type before use; keep both in float32",
        lambda rules: rules.replace(saved=rules.storage) if _is_short(rules) and rules.saved != rules.storage else None,
    ),
    Weaker(
        "sums in the storage type",
        "they keep the bound of sums accumulated in the storage type; accumulate in float32",
        lambda rules: rules.replace(sums=rules.storage) if _is_short(rules) and rules.sums != rules.storage else None,
    ),
    Weaker(
        "range",
        "they keep the bound where every intermediate stays within the range of the storage type; compute in float32",
        lambda rules: rules.replace(narrow=True) if _is_short(rules) and not rules.narrow else None,
    ),
    Weaker(
        "arithmetic of float32",
        "they keep the bound of a program that computes in float32 and converts its results to float64; compute in float64",
        lambda rules: rules.replace(work="float32") if rules.work == "float64" else None,
        excuses=False,
    ),
)
