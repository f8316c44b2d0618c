"""Which backends agree with each other: the largest pairwise difference of every output, in units in the last place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from lnbench.case import Case
from lnbench.numerics import dtypes
from lnbench.verify.subject import Arrays


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest difference between two backends in one output: in ULP of its dtype, and the case that shows it."""

    ulp: float
    case: str


@dataclass(slots=True)
class Differences:
    """Collects outputs case by case; `matrix` maps (output, backend, other backend) to the largest difference.

    Elements where both are NaN or the same infinity agree; where one alone is not finite the difference is infinite.
    """

    matrix: dict[tuple[str, str, str], Difference] = field(default_factory=dict)

    def add(self, case: Case, outputs: Mapping[str, Mapping[str, Arrays]]) -> None:
        """outputs: backend -> pass -> arrays by output name. Statistics of empty rows are undefined: not compared."""
        if case.elements == 0:
            return
        for a, b in combinations(outputs, 2):
            for pass_ in outputs[a].keys() & outputs[b].keys():
                for name in outputs[a][pass_].keys() & outputs[b][pass_].keys():
                    self._add_one(case, name, a, b, outputs[a][pass_][name], outputs[b][pass_][name])

    def _add_one(self, case: Case, name: str, a: str, b: str, x: np.ndarray, y: np.ndarray) -> None:
        if x.size != y.size or x.dtype != y.dtype or x.size == 0:
            return
        self._keep((name, a, b), Difference(largest_ulp(x.reshape(-1), y.reshape(-1)), case.label))

    def merge(self, other: Differences) -> None:
        """Takes over what `other` collected."""
        for key, found in other.matrix.items():
            self._keep(key, found)

    def _keep(self, key: tuple[str, str, str], found: Difference) -> None:
        kept = self.matrix.get(key)
        if kept is None or found.ulp > kept.ulp:
            self.matrix[key] = found


def largest_ulp(x: np.ndarray, y: np.ndarray) -> float:
    """Largest |x - y| in ULP of the larger magnitude, for equal shapes and dtypes."""
    a, b = x.astype(np.float64), y.astype(np.float64)
    with np.errstate(all="ignore"):
        gap = np.abs(a - b)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        unit = dtypes.ulp(np.maximum(np.abs(a), np.abs(b)), str(x.dtype))
        ulps = np.where(same, 0.0, np.where(np.isfinite(gap), gap / unit, np.inf))
    return float(ulps.max())
