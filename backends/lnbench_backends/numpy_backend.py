"""The `numpy` backend: what a careful user would write, in the case's dtype (half types in float32).

Every problem is folded to (rows, columns), copied to contiguous memory in the computing type and solved with
two-pass formulas. The order of every sum is chosen here; `row_sums` and `column_sums` say how.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lnbench.backend import FunctionBackend

Array = np.ndarray[Any, Any]
Axis = int | tuple[int, ...]

FACTS = {"statistics": "rstd", "deterministic": "yes", "batch_invariant": "yes", "threads": "ignored"}


class NumpyBackend(FunctionBackend):
    """NumPy's own arithmetic: single-threaded, same bits on every run and for every batch size."""

    def __init__(self) -> None:
        super().__init__("numpy", facts=FACTS)
        for operator, (forward, backward) in OPERATORS.items():
            self.forward(operator)(forward)
            self.backward(operator)(backward)

    def describe(self) -> Mapping[str, str]:
        return {"version": np.__version__, "device": "cpu", **self.facts}


@dataclass(frozen=True, slots=True)
class Rows:
    """A tensor of `shape` seen as rows: the `reduced` axes are the columns, the others the rows."""

    shape: tuple[int, ...]
    reduced: tuple[int, ...]

    @classmethod
    def of(cls, x: Array, axis: Axis) -> Rows:
        """An int axis means "from it to the end", a tuple exactly these axes."""
        axes = axis if isinstance(axis, tuple) else tuple(range(axis % x.ndim, x.ndim))
        return cls(x.shape, tuple(sorted(a % x.ndim for a in axes)))

    @property
    def order(self) -> tuple[int, ...]:
        return tuple(a for a in range(len(self.shape)) if a not in self.reduced) + self.reduced

    @property
    def cols(self) -> int:
        return math.prod(self.shape[a] for a in self.reduced)

    @property
    def rows(self) -> int:
        return math.prod(n for a, n in enumerate(self.shape) if a not in self.reduced)

    def fold(self, a: Array) -> Array:
        """A contiguous (rows, cols) copy of `a` in the computing type."""
        folded = a.transpose(self.order).reshape(self.rows, self.cols)
        return np.array(folded, dtype=computing(a.dtype), order="C", copy=True)

    def store(self, rows: Array, out: Array) -> None:
        """Writes (rows, cols) into `out`, rounding once to its dtype."""
        view = out.transpose(self.order)
        np.copyto(view, rows.reshape(view.shape), casting="same_kind")

    def line(self, parameter: Array | None) -> Array | None:
        """gamma or beta, of the shape of the reduced axes, as (1, cols) in the computing type."""
        return None if parameter is None else wide(parameter).reshape(1, self.cols)

    def column(self, statistic: Array) -> Array:
        """A statistic of any shape with one element a row as (rows, 1) in the computing type."""
        return wide(statistic).reshape(self.rows, 1)


def computing(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """float64 computes in itself, everything shorter in float32."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def wide(a: Array) -> Array:
    return np.asarray(a, dtype=computing(a.dtype))


def row_sums(a: Array) -> Array:
    """Sums of the rows of a C-contiguous (rows, cols) array, kept as (rows, 1): NumPy adds these pairwise."""
    sums: Array = np.add.reduce(a, axis=1, keepdims=True)
    return sums


def row_means(a: Array) -> Array:
    # A division, not a product with 1/cols: the mean of equal integers is then exact.
    means: Array = row_sums(a) / a.dtype.type(a.shape[1])
    return means


def column_sums(a: Array) -> Array:
    """Sums of the columns of (rows, cols), as (cols,), in blocks of about sqrt(rows) rows.

    Along the first axis NumPy adds one row after the other, so that the error grows with the number of rows; adding
    sqrt(rows) partial sums of sqrt(rows) rows each keeps it to the square root and still reads the data once.
    """
    rows, cols = a.shape
    block = max(1, math.isqrt(rows))
    whole = rows - rows % block
    partial = np.add.reduce(a[:whole].reshape(whole // block, block, cols), axis=1)
    rest = np.add.reduce(a[whole:], axis=0)
    sums: Array = np.add.reduce(partial, axis=0) + rest
    return sums


def put(out: Mapping[str, Array], name: str, values: Array) -> None:
    """Stores `values` when the output is wanted."""
    if name in out:
        np.copyto(out[name], values.reshape(out[name].shape), casting="same_kind")


def affine(xhat: Array, gamma: Array | None, beta: Array | None) -> Array:
    """xhat * gamma + beta, in place."""
    if gamma is not None:
        xhat *= gamma
    if beta is not None:
        xhat += beta
    return xhat


def standardize(x: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """(mean, rstd, xhat) of the rows of x, by two passes; x is overwritten."""
    mean = row_means(x)
    x -= mean
    rstd = 1 / np.sqrt(row_means(x * x) + x.dtype.type(epsilon))
    x *= rstd
    return mean, rstd, x


def standardize_gradient(g: Array, xhat: Array, rstd: Array) -> Array:
    """rstd (g - mean(g) - xhat mean(g xhat)) of the rows; g is overwritten."""
    slope = row_means(g * xhat)
    g -= row_means(g)
    g -= xhat * slope
    g *= rstd
    return g


@np.errstate(all="ignore")
def layer_norm(
    x: Array, gamma: Array | None, beta: Array | None, *, axis: Axis, epsilon: float, out: dict[str, Array]
) -> None:
    rows = Rows.of(x, axis)
    mean, rstd, xhat = standardize(rows.fold(x), epsilon)
    rows.store(affine(xhat, rows.line(gamma), rows.line(beta)), out["y"])
    put(out, "mean", mean)
    put(out, "rstd", rstd)


@np.errstate(all="ignore")
def layer_norm_grad(
    dy: Array,
    x: Array,
    gamma: Array | None,
    mean: Array,
    rstd: Array,
    *,
    axis: Axis,
    epsilon: float,
    out: dict[str, Array],
) -> None:
    rows = Rows.of(x, axis)
    r = rows.column(rstd)
    xhat = rows.fold(x)
    xhat -= rows.column(mean)
    xhat *= r
    g = rows.fold(dy)
    put(out, "dbeta", column_sums(g))
    put(out, "dgamma", column_sums(g * xhat))
    rows.store(standardize_gradient(affine(g, rows.line(gamma), None), xhat, r), out["dx"])


@np.errstate(all="ignore")
def rms_norm(x: Array, gamma: Array | None, *, axis: Axis, epsilon: float, out: dict[str, Array]) -> None:
    rows = Rows.of(x, axis)
    folded = rows.fold(x)
    rstd = 1 / np.sqrt(row_means(folded * folded) + folded.dtype.type(epsilon))
    folded *= rstd
    rows.store(affine(folded, rows.line(gamma), None), out["y"])
    put(out, "rstd", rstd)


@np.errstate(all="ignore")
def rms_norm_grad(
    dy: Array,
    x: Array,
    gamma: Array | None,
    rstd: Array,
    *,
    axis: Axis,
    epsilon: float,
    out: dict[str, Array],
) -> None:
    rows = Rows.of(x, axis)
    r = rows.column(rstd)
    xhat = rows.fold(x)
    xhat *= r
    g = rows.fold(dy)
    put(out, "dgamma", column_sums(g * xhat))
    affine(g, rows.line(gamma), None)
    g -= xhat * row_means(g * xhat)
    g *= r
    rows.store(g, out["dx"])


def channels(x: Array, axis: Axis) -> Rows:
    """The channels along `axis` as rows."""
    assert isinstance(axis, int)
    return Rows(x.shape, tuple(a for a in range(x.ndim) if a != axis % x.ndim))


def of_channels(rows: Rows, parameter: Array | None) -> Array | None:
    """gamma or beta with one element a channel as (rows, 1)."""
    return None if parameter is None else rows.column(parameter)


def updated(running: Array, batch: Array, momentum: float) -> Array:
    """The running statistic after one call."""
    kind = batch.dtype.type
    result: Array = wide(running).reshape(batch.shape) * kind(1 - momentum) + batch * kind(momentum)
    return result


@np.errstate(all="ignore")
def batch_norm(
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    running_mean: Array,
    running_var: Array,
    *,
    axis: Axis,
    epsilon: float,
    training: bool,
    momentum: float,
    out: dict[str, Array],
) -> None:
    rows = channels(x, axis)
    xhat, n = rows.fold(x), rows.cols
    if training:
        mean = row_means(xhat)
        xhat -= mean
        var = row_means(xhat * xhat)
        rstd = 1 / np.sqrt(var + var.dtype.type(epsilon))
        put(out, "mean", mean)
        put(out, "rstd", rstd)
        if n == 0:
            put(out, "running_mean_out", running_mean)
            put(out, "running_var_out", running_var)
        else:
            put(out, "running_mean_out", updated(running_mean, mean, momentum))
            put(out, "running_var_out", updated(running_var, var * var.dtype.type(n / max(1, n - 1)), momentum))
    else:
        xhat -= rows.column(running_mean)
        rstd = 1 / np.sqrt(rows.column(running_var) + xhat.dtype.type(epsilon))
    xhat *= rstd
    rows.store(affine(xhat, of_channels(rows, gamma), of_channels(rows, beta)), out["y"])


@np.errstate(all="ignore")
def batch_norm_grad(
    dy: Array,
    x: Array,
    gamma: Array | None,
    running_mean: Array,
    running_var: Array,
    mean: Array | None,
    rstd: Array | None,
    *,
    axis: Axis,
    epsilon: float,
    training: bool,
    momentum: float,
    out: dict[str, Array],
) -> None:
    rows = channels(x, axis)
    xhat, g = rows.fold(x), rows.fold(dy)
    if training:
        assert mean is not None and rstd is not None
        m, r = rows.column(mean), rows.column(rstd)
    else:
        m, r = rows.column(running_mean), 1 / np.sqrt(rows.column(running_var) + xhat.dtype.type(epsilon))
    xhat -= m
    xhat *= r
    put(out, "dbeta", row_sums(g))
    put(out, "dgamma", row_sums(g * xhat))
    affine(g, of_channels(rows, gamma), None)
    rows.store(standardize_gradient(g, xhat, r) if training else g * r, out["dx"])


Function = Callable[..., None]

OPERATORS: dict[str, tuple[Function, Function]] = {
    "layer_norm": (layer_norm, layer_norm_grad),
    "rms_norm": (rms_norm, rms_norm_grad),
    "batch_norm": (batch_norm, batch_norm_grad),
}
