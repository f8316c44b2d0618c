"""Judges the outputs of one pass by the rounding-error bound: tiers first, then the named weaker bounds.

`judge` gives one `Judgement` per output. How `Bounded` gets at the bound is told in `lnbench.numerics`; what counts as
equal, in `compare`; which facts allow what, in `arrays`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from lnbench.backend import Facts
from lnbench.case import Case
from lnbench.numerics import dtypes
from lnbench.numerics.rules import TIERS, Arithmetic, Rules
from lnbench.operators.schema import Tensor
from lnbench.verify import effective, sweep
from lnbench.verify.arrays import expected_arrays, problem_of, reference, rules_for
from lnbench.verify.compare import Tally
from lnbench.verify.expected import Problem, Rows
from lnbench.verify.verdict import Judgement, Status
from lnbench.verify.weaker import WEAKER, Weaker

__all__ = ["Judgement", "expected_arrays", "judge", "reference"]

Array = np.ndarray[Any, np.dtype[Any]]


# Columns times unit roundoff times |mean|/std from which the errors of sums in order have a system. At 1 the spread is the last
# place of the whole sum; of 4000 random rows below that none left tier 1 (at most 0.41 of its bound). A quarter leaves room.
DRIFT = 0.25


def judge(
    case: Case,
    pass_: str,
    inputs: Mapping[str, Array],
    got: Mapping[str, Array],
    facts: Facts,
    *,
    unsystematic: bool,
    require_all: bool = True,
    grade: bool = False,
    forward: Mapping[str, Judgement] | None = None,
) -> dict[str, Judgement]:
    """Judges the outputs `got` of one pass of a backend with `facts`.

    inputs, got: arrays in logical shape, any strides, by tensor name (a statistic under its kind). Backward needs no
    statistics: what a sound forward pass may have given, rounded to its format, is part of the bound.
    unsystematic: whether rounding errors on these data behave like random signs; the strict tier is then 1, else 0.
    require_all: a required output that is missing is FAILED; otherwise it is left out.
    grade: also finds `effective_a`, at the price of another evaluation.
    forward: what was said of the same backend's forward pass of this case. Where that was UNSTABLE, gradients of which a
        weaker bound leaves nothing decided are UNSTABLE too; where its sums drifted (see `_try_any_order`), theirs may.
    """
    judging = _Judging(problem_of(case, pass_, inputs, facts), got, rules_for(case, pass_, facts), int(unsystematic))
    if judging.problem.elements <= sweep.SMALL_ELEMENTS:
        judging.key = sweep.key_of(judging.problem, inputs)
    judging.grade, judging.forward = grade, forward or {}
    return judging.run(require_all)


class _Judging:
    """One judgement: the problem, what came, and the rules to try in turn."""

    def __init__(self, problem: Problem, got: Mapping[str, Array], rules: Rules, strict: int):
        self.problem, self.got, self.rules, self.strict = problem, got, rules, strict
        self.key: Any = None
        self.grade = False
        self.forward: Mapping[str, Judgement] = {}
        self.rows: dict[str, Rows] = {}
        self.found: dict[str, Judgement] = {}

    def run(self, require_all: bool) -> dict[str, Judgement]:
        for name, tensor in self.problem.outputs.items():
            if name in self.got:
                self._take(name, tensor)
            elif tensor.required and require_all:
                self.found[name] = Judgement(status=Status.FAILED, reason=f"{name} was not returned; it is required")
        failing = self._try_weaker(self._try_any_order(self._try_tiers()))
        if failing:
            strict = self.rules.replace(tier=self.strict)
            self._settle(Status.FAILED, failing, strict, {n: _sentence(n, t) for n, t in failing.items()})
        self._look_for_empty()
        return {n: self.found[n] for n in self.problem.outputs if n in self.found}

    def _take(self, name: str, tensor: Tensor) -> None:
        """Checks dtype and shape; right ones are folded for the comparison, size zero is settled."""
        array = np.asarray(self.got[name])
        wrong = ""
        if array.dtype != dtypes.numpy(tensor.dtype):
            wrong = f"{name} has dtype {array.dtype}; expected {tensor.dtype}"
        elif array.size != math.prod(tensor.shape):
            wrong = f"{name} has shape {list(array.shape)}, {array.size} elements; expected {list(tensor.shape)}"
        elif array.shape != tensor.shape and tensor.role != "statistic":
            wrong = f"{name} has shape {list(array.shape)}; expected {list(tensor.shape)}"
        if wrong:
            self.found[name] = Judgement(status=Status.FAILED, reason=wrong)
        elif array.size == 0:
            self.found[name] = Judgement(status=Status.PASSED, reason="size zero; shape and dtype are right")
        elif self.problem.fold.cols == 0 and tensor.role == "statistic":
            reason = "not compared: the statistics of empty rows are not defined"
            self.found[name] = Judgement(status=Status.PASSED, reason=reason)
        else:
            self.rows[name] = Rows(array.reshape(tensor.shape), self.problem.fold, tensor.along)

    def _new_tally(self, arithmetic: Arithmetic, name: str, nan_allowed: bool) -> Tally:
        tensor, epsilon = self.problem.outputs[name], self.problem.case.epsilon
        # Orders of evaluation differ in whether an infinite dy becomes infinite or NaN.
        lenient = tensor.role == "statistic" or (self.problem.pass_ == "backward" and self.problem.has_infinite("dy"))
        # The variance of one element is 0 by definition to some (Welford, Caffe2), inf - inf to others.
        free = tensor.role == "statistic" and name != "mean" and self.problem.fold.cols == 1
        return Tally(arithmetic.wide, tensor.dtype, epsilon > 0 and not nan_allowed, lenient, free)

    def _tallies(self, rules: Rules, names: Collection[str], *, nan_allowed: bool = False) -> dict[str, Tally]:
        arithmetic = Arithmetic.of(rules, self.problem.fold.rows)
        got = {n: self.rows[n] for n in names}
        return sweep.tallies(
            self.problem, arithmetic, got, lambda n: self._new_tally(arithmetic, n, nan_allowed), self.key
        )

    def _try_tiers(self) -> dict[str, Tally]:
        """Settles what keeps a tier, best first; returns the rest with their comparison under the strict tier."""
        failing: dict[str, Tally] = {}
        names = list(self.rows)
        for tier in TIERS[: TIERS.index(self.strict) + 1]:
            if not names:
                break
            rules = self.rules.replace(tier=tier)
            if tier not in (TIERS[0], self.strict) and not any(self._may_pass(n, failing[n], rules) for n in names):
                continue
            failing |= self._tallies(rules, names)
            passed = {n: failing.pop(n) for n in names if failing[n].passed}
            self._settle(Status.PASSED, passed, rules, {})
            names = [n for n in names if n not in passed]
        return failing

    def _try_any_order(self, failing: dict[str, Tally]) -> dict[str, Tally]:
        """Settles at tier 0 what summing in order explains on rows so nearly constant that its errors have a system.

        Adding nearly equal numbers one by one rounds the same way again and again while the spread is below the last
        place of the running sum. A program whose mean shows this (or that shows no mean) may sum so; one whose mean
        keeps the strict tier does not, and is held to it.
        """
        mean = self.found.get("mean", self.forward.get("mean", self.forward.get("y")))
        drifts = "mean" in failing or (self.problem.pass_ == "forward" if mean is None else mean.tier == 0)
        if not failing or self.strict == 0 or not drifts or self.problem.drift() < DRIFT:
            return failing
        rules = self.rules.replace(tier=0)
        passed = {n: t for n, t in self._tallies(rules, list(failing)).items() if t.passed}
        self._settle(Status.PASSED, passed, rules, {})
        return {n: t for n, t in failing.items() if n not in passed}

    def _try_weaker(self, failing: dict[str, Tally]) -> dict[str, Tally]:
        """Settles what keeps a named weaker bound; returns the rest. Numbers stay those under the strict bound."""
        weak_forward = any(j.status is Status.UNSTABLE for j in self.forward.values())
        # Blocks first: the tighter bound decides more. Any order only where a sound program may sum so, too.
        in_order = bool(failing) and (self.strict == 0 or self.problem.drift() >= DRIFT)
        for weaker, tier in product(WEAKER, (1, 0) if in_order else (1,)):
            rules = weaker.rules(self.rules.replace(tier=tier))
            if rules is None or (weaker.in_statistics and self._statistics_are_right()):
                continue
            # A weaker bound that decides nothing excuses what was weak before, and statistics that cancel altogether.
            vague = weak_forward or (self.problem.pass_ == "forward" and weaker.in_statistics)
            self._settle_weaker(failing, weaker, rules, vague)
        return failing

    def _settle_weaker(self, failing: dict[str, Tally], weaker: Weaker, rules: Rules, vague: bool) -> None:
        """Takes out of `failing` what keeps the weaker bound `rules`; `vague`: even where that decides nothing."""
        names = [n for n, t in failing.items() if self._may_pass(n, t, rules, weaker.nan_allowed)]
        if not names:
            return
        kept = self._tallies(rules, names, nan_allowed=weaker.nan_allowed)
        weak = {n: failing.pop(n) for n, t in kept.items() if t.passed and (t.compared or vague)}
        reasons = {n: f"{_sentence(n, t)}; {weaker.sentence}" for n, t in weak.items()}
        status = Status.UNSTABLE if weaker.excuses else Status.FAILED
        self._settle(status, weak, self.rules.replace(tier=self.strict), reasons)

    def _statistics_are_right(self) -> bool:
        """Whether the statistic beside the mean was returned, decided and found right."""
        found = [j for n, j in self.found.items() if self.problem.outputs[n].role == "statistic" and n != "mean"]
        return any(j.status is Status.PASSED and j.compared and not j.undecided for j in found)

    def _may_pass(self, name: str, tally: Tally, rules: Rules, nan_allowed: bool = False) -> bool:
        # Spares a sweep over all rows where the worst row alone decides.
        if tally.worst is None or self.problem.outputs[name].along == "column":
            return True
        arithmetic = Arithmetic.of(rules, self.problem.fold.rows)
        row = slice(tally.worst[0], tally.worst[0] + 1)
        one = self._new_tally(arithmetic, name, nan_allowed)
        one.add(self.problem.evaluate(arithmetic, row, [name])[name], self.rows[name].block(row), row.start)
        return one.passed

    def _settle(self, status: Status, tallies: Mapping[str, Tally], rules: Rules, reasons: Mapping[str, str]) -> None:
        constants = effective.constants(self.problem, rules, tallies) if self.grade else {}
        for name, tally in tallies.items():
            expected, got, bound, _ = tally.at_worst
            index = None if tally.worst is None else self.problem.index(name, *tally.worst)
            self.found[name] = Judgement(
                status=status,
                reason=reasons.get(name, ""),
                compared=tally.compared,
                undecided=tally.undecided,
                out_of_domain=tally.out_of_domain,
                max_abs=tally.max_abs if tally.compared else None,
                max_ulp=tally.max_ulp if tally.compared else None,
                budget=tally.budget if tally.compared else None,
                tier=rules.tier if status is Status.PASSED else None,
                effective_a=constants.get(name),
                resolution=tally.resolution,
                worst_index=index,
                expected=expected,
                got=got,
                bound=bound,
            )

    def _look_for_empty(self) -> None:
        """A pass of which nothing was decided, and nothing is of size zero, is EMPTY."""
        sizes = [math.prod(t.shape) for t in self.problem.outputs.values()]
        if 0 in sizes or any(j.compared for j in self.found.values()):
            return
        for name, j in self.found.items():
            if j.status is Status.PASSED:
                reason = f"no element of {name} could be decided: every bound is infinite or out of the domain"
                self.found[name] = replace(j, status=Status.EMPTY, reason=reason)


def _sentence(name: str, tally: Tally) -> str:
    return f"{tally.failed} of {tally.compared + tally.undecided} elements of {name} break the bound"
