"""Expected values as whole arrays: rounded once (`reference`), or float64 with bounds (`expected_arrays`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from lnbench.backend import Facts
from lnbench.case import Case
from lnbench.numerics import dtypes
from lnbench.numerics.rules import Arithmetic, Rules, work_format
from lnbench.operators.schema import statistic_dtype
from lnbench.verify import sweep
from lnbench.verify.expected import Expected, Problem

Array = np.ndarray[Any, np.dtype[Any]]


def stat_format(case: Case, facts: Facts) -> str:
    """The format of mean and statistic as `facts` declare it."""
    return case.dtype if facts.statistics_dtype == "storage" else statistic_dtype(case.dtype)


def problem_of(case: Case, pass_: str, inputs: Mapping[str, Array], facts: Facts) -> Problem:
    """The problem of one pass for a backend with `facts`."""
    problem = Problem.of(case, pass_, inputs, facts.statistics, stat_format(case, facts))
    if facts.domain != "full":
        problem.domain = float(facts.domain)
    return problem


def rules_for(case: Case, pass_: str, facts: Facts) -> Rules:
    """What the facts and the pass allow beyond plain rounding, at the best tier.

    Backward is given statistics, unless the backend keeps none: those of a sound forward pass, rounded to their format.
    """
    work = work_format(case.dtype)
    stat = stat_format(case, facts)
    is_given = pass_ == "backward" and facts.statistics != "none"
    sums = {"float64": "float64", "storage": case.dtype}.get(facts.accumulate, work)
    return Rules(
        work=work,
        storage=case.dtype,
        sums="" if sums == work else sums,
        saved=stat if is_given or facts.statistics_dtype == "storage" else "",
        converted=is_given,
        early=facts.cast == "early",
        flush=facts.subnormals == "flush",
    )


def reference(
    case: Case,
    pass_: str,
    inputs: Mapping[str, Array],
    *,
    kind: str = "rstd",
    stat_dtype: str | None = None,
    only: Collection[str] | None = None,
) -> dict[str, Array]:
    """Expected outputs, rounded once to each output's dtype, in logical shape; `only` names the wanted ones.

    inputs: arrays in logical shape, any strides, by tensor name; backward needs no statistics.
    """
    problem = Problem.of(case, pass_, inputs, kind, stat_dtype)
    rules = Rules(work=work_format(case.dtype), storage=case.dtype)
    arithmetic = Arithmetic.of(rules, problem.fold.rows).without_rounding
    names = [n for n in problem.outputs if only is None or n in only]
    out = {n: np.empty(_folded_shape(problem, n), dtypes.numpy(problem.outputs[n].dtype)) for n in names}

    def see(start: int, values: dict[str, Expected]) -> None:
        for name, e in values.items():
            rounded = dtypes.round_to(arithmetic.wide.narrow(e.value), problem.outputs[name].dtype)
            out[name][start : start + e.bound.shape[0]] = rounded

    sweep.visit(problem, arithmetic, names, lambda: see)
    return {n: _unfolded(problem, n, a) for n, a in out.items()}


def expected_arrays(
    case: Case, pass_: str, inputs: Mapping[str, Array], facts: Facts, *, unsystematic: bool, tier: int | None = None
) -> dict[str, tuple[Array, Array]]:
    """Expected value and bound of every output, float64 in logical shape; the strict bound unless `tier` is given."""
    problem = problem_of(case, pass_, inputs, facts)
    tier = int(unsystematic) if tier is None else tier
    arithmetic = Arithmetic.of(rules_for(case, pass_, facts).replace(tier=tier), problem.fold.rows)
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
