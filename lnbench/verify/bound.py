"""Judges the outputs of one pass by the rounding-error bound: tiers first, then the named weaker bounds.

`judge` gives one `Judgement` per output; `reference` the correctly rounded expected values; `expected_arrays` values and
bounds as arrays. How `Bounded` gets at the bound is told in `lnbench.numerics`; what counts as equal, in `compare`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lnbench.backend import Facts
from lnbench.case import Case
from lnbench.numerics import dtypes
from lnbench.numerics.rules import Arithmetic, Rules, summation_constant, work_format
from lnbench.operators.schema import Tensor, statistic_dtype
from lnbench.verify import sweep
from lnbench.verify.compare import Tally
from lnbench.verify.expected import Expected, Problem, Rows
from lnbench.verify.verdict import Status
from lnbench.verify.weaker import WEAKER, Weaker

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the bound says of one output. Fields as those of `Verdict` that concern numbers."""

    status: Status
    reason: str = ""
    compared: int = 0
    undecided: int = 0
    out_of_domain: int = 0
    max_abs: float | None = None
    max_ulp: float | None = None
    budget: float | None = None
    tier: int | None = None
    effective_a: int | None = None
    resolution: float | None = None
    worst_index: tuple[int, ...] | None = None
    expected: float | None = None
    got: float | None = None
    bound: float | None = None


def stat_format(case: Case, facts: Facts) -> str:
    """The format of mean and statistic as `facts` declare it."""
    return case.dtype if facts.statistics_dtype == "storage" else statistic_dtype(case.dtype)


def rules_for(case: Case, pass_: str, facts: Facts) -> Rules:
    """What the facts and the pass allow beyond plain rounding, at the best tier."""
    work = work_format(case.dtype)
    stat = stat_format(case, facts)
    given = pass_ == "backward" and facts.statistics != "none"
    sums = {"float64": "float64", "storage": case.dtype}.get(facts.accumulate, work)
    return Rules(
        work=work,
        storage=case.dtype,
        sums="" if sums == work else sums,
        saved=stat if given or facts.statistics_dtype == "storage" else "",
        converted=given,
        early=facts.cast == "early",
        flush=facts.subnormals == "flush",
    )


def _problem(case: Case, pass_: str, inputs: Mapping[str, Array], facts: Facts) -> Problem:
    problem = Problem.of(case, pass_, inputs, facts.statistics, stat_format(case, facts))
    if facts.domain != "full":
        problem.domain = float(facts.domain)
    return problem


def judge(
    case: Case,
    pass_: str,
    inputs: Mapping[str, Array],
    got: Mapping[str, Array],
    facts: Facts,
    *,
    unsystematic: bool,
    require_all: bool = True,
) -> dict[str, Judgement]:
    """Judges the outputs `got` of one pass of a backend with `facts`.

    inputs, got: arrays in logical shape, any strides, by tensor name (a statistic under its kind). Backward needs no
    statistics: what a sound forward pass may have given, rounded to its format, is part of the bound.
    unsystematic: whether rounding errors on these data behave like random signs; the strict tier is then 1, else 0.
    require_all: a required output that is missing is FAILED; otherwise it is left out.
    """
    return _Judge(_problem(case, pass_, inputs, facts), inputs, got, facts, unsystematic).run(require_all)


class _Judge:
    """One judgement: the problem, what came, and the rules to try in turn."""

    def __init__(
        self, problem: Problem, inputs: Mapping[str, Array], got: Mapping[str, Array], facts: Facts, unsystematic: bool
    ):
        self.problem, self.got, self.facts = problem, got, facts
        self.rules = rules_for(problem.case, problem.pass_, facts)
        self.strict = 1 if unsystematic else 0
        self.rows: dict[str, Rows] = {}
        self.found: dict[str, Judgement] = {}
        self.key: Any = None
        if problem.elements <= sweep.SMALL_ELEMENTS:
            c = problem.case
            names = {n: inputs[n] for n in problem.inputs}
            what = (c.op, c.shape, c.axis, c.epsilon, c.dtype, c.affine_dtype, c.gamma, c.beta, c.attributes)
            self.key = (*what, problem.pass_, facts.domain, tuple(problem.outputs), sweep.digest(names))

    def run(self, require_all: bool) -> dict[str, Judgement]:
        for name, tensor in self.problem.outputs.items():
            if name in self.got:
                self._take(name, tensor)
            elif tensor.required and require_all:
                self.found[name] = Judgement(status=Status.FAILED, reason=f"{name} was not returned; it is required")
        pending = self._settle_tiers()
        pending = self._settle_weaker(pending)
        for name, tally in pending.items():
            self.found[name] = self._judgement(name, tally, Status.FAILED, _sentence(name, tally), None, self.strict)
        self._empty()
        return {n: self.found[n] for n in self.problem.outputs if n in self.found}

    def _take(self, name: str, tensor: Tensor) -> None:
        """Checks dtype and shape; right ones are folded for the comparison, size zero is settled."""
        array = np.asarray(self.got[name])
        wrong = ""
        if array.dtype != dtypes.numpy(tensor.dtype):
            wrong = f"{name} has dtype {array.dtype}; expected {tensor.dtype}"
        elif array.size != math.prod(tensor.shape):
            wrong = f"{name} has shape {list(array.shape)} ({array.size} elements); expected {list(tensor.shape)}"
        elif array.shape != tensor.shape and tensor.role != "statistic":
            wrong = f"{name} has shape {list(array.shape)}; expected {list(tensor.shape)}"
        if wrong:
            self.found[name] = Judgement(status=Status.FAILED, reason=wrong)
        elif array.size == 0:
            self.found[name] = Judgement(status=Status.PASSED, reason="size zero, shape and dtype are right")
        elif self.problem.fold.cols == 0 and tensor.role == "statistic":
            self.found[name] = Judgement(
                status=Status.PASSED, reason="not compared: statistics of empty rows are undefined"
            )
        else:
            self.rows[name] = Rows(array.reshape(tensor.shape), self.problem.fold, tensor.along)

    def _tallies(self, rules: Rules, names: Collection[str], *, nan_allowed: bool = False) -> dict[str, Tally]:
        arithmetic = Arithmetic.of(rules, self.problem.fold.rows)
        infinite_dy = self.problem.pass_ == "backward" and self._has_infinite_dy()

        def new(name: str) -> Tally:
            tensor = self.problem.outputs[name]
            refused = self.problem.case.epsilon > 0 and not nan_allowed
            lenient = tensor.role == "statistic" or infinite_dy
            return Tally(arithmetic.wide, tensor.dtype, refused, lenient)

        return sweep.tallies(self.problem, arithmetic, {n: self.rows[n] for n in names}, new, self.key)

    def _has_infinite_dy(self) -> bool:
        rows = self.problem.inputs.get("dy")
        if rows is None:
            return False
        blocks = self.problem.blocks(0, self.problem.fold.rows)
        return any(bool(np.isinf(dtypes.widen(rows[0].block(a, b), np.float32)).any()) for a, b in blocks)

    def _settle_tiers(self) -> dict[str, Tally]:
        pending: dict[str, Tally] = dict.fromkeys(self.rows)  # type: ignore[arg-type]
        for tier in (2, 1, 0):
            if tier < self.strict or not pending:
                break
            if tier != 2 and tier != self.strict:
                pending = {n: t for n, t in pending.items() if n}
            for name, tally in self._tallies(self.rules.replace(tier=tier), pending).items():
                pending[name] = tally
                if tally.passed:
                    self.found[name] = self._judgement(name, pending.pop(name), Status.PASSED, "", tier, tier)
        return pending

    def _settle_weaker(self, pending: dict[str, Tally]) -> dict[str, Tally]:
        base = self.rules.replace(tier=self.strict)
        for weaker in WEAKER:
            rules = weaker.rules(base)
            if not pending or rules is None:
                continue
            likely = [n for n in pending if self._worst_passes(n, pending[n], rules, weaker)]
            for name, tally in self._tallies(rules, likely, nan_allowed=weaker.nan_allowed).items() if likely else ():
                if tally.passed and tally.compared:
                    strict = pending.pop(name)
                    reason = f"{_sentence(name, strict)}; {weaker.sentence}"
                    self.found[name] = self._judgement(name, strict, Status.UNSTABLE, reason, None, self.strict)
        return pending

    def _row(self, rules: Rules, name: str, row: int) -> Expected:
        arithmetic = Arithmetic.of(rules, self.problem.fold.rows)
        return self.problem.evaluate(arithmetic, row, row + 1, [name])[name]

    def _worst_passes(self, name: str, tally: Tally, rules: Rules, weaker: Weaker) -> bool:
        # Spares a sweep over all rows where the worst row alone decides.
        if tally.worst is None or self.problem.outputs[name].along == "column":
            return True
        row = tally.worst[0]
        one = replace(tally, compared=0, undecided=0, out_of_domain=0, failed=0, budget=-1.0)
        one.nan_refused = tally.nan_refused and not weaker.nan_allowed
        one.add(self._row(rules, name, row), self.rows[name].block(row, row + 1), row)
        return one.passed

    def _effective_a(self, name: str, tally: Tally, tier: int) -> int | None:
        """The smallest summation constant with which the worst element would pass; None when there is none."""
        column = self.problem.outputs[name].along == "column"
        if tally.worst is None or (column and self.key is None):
            return None
        n = max(self.problem.fold.cols, self.problem.fold.rows if column else 0)
        value, got, bound = tally.at_worst
        error = tally.budget * bound
        if not (math.isfinite(error) and math.isfinite(bound)):
            return None
        known = summation_constant(n, tier)
        least = self._bound_at(name, tally.worst, self.rules.replace(constant=0))
        if error <= least:
            return 0
        # The bound is all but linear in A (gamma is convex, so a line is on the safe side of too large an A).
        if known == 0 or bound <= least:
            return None
        needed = math.ceil((error - least) / (bound - least) * known)
        return needed if needed <= max(n - 1, known) else None

    def _bound_at(self, name: str, where: tuple[int, int], rules: Rules) -> float:
        if self.problem.outputs[name].along != "column":
            return float(self._row(rules, name, where[0]).bound[0, where[1]])
        found = math.inf

        def see(start: int, values: dict[str, Expected]) -> None:
            nonlocal found
            if name in values:
                found = float(values[name].bound[0, where[1]])

        sweep.visit(self.problem, Arithmetic.of(rules, self.problem.fold.rows), {name}, lambda: see, self.key)
        return found

    def _judgement(
        self, name: str, tally: Tally, status: Status, reason: str, tier: int | None, tried: int
    ) -> Judgement:
        tensor = self.problem.outputs[name]
        expected, got, bound = tally.at_worst
        index = None
        if tally.worst is not None:
            index = self.problem.fold.index(*tally.worst, tensor.along)
            index = index if tensor.along != "row" or len(index) == len(tensor.shape) else tally.worst[:1]
        return Judgement(
            status=status,
            reason=reason,
            compared=tally.compared,
            undecided=tally.undecided,
            out_of_domain=tally.out_of_domain,
            max_abs=tally.max_abs if tally.compared else None,
            max_ulp=tally.max_ulp if tally.compared else None,
            budget=tally.budget if tally.compared else None,
            tier=tier,
            effective_a=self._effective_a(name, tally, tried),
            resolution=tally.resolution,
            worst_index=index,
            expected=expected,
            got=got,
            bound=bound,
        )

    def _empty(self) -> None:
        """A pass of which nothing was decided, and nothing is of size zero, is EMPTY."""
        if any(j.compared for j in self.found.values()) or any(
            math.prod(t.shape) == 0 for t in self.problem.outputs.values()
        ):
            return
        for name, j in self.found.items():
            if j.status is Status.PASSED:
                reason = f"no element of {name} could be decided: every bound is infinite or outside the domain"
                self.found[name] = replace(j, status=Status.EMPTY, reason=reason)


def _sentence(name: str, tally: Tally) -> str:
    return f"{tally.failed} of {tally.compared + tally.undecided} elements of {name} break the bound"


def reference(
    case: Case,
    pass_: str,
    inputs: Mapping[str, Array],
    *,
    kind: str = "rstd",
    stat_dtype: str | None = None,
    only: Collection[str] | None = None,
) -> dict[str, Array]:
    """Expected outputs, rounded once to each output's dtype, in logical shape; `only` names the wanted ones."""
    problem = Problem.of(case, pass_, inputs, kind, stat_dtype)
    arithmetic = Arithmetic.of(
        Rules(work=work_format(case.dtype), storage=case.dtype), problem.fold.rows
    ).without_rounding
    names = [n for n in problem.outputs if only is None or n in only]
    out = {n: np.empty(_folded_shape(problem, n), dtypes.numpy(problem.outputs[n].dtype)) for n in names}

    def see(start: int, values: dict[str, Expected]) -> None:
        for name, e in values.items():
            out[name][start : start + e.bound.shape[0]] = dtypes.round_to(
                arithmetic.wide.narrow(e.value), problem.outputs[name].dtype
            )

    sweep.visit(problem, arithmetic, names, lambda: see)
    return {n: _unfolded(problem, n, a) for n, a in out.items()}


def expected_arrays(
    case: Case, pass_: str, inputs: Mapping[str, Array], facts: Facts, *, unsystematic: bool
) -> dict[str, tuple[Array, Array]]:
    """Expected value and strict bound of every output as float64 arrays in logical shape, for dumps and tests."""
    problem = _problem(case, pass_, inputs, facts)
    rules = rules_for(case, pass_, facts).replace(tier=1 if unsystematic else 0)
    arithmetic = Arithmetic.of(rules, problem.fold.rows)
    out = {n: (np.empty(_folded_shape(problem, n)), np.empty(_folded_shape(problem, n))) for n in problem.outputs}

    def see(start: int, values: dict[str, Expected]) -> None:
        for name, e in values.items():
            out[name][0][start : start + e.bound.shape[0]] = arithmetic.wide.narrow(e.value)
            out[name][1][start : start + e.bound.shape[0]] = e.bound

    sweep.visit(problem, arithmetic, list(out), lambda: see)
    return {n: (_unfolded(problem, n, v), _unfolded(problem, n, b)) for n, (v, b) in out.items()}


def _folded_shape(problem: Problem, name: str) -> tuple[int, int]:
    along, fold = problem.outputs[name].along, problem.fold
    return (1 if along == "column" else fold.rows, 1 if along == "row" else fold.cols)


def _unfolded(problem: Problem, name: str, array: Array) -> Array:
    tensor = problem.outputs[name]
    return problem.fold.from_rows(array) if tensor.along == "element" else array.reshape(tensor.shape)
