"""Effective A: the smallest summation constant with which the worst element of an output would pass.

The bound grows with A, but through roots and quotients, so a line through two points only guesses; the guess is then made
exact by evaluating the element's row again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from lnbench.numerics.rules import Arithmetic, Rules, gamma, summation_constant
from lnbench.verify.compare import Tally
from lnbench.verify.expected import SECOND_ORDER, Problem


def constants(problem: Problem, rules: Rules, tallies: Mapping[str, Tally]) -> dict[str, int | None]:
    """Effective A of each output, at its worst element; None where no constant up to n - 1 is enough.

    For a sum over rows it is the constant of that sum alone, those of the row statistics being as in `rules`.
    """
    out: dict[str, int | None] = dict.fromkeys(tallies)
    rows = {n: t for n, t in tallies.items() if _is_finite(t) and problem.outputs[n].along != "column"}
    for name, least in _bounds(problem, rules, rows, 0).items():
        guess = _guess(rows[name], least, summation_constant(problem.fold.cols, rules.tier))

        def passes(a: int, name: str = name, least: float = least) -> bool:
            tally = rows[name]
            return _error(tally) <= (least if a == 0 else _bounds(problem, rules, {name: tally}, a)[name])

        out[name] = _smallest(passes, guess, problem.fold.cols)
    for name, tally in tallies.items():
        if name not in rows and _is_finite(tally):
            out[name] = _of_sum(problem, rules, tally)
    return out


def _is_finite(tally: Tally) -> bool:
    return tally.worst is not None and math.isfinite(tally.budget) and math.isfinite(tally.at_worst[2])


def _error(tally: Tally) -> float:
    return tally.budget * tally.at_worst[2]


def _guess(tally: Tally, least: float, known: int) -> int:
    """By the line through the bounds at 0 and at the constant `known` of the comparison."""
    slope = (tally.at_worst[2] - least) / known if known else 0.0
    return max(0, math.ceil(min((_error(tally) - least) / slope, 2.0**62))) if slope > 0.0 else 0


def _of_sum(problem: Problem, rules: Rules, tally: Tally) -> int | None:
    """For a sum over rows, whose bound is that of its terms and gamma(A) times their magnitudes."""
    _, _, bound, summed = tally.at_worst
    arithmetic, n = Arithmetic.of(rules, 1), problem.fold.rows
    unit, margin = arithmetic.sum_format.unit, 1.0 + SECOND_ORDER + arithmetic.wide.slack
    known = gamma(summation_constant(n, rules.tier), unit)

    def passes(a: int) -> bool:
        return _error(tally) <= bound + (gamma(a, unit) - known) * summed * margin

    return _smallest(passes, 0, n)


def _smallest(passes: Callable[[int], bool], guess: int, n: int) -> int | None:
    """The smallest A below n that passes, searched in growing steps around `guess`, then by halves."""
    if passes(0):
        return 0
    fails, good, step = 0, max(min(guess, n - 1), 1), 1
    if good > n - 1:
        return None
    if passes(good):
        while good - step > fails and passes(good - step):
            good, step = good - step, 2 * step
        fails = max(fails, good - step)
    else:
        fails = good
        while not passes(good := min(fails + step, n - 1)):
            if good == n - 1:
                return None
            fails, step = good, 2 * step
    while good - fails > 1:
        middle = (good + fails) // 2
        good, fails = (middle, fails) if passes(middle) else (good, middle)
    return good


def _bounds(problem: Problem, rules: Rules, tallies: Mapping[str, Tally], constant: int) -> dict[str, float]:
    """The bound at each worst element with A = `constant`: one evaluation of the rows they lie in."""
    if not tallies:
        return {}
    where = {n: t.worst for n, t in tallies.items() if t.worst is not None}
    rows = sorted({row for row, _ in where.values()})
    arithmetic = Arithmetic.of(rules.replace(constant=constant), problem.fold.rows)
    found = problem.evaluate(arithmetic, np.array(rows), list(where))
    return {n: float(found[n].bound[rows.index(row), col]) for n, (row, col) in where.items()}
