"""Effective A: the smallest summation constant with which the worst element of an output would pass.

The bound is all but linear in A (gamma is convex, so the line errs towards a larger A): two points of it are enough.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from lnbench.numerics.rules import Arithmetic, Rules, gamma, summation_constant
from lnbench.verify.compare import Tally
from lnbench.verify.expected import Problem


def constants(problem: Problem, rules: Rules, tallies: Mapping[str, Tally]) -> dict[str, int | None]:
    """Effective A of each output, at its worst element; None where no constant up to n - 1 is enough.

    For a sum over rows it is the constant of that sum alone, those of the row statistics being as in `rules`.
    """
    out: dict[str, int | None] = dict.fromkeys(tallies)
    rows = {n: t for n, t in tallies.items() if _is_finite(t) and problem.outputs[n].along != "column"}
    for name, least in _least_bounds(problem, rules, rows).items():
        bound = rows[name].at_worst[2]
        known = _constant(rules, problem.fold.cols)
        out[name] = _between(_error(rows[name]), least, (bound - least) / known if known else 0.0, problem.fold.cols)
    for name, tally in tallies.items():
        if name not in rows and _is_finite(tally):
            summed, unit = tally.at_worst[3], Arithmetic.of(rules, 1).sum_format.unit
            least = tally.at_worst[2] - gamma(_constant(rules, problem.fold.rows), unit) * summed
            out[name] = _between(_error(tally), least, unit * summed, problem.fold.rows)
    return out


def _is_finite(tally: Tally) -> bool:
    return tally.worst is not None and math.isfinite(tally.budget) and math.isfinite(tally.at_worst[2])


def _error(tally: Tally) -> float:
    return tally.budget * tally.at_worst[2]


def _constant(rules: Rules, n: int) -> int:
    return summation_constant(n, rules.tier)


def _between(error: float, least: float, slope: float, n: int) -> int | None:
    if error <= least:
        return 0
    if slope <= 0.0:
        return None
    needed = math.ceil((error - least) / slope)
    return needed if needed <= max(n - 1, 0) else None


def _least_bounds(problem: Problem, rules: Rules, tallies: Mapping[str, Tally]) -> dict[str, float]:
    """The bound at each worst element with A = 0: one evaluation of the rows they lie in."""
    if not tallies:
        return {}
    where = {n: t.worst for n, t in tallies.items() if t.worst is not None}
    rows = sorted({row for row, _ in where.values()})
    arithmetic = Arithmetic.of(rules.replace(constant=0), problem.fold.rows)
    found = problem.evaluate(arithmetic, np.array(rows), list(where))
    return {n: float(found[n].bound[rows.index(row), col]) for n, (row, col) in where.items()}
