"""Family B: types that are too narrow, poor reciprocal roots, ranges that are cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lnbench.selftest import forms, kernel, sums
from lnbench.selftest.kernel import Array, Function, Job, Results
from lnbench.selftest.mutants._plant import plant


def _short_total(job: Job, a: Array) -> Array:
    """Every partial sum rounded to the type of x."""
    acc = kernel.rounded(job, a[:, :1])
    for j in range(1, a.shape[1]):
        acc = kernel.rounded(job, acc + a[:, j : j + 1])
    return acc


def _short_columns(job: Job, a: Array) -> Array:
    return _short_total(job, a.T).T


def _block_rounded(job: Job, a: Array) -> Array:
    parts = [kernel.rounded(job, sums.sequential(a[i : i + 32].T)) for i in range(0, a.shape[0], 32)]
    return sums.sequential(np.concatenate(parts, axis=1)).T


def _half_squares(job: Job, x: Array, mean: Array) -> Array:
    d = (x - mean).astype(np.float16)
    return job.average((d * d).astype(job.work))


def _count_cast(job: Job, x: Array) -> Array:
    return job.total(x) / kernel.rounded(job, np.asarray(job.cols, job.work))


def _half_reciprocal(job: Job, x: Array) -> Array:
    return job.total(x) * job.number(float(np.float16(1 / job.cols)))


def _saturated_variance(job: Job, x: Array, mean: Array) -> Array:
    limit = 65504 if job.storage.itemsize == 2 else np.inf
    return np.minimum(kernel.variance(job, x, mean), job.number(limit))


def _store_with(change: Callable[[Array, np.dtype[Any]], Array]) -> Callable[..., Array]:
    def store(job: Job, values: Array, dtype: np.dtype[Any], name: str) -> Array:
        return change(values, dtype)

    return store


def _chopped(values: Array, dtype: np.dtype[Any]) -> Array:
    """Rounded towards zero."""
    near = values.astype(dtype)
    back = near.astype(values.dtype)
    over = np.isfinite(back) & (np.abs(back) > np.abs(values))
    bits: Any = near.view(f"u{near.dtype.itemsize}")
    chopped: Array = np.where(over, bits - 1, bits).astype(bits.dtype).view(dtype)  # one step towards zero
    return chopped


def _saturated(values: Array, dtype: np.dtype[Any]) -> Array:
    if dtype != np.float16:
        return values.astype(dtype)
    return np.clip(values, -65504, 65504).astype(dtype)


def _through_half(values: Array, dtype: np.dtype[Any]) -> Array:
    return values.astype(np.float16).astype(dtype) if dtype.itemsize == 2 else values.astype(dtype)


def _saved_short(job: Job, values: Array, dtype: np.dtype[Any], name: str) -> Array:
    return (kernel.rounded(job, values) if name in ("mean", "rstd") else values).astype(dtype)


plant(
    "short_accumulators",
    "B",
    "row sums accumulated in the type of x",
    like="microsoft/onnxruntime#29034",
    total=_short_total,
)
plant(
    "short_column_sums",
    "B",
    "dgamma and dbeta accumulated in the type of x",
    like="karpathy/llm.c#476",
    columns=_short_columns,
)
plant(
    "short_block_sums",
    "B",
    "block sums of dgamma rounded to the type of x before they are added",
    like="linkedin/Liger-Kernel#950",
    columns=_block_rounded,
)
plant(
    "half_squares", "B", "squared deviations formed in float16", like="nntrainer/nntrainer#3935", variance=_half_squares
)
plant(
    "count_cast", "B", "the element count rounded to the type of x", like="pytorch/executorch#16727", mean=_count_cast
)
plant("half_reciprocal_count", "B", "multiplies by 1/N kept in float16", mean=_half_reciprocal)
plant(
    "variance_saturates",
    "B",
    "variance limited to the largest float16",
    like="LeelaChessZero/lc0#1921",
    variance=_saturated_variance,
)
plant(
    "short_statistics",
    "B",
    "mean and rstd rounded to the type of x when saved, not declared",
    like="flagos-ai/FlagGems#221",
    passes="both",
    store=_saved_short,
)
plant(
    "short_rstd_used",
    "B",
    "rstd rounded to the type of x before it is used",
    like="amd/IRON#139",
    rstd=lambda job, v: kernel.rounded(job, kernel.rstd(job, v)),
)
plant(
    "short_statistics_in_backward",
    "B",
    "backward rounds the statistics it is given to the type of x",
    like="pytorch/pytorch#140259",
    rstd_of=lambda job, stat, kind: kernel.rounded(job, stat),
)
plant("truncated_stores", "B", "results rounded towards zero", like="amd/IRON#139", store=_store_with(_chopped))
plant("saturated_stores", "B", "float16 overflow stored as 65504 instead of infinity", store=_store_with(_saturated))
plant(
    "saturated_y",
    "B",
    "only y saturates",
    passes="forward",
    store=lambda j, a, d, n: (_store_with(_saturated) if n == "y" else kernel.store)(j, a, d, n),
)
plant("stored_through_half", "B", "bfloat16 results pass through float16", store=_store_with(_through_half))


def _in_float32(inner: Function) -> Function:
    def run(*arrays: Any, **call: Any) -> Results:
        case = call["case"]
        if case.dtype != "float64":
            return inner(*arrays, **call)
        short = [None if a is None else np.asarray(a, np.float32) for a in arrays]
        found = inner(*short, **(call | {"case": case.replace(dtype="float32")}))
        return {k: np.asarray(v, np.float64) for k, v in found.items()}

    return run


def _float32_mean(job: Job, x: Array) -> Array:
    return job.average(x).astype(np.float32).astype(job.work)


plant("float_in_double", "B", "float64 computed in float32", forward=_in_float32, backward=_in_float32)
plant("float32_mean", "B", "the mean kept in float32 in float64 kernels", mean=_float32_mean)


def _estimate(bits: int) -> Callable[[Job, Array], Array]:
    """A hardware estimate of the reciprocal root with so many good bits."""

    def rstd(job: Job, variance: Array) -> Array:
        exact = kernel.rstd(job, variance)
        fraction, exponent = np.frexp(exact)
        estimate: Array = np.ldexp(np.floor(fraction * 2**bits) / 2**bits, exponent)
        return estimate.astype(job.work)

    return rstd


def _newton_steps(steps: int) -> Callable[[Job, Array], Array]:
    def rstd(job: Job, variance: Array) -> Array:
        value = (variance + job.number(job.epsilon)).astype(np.float32)
        pattern: Any = value.view(np.int32)
        r: Array = (np.int32(0x5F3759DF) - (pattern >> 1)).view(np.float32)
        for _ in range(steps):
            r = r * (np.float32(1.5) - np.float32(0.5) * value * r * r)
        return r.astype(job.work)

    return rstd


def _bad_seed(job: Job, variance: Array) -> Array:
    value = variance + job.number(job.epsilon)
    r = 1 / value
    for _ in range(40):
        r = r * (job.number(1.5) - job.number(0.5) * value * r * r)
    return r


plant("rsqrt_estimate", "B", "reciprocal root from a 14-bit hardware estimate", rstd=_estimate(14))
plant(
    "rsqrt_estimate_in_backward",
    "B",
    "backward uses a 14-bit estimate of the reciprocal root",
    facts={"statistics": "var"},
    rstd_of=lambda job, stat, kind: _estimate(14)(job, stat),
)
plant("rsqrt_one_step", "B", "one Newton step from the bit trick", rstd=_newton_steps(1))
plant("rsqrt_two_steps", "B", "two Newton steps from the bit trick", rstd=_newton_steps(2))
plant(
    "rsqrt_bad_seed",
    "B",
    "Newton seeded with 1/a diverges for small variances",
    like="PTO-ISA/SuperNPUBench#84",
    rstd=_bad_seed,
)


def _squared_exponent(job: Job, x: Array, mean: Array) -> Array:
    # A "fast square" whose scale is fixed: fine around 1, zero below 1e-4 and infinite above 1e4 in 16-bit types.
    d = x - mean
    return job.average(np.where(np.abs(d) < 2e-4, 0, d * d).astype(job.work))


plant(
    "small_deviations_dropped",
    "B",
    "deviations below 2e-4 count as zero in the variance",
    like="nntrainer/nntrainer#3785",
    variance=_squared_exponent,
)
plant(
    "flushes_undeclared",
    "B",
    "subnormal operands and results become zero, not declared",
    passes="both",
    read=lambda job, array, along, name: forms.flushed(kernel.read(job, array, along, name)),
    store=lambda job, values, dtype, name: kernel.store(job, forms.flushed(values), dtype, name),
)
