"""A correct layer normalization as a chain of named steps; a mutant or another correct kind replaces some of them.

Owns how a call becomes rows and columns in working precision and back. Leaves orders of summation to `sums`,
the correct kinds to `correct` and everything wrong to `mutants`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any

import ml_dtypes
import numpy as np

from lnbench.backend import FunctionBackend
from lnbench.case import Case
from lnbench.operators.schema import Fold, resolve_axes, statistic_dtype
from lnbench.selftest import sums

Array = np.ndarray[Any, np.dtype[np.floating[Any]]]
Results = dict[str, Any]
Function = Callable[..., Results]


def dtype_of(name: str) -> np.dtype[Any]:
    """The NumPy type of a case's dtype."""
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


@dataclass(frozen=True, slots=True)
class Job:
    """One call: the folded problem, its types, and the steps that solve it.

    work: type of the arithmetic (float64 for float64, else float32). storage, affine: types of x and of gamma.
    threads: what the caller asks for. case: the whole case, for the bugs that depend on more.
    """

    steps: Steps
    fold: Fold
    epsilon: float
    work: np.dtype[Any]
    storage: np.dtype[Any]
    affine: np.dtype[Any]
    threads: int
    case: Case

    @property
    def rows(self) -> int:
        return self.fold.rows

    @property
    def cols(self) -> int:
        return self.fold.cols

    def number(self, value: float) -> np.floating[Any]:
        """A scalar in the type of the arithmetic."""
        scalar: np.floating[Any] = self.work.type(value)
        return scalar

    def total(self, a: Array) -> Array:
        """Sum of every row: (rows, cols) -> (rows, 1)."""
        return self.steps.total(self, a)

    def average(self, a: Array) -> Array:
        return self.total(a) / self.number(a.shape[1])

    def moments(self, x: Array) -> tuple[Array, Array]:
        """Mean and variance of every row."""
        mean = self.steps.mean(self, x)
        return mean, self.steps.variance(self, x, mean)


def read(job: Job, array: Array, along: str, name: str) -> Array:
    """Any input as (rows, cols), (rows, 1) or (1, cols) in working precision."""
    return job.fold.to_rows(array, along).astype(job.work)


def total(job: Job, a: Array) -> Array:
    return sums.lanes(a)


def mean(job: Job, x: Array) -> Array:
    return job.average(x)


def variance(job: Job, x: Array, mean: Array) -> Array:
    d = x - mean
    return job.average(d * d)


def inverse_root(a: Array) -> Array:
    root: Array = 1 / np.sqrt(a)
    return root


def rstd(job: Job, variance: Array) -> Array:
    return inverse_root(variance + job.number(job.epsilon))


def rounded(job: Job, a: Array) -> Array:
    """Through the type of x and back."""
    short: Array = a.astype(job.storage)
    return short.astype(job.work)


def output(job: Job, x: Array, mean: Array, rstd: Array, gamma: Array | None, beta: Array | None) -> Array:
    return affine((x - mean) * rstd, gamma, beta)


def affine(xhat: Array, gamma: Array | None, beta: Array | None) -> Array:
    """xhat * gamma + beta, where absent means 1 and 0."""
    y = xhat if gamma is None else xhat * gamma
    return y if beta is None else y + beta


def scaled(dy: Array, gamma: Array | None) -> Array:
    """The gradient at xhat."""
    return dy if gamma is None else dy * gamma


def dx(job: Job, dy: Array, x: Array, mean: Array, rstd: Array, gamma: Array | None) -> Array:
    xhat, g = (x - mean) * rstd, scaled(dy, gamma)
    return rstd * (g - job.average(g) - xhat * job.average(g * xhat))


def dgamma(job: Job, dy: Array, x: Array, mean: Array, rstd: Array) -> Array:
    return job.steps.columns(job, dy * ((x - mean) * rstd))


def dbeta(job: Job, dy: Array) -> Array:
    return job.steps.columns(job, dy)


def columns(job: Job, a: Array) -> Array:
    return sums.blocks(a.T).T


def store(job: Job, values: Array, dtype: np.dtype[Any], name: str) -> Array:
    """Results in the type they are kept in: one rounding."""
    return values.astype(dtype)


def statistic(job: Job, variance: Array, rstd: Array, kind: str) -> Array:
    """What is returned beside the mean."""
    if kind == "var":
        return variance
    return 1 / rstd if kind == "std" else rstd


def rstd_of(job: Job, stat: Array, kind: str) -> Array:
    """The reciprocal deviation from the statistic that backward is given."""
    if kind == "var":
        return job.steps.rstd(job, stat)
    return 1 / stat if kind == "std" else stat


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """The chain. All arrays are 2-D; statistics are (rows, 1), gamma and beta (1, cols) or None.

    resolve: (shape, axis) -> reduced axes.
    """

    resolve: Callable[[tuple[int, ...], Any], tuple[int, ...]] = resolve_axes
    read: Callable[[Job, Array, str, str], Array] = read
    total: Callable[[Job, Array], Array] = total
    mean: Callable[[Job, Array], Array] = mean
    variance: Callable[[Job, Array, Array], Array] = variance
    rstd: Callable[[Job, Array], Array] = rstd
    statistic: Callable[[Job, Array, Array, str], Array] = statistic
    output: Callable[[Job, Array, Array, Array, Array | None, Array | None], Array] = output
    rstd_of: Callable[[Job, Array, str], Array] = rstd_of
    dx: Callable[[Job, Array, Array, Array, Array, Array | None], Array] = dx
    dgamma: Callable[[Job, Array, Array, Array, Array], Array] = dgamma
    dbeta: Callable[[Job, Array], Array] = dbeta
    columns: Callable[[Job, Array], Array] = columns
    store: Callable[[Job, Array, np.dtype[Any], str], Array] = store


STEPS = Steps()


def job_for(steps: Steps, shape: tuple[int, ...], axis: Any, epsilon: float, threads: int, case: Case) -> Job:
    """The call as the functions of a plug-in see it: everything from their arguments, types from the case."""
    fold = Fold(tuple(shape), steps.resolve(tuple(shape), axis))
    work = np.dtype(np.float64 if case.dtype == "float64" else np.float32)
    return Job(steps, fold, epsilon, work, dtype_of(case.dtype), dtype_of(case.affine_dtype), threads, case)


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """The plug-in functions over one chain of steps and one set of facts."""

    steps: Steps = STEPS
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.facts.get("statistics", "rstd")

    def stat_dtype(self, case: Case) -> np.dtype[Any]:
        short = self.facts.get("statistics_dtype") == "storage"
        return dtype_of(case.dtype if short else statistic_dtype(case.dtype))

    def forward(self, x: Array, gamma: Array | None, beta: Array | None, **call: Any) -> Results:
        job, steps = self._job(x, call), self.steps
        if job.rows == 0 or job.cols == 0:
            return {"y": np.empty(x.shape, job.storage)} | self._empty_statistics(job)
        values = steps.read(job, x, "element", "x")
        mean, variance = job.moments(values)
        rstd = steps.rstd(job, variance)
        scale, shift = self._column(job, gamma, "gamma"), self._column(job, beta, "beta")
        y = steps.output(job, values, mean, rstd, scale, shift)
        found: Results = {"y": job.fold.from_rows(steps.store(job, y, job.storage, "y"))}
        if self.kind != "none":
            dtype, shape = self.stat_dtype(job.case), job.fold.statistic_shape
            found["mean"] = steps.store(job, mean, dtype, "mean").reshape(shape)
            stat = steps.statistic(job, variance, rstd, self.kind)
            found[self.kind] = steps.store(job, stat, dtype, self.kind).reshape(shape)
        return found

    def backward(
        self, dy: Array, x: Array, gamma: Array | None, mean: Array | None, stat: Array | None, **call: Any
    ) -> Results:
        job, steps = self._job(x, call), self.steps
        shape = job.fold.reduced_shape
        if job.rows == 0 or job.cols == 0:
            zeros = np.zeros(shape, job.affine)
            return {"dx": np.empty(x.shape, job.storage), "dgamma": zeros, "dbeta": zeros.copy()}
        values, cotangent = steps.read(job, x, "element", "x"), steps.read(job, dy, "element", "dy")
        if mean is None or stat is None:
            m, variance = job.moments(values)
            r = steps.rstd(job, variance)
        else:
            m = steps.read(job, mean, "row", "mean")
            r = steps.rstd_of(job, steps.read(job, stat, "row", self.kind), self.kind)
        scale = self._column(job, gamma, "gamma")
        results = {
            "dx": job.fold.from_rows(steps.store(job, steps.dx(job, cotangent, values, m, r, scale), job.storage, "dx"))
        }
        for name, column in (
            ("dgamma", steps.dgamma(job, cotangent, values, m, r)),
            ("dbeta", steps.dbeta(job, cotangent)),
        ):
            results[name] = steps.store(job, column, job.affine, name).reshape(shape)
        return results

    def _job(self, x: Array, call: Mapping[str, Any]) -> Job:
        return job_for(self.steps, x.shape, call["axis"], call["epsilon"], call["threads"], call["case"])

    def _column(self, job: Job, array: Array | None, name: str) -> Array | None:
        return None if array is None else self.steps.read(job, array, "column", name)

    def _empty_statistics(self, job: Job) -> Results:
        if self.kind == "none":
            return {}
        zeros = np.zeros(job.fold.statistic_shape, self.stat_dtype(job.case))
        return {"mean": zeros, self.kind: zeros.copy()}


def quiet(function: Function) -> Function:
    """`function` without NumPy's floating-point warnings: overflow is part of what is tested."""

    @wraps(function)
    def inner(*arguments: Any, **keywords: Any) -> Results:
        with np.errstate(all="ignore"):
            return function(*arguments, **keywords)

    return inner


def backend(
    name: str,
    forward: Function | None,
    backward: Function | None,
    *,
    op: str = "layer_norm",
    facts: Mapping[str, str] | None = None,
) -> FunctionBackend:
    """A plug-in, made through the same class as a user's, that is given `out`, `threads` and `case` as well."""
    made = FunctionBackend(name, facts=dict(facts or {}))
    if forward is not None:
        made.forward(op)(_with_extras(quiet(forward)))
    if backward is not None:
        made.backward(op)(_with_extras(quiet(backward)))
    return made


def _with_extras(function: Function) -> Function:
    def call(*arguments: Any, out: Mapping[str, Array], threads: int, case: Case, **keywords: Any) -> Results:
        return function(*arguments, out=out, threads=threads, case=case, **keywords)

    return call


def edited(**steps: Any) -> Steps:
    """The correct chain with some steps replaced."""
    return replace(STEPS, **steps)
