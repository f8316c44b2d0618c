"""Families K and L: axes and shapes, optional parameters, types of results, where the cast is, NaN and infinity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lnbench.operators.schema import Fold, resolve_axes
from lnbench.selftest import forms, kernel
from lnbench.selftest.kernel import Array, Function, Job, Results
from lnbench.selftest.mutants._plant import plant


def _clipped(rank: int, axis: Any) -> Any:
    """A negative axis taken as 0, as an unresolved loop bound does."""
    return max(axis, 0) if isinstance(axis, int) else axis


def _from_first(rank: int, axis: Any) -> Any:
    return min(a % rank for a in axis) if isinstance(axis, tuple) else axis


def _gamma_row_zero(job: Job, array: Array, along: str, name: str) -> Array:
    if along == "column" and array.ndim > 1:
        array = np.broadcast_to(array[:1], array.shape)
    return kernel.read(job, array, along, name)


def _gamma_reversed_axes(job: Job, array: Array, along: str, name: str) -> Array:
    if along == "column" and array.ndim > 1:
        array = array.T
    return kernel.read(job, array, along, name)


def _axis_given(change: Callable[[int, Any], Any]) -> Callable[[Function], Function]:
    """The whole pass over other axes; parameters that no longer fit are cut or repeated to the new size."""

    def around(inner: Function) -> Function:
        def run(first: Array, *arrays: Any, axis: Any, **call: Any) -> Results:
            other = change(first.ndim, axis)
            if other == axis or not first.size:
                return inner(first, *arrays, axis=axis, **call)
            size = Fold(first.shape, resolve_axes(first.shape, other))
            fit = [None if a is None else np.resize(a, size.reduced_shape) for a in arrays]
            return inner(first, *fit, axis=other, **call)

        return run

    return around


plant(
    "axis_unresolved",
    "K",
    "a negative axis taken as the first",
    like="microsoft/onnxruntime#26407",
    forward=_axis_given(_clipped),
)
plant(
    "last_axis_only",
    "K",
    "always the last axis",
    like="PaddlePaddle/Paddle#43476",
    forward=_axis_given(lambda rank, axis: rank - 1),
)
plant("axis_list_from_first", "K", "a list of axes read as all axes from the first", forward=_axis_given(_from_first))
plant(
    "gamma_row_zero",
    "K",
    "two-dimensional gamma and beta: the first row for all",
    like="microsoft/onnxruntime#28971",
    read=_gamma_row_zero,
)
plant("gamma_transposed", "K", "two-dimensional gamma and beta read transposed", read=_gamma_reversed_axes)


def _returning(change: Callable[[Results], Results]) -> Callable[[Function], Function]:
    def around(inner: Function) -> Function:
        def run(*arrays: Any, **call: Any) -> Results:
            return change(inner(*arrays, **call))

        return run

    return around


def _as_type(name: str, dtype: str) -> Callable[[Results], Results]:
    return lambda found: found | {name: found[name].astype(dtype)}


plant(
    "y_in_float32",
    "L",
    "y in float32 whatever x is",
    like="uxlfoundation/oneDNN#5062",
    forward=_returning(_as_type("y", "float32")),
)
plant("y_in_float64", "L", "y in float64 whatever x is", forward=_returning(_as_type("y", "float64")))
plant(
    "dgamma_in_float32",
    "L",
    "dgamma in float32 whatever gamma is",
    like="NVIDIA/TransformerEngine#569",
    backward=_returning(_as_type("dgamma", "float32")),
)
plant("y_transposed", "L", "y with its axes reversed", forward=_returning(lambda found: found | {"y": found["y"].T}))
plant("y_flat", "L", "y without its shape", forward=_returning(lambda found: found | {"y": found["y"].reshape(-1)}))
plant(
    "dgamma_with_row_axis",
    "L",
    "dgamma with a leading axis of one",
    like="ml-explore/mlx#3220",
    backward=_returning(lambda found: found | {"dgamma": found["dgamma"][None]}),
)
plant(
    "y_missing", "L", "y not returned", forward=_returning(lambda found: {k: v for k, v in found.items() if k != "y"})
)


def _absent(position: int, change: Callable[[Array], Array]) -> Callable[[Function], Function]:
    """What stands in for an absent parameter of a forward pass, made from the row length."""

    def around(inner: Function) -> Function:
        def run(*arrays: Any, **call: Any) -> Results:
            given = list(arrays)
            if given[position] is None:
                job = kernel.job_for(kernel.STEPS, given[0].shape, call["axis"], call["epsilon"], 1, call["case"])
                given[position] = change(np.ones(job.fold.reduced_shape, job.affine))
            return inner(*given, **call)

        return run

    return around


def _needed(position: int) -> Callable[[Function], Function]:
    def around(inner: Function) -> Function:
        def run(*arrays: Any, **call: Any) -> Results:
            if arrays[position] is None:
                raise TypeError("expected an array, got None")
            return inner(*arrays, **call)

        return run

    return around


def _read_short(job: Job, array: Array, along: str, name: str) -> Array:
    """A wider gamma read with the element size of x: the second half is never loaded."""
    rows = kernel.read(job, array, along, name)
    if along == "column" and array.dtype.itemsize > job.storage.itemsize:
        rows = rows.copy()
        rows[:, job.cols // 2 :] = 0
    return rows


def _beta_before_gamma(job: Job, x: Array, mean: Array, rstd: Array, gamma: Array | None, beta: Array | None) -> Array:
    return kernel.affine(kernel.affine((x - mean) * rstd, None, beta), gamma, None)


def _output(change: Callable[[Job, Array, Array], Array]) -> Callable[..., Array]:
    """(job, right y, x) -> y."""

    def output(job: Job, x: Array, mean: Array, rstd: Array, gamma: Array | None, beta: Array | None) -> Array:
        return change(job, kernel.output(job, x, mean, rstd, gamma, beta), x)

    return output


def _affine_with(
    change: Callable[[Array | None, Array | None], tuple[Array | None, Array | None]],
) -> Callable[..., Array]:
    def output(job: Job, x: Array, mean: Array, rstd: Array, gamma: Array | None, beta: Array | None) -> Array:
        return kernel.output(job, x, mean, rstd, *change(gamma, beta))

    return output


def _clipped_xhat(job: Job, x: Array, mean: Array, rstd: Array, gamma: Array | None, beta: Array | None) -> Array:
    return kernel.affine(np.clip((x - mean) * rstd, -10, 10), gamma, beta)


def _some_lengths_unwritten(inner: Function) -> Function:
    def run(x: Array, *arrays: Any, **call: Any) -> Results:
        found = inner(x, *arrays, **call)
        if x.shape[-1] % 17 == 0:
            del found["y"]
        return found

    return run


def _nan_spreads(job: Job, y: Array, x: Array) -> Array:
    return np.full_like(y, np.nan) if np.isnan(x).any() else y


def _inf_becomes_zero(job: Job, y: Array, x: Array) -> Array:
    return np.where(np.isinf(x).any(axis=1, keepdims=True), 0, y).astype(y.dtype)


plant("beta_needed", "L", "an absent beta raises", like="pytorch/pytorch#108060", forward=_needed(2), dies=True)
plant(
    "gamma_needed_in_backward",
    "L",
    "an absent gamma raises in backward",
    like="NVIDIA/apex#403",
    backward=_needed(2),
    dies=True,
)
plant(
    "beta_garbage",
    "L",
    "an absent beta read from other memory",
    like="microsoft/onnxruntime#28424",
    forward=_absent(2, lambda ones: ones),
)
plant("gamma_absent_is_zero", "L", "an absent gamma is 0", forward=_absent(1, np.zeros_like))
plant(
    "one_plus_gamma",
    "L",
    "1 + gamma instead of gamma",
    like="linkedin/Liger-Kernel#74",
    output=_affine_with(lambda gamma, beta: (None if gamma is None else 1 + gamma, beta)),
)
plant("gamma_ignored", "L", "gamma not applied", output=_affine_with(lambda gamma, beta: (None, beta)))
plant("beta_ignored", "L", "beta not added", output=_affine_with(lambda gamma, beta: (gamma, None)))
plant(
    "zero_gamma_is_one",
    "L",
    "a gamma of 0 taken for 1",
    output=_affine_with(lambda gamma, beta: (None if gamma is None else np.where(gamma == 0, 1, gamma), beta)),
)
plant("beta_before_gamma", "L", "(xhat + beta) gamma", output=_beta_before_gamma)
plant(
    "wide_gamma_read_short",
    "L",
    "float32 gamma read with 16-bit byte counts",
    like="tenstorrent/tt-metal#49902",
    read=_read_short,
)
plant(
    "early_cast_undeclared",
    "L",
    "xhat rounded to the type of x before gamma, not declared",
    like="NVIDIA/TransformerEngine#1132",
    output=forms.early_cast,
)
plant("xhat_clipped", "L", "xhat limited to 10", output=_clipped_xhat)
plant(
    "nan_swallowed",
    "L",
    "NaN becomes 0",
    output=_output(lambda job, y, x: np.nan_to_num(y, posinf=np.inf, neginf=-np.inf)),
)
plant("nan_spreads", "L", "one NaN makes all rows NaN", output=_output(_nan_spreads))
plant("infinity_becomes_zero", "L", "rows with an infinity become 0", output=_output(_inf_becomes_zero))
plant("some_lengths_unwritten", "L", "y not written where 17 divides the row length", forward=_some_lengths_unwritten)
plant(
    "not_centred",
    "L",
    "divides by the deviation without subtracting the mean",
    like="keras-team/keras#19643",
    output=lambda job, x, mean, rstd, gamma, beta: kernel.affine(x * rstd, gamma, beta),
)
