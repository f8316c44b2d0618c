"""Families A and C: a variance that cancels, a wrong definition of it, epsilon in the wrong place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lnbench.selftest import kernel
from lnbench.selftest.kernel import Array, Job
from lnbench.selftest.mutants._plant import plant


def _one_pass(job: Job, x: Array, mean: Array) -> Array:
    return job.average(x * x) - mean * mean


def _clamped(job: Job, x: Array, mean: Array) -> Array:
    return np.maximum(_one_pass(job, x, mean), 0)


def _where(condition: Callable[[Job], bool]) -> Callable[[Job, Array, Array], Array]:
    def variance(job: Job, x: Array, mean: Array) -> Array:
        return (_one_pass if condition(job) else kernel.variance)(job, x, mean)

    return variance


def _shared_shift(job: Job, x: Array, mean: Array) -> Array:
    # A shift makes the one-pass formula safe only where it is near the row's own mean.
    d = x - x[:1, :1]
    return job.average(d * d) - job.average(d) ** 2


plant("one_pass", "A", "variance as mean(x*x) - mean^2", like="pytorch/pytorch#51102", variance=_one_pass)
plant(
    "one_pass_clamped",
    "A",
    "one-pass variance, negative results set to 0",
    like="patrick-kidger/equinox#314",
    variance=_clamped,
)
plant(
    "one_pass_absolute", "A", "one-pass variance, its sign dropped", variance=lambda j, x, m: np.abs(_one_pass(j, x, m))
)
plant(
    "one_pass_wide_rows",
    "A",
    "one-pass variance in the branch for rows over 256",
    like="XPU-Forces/mojo_opset#340",
    variance=_where(lambda job: job.cols > 256),
)
plant(
    "one_pass_widest_rows",
    "A",
    "clamped one-pass variance in the branch for rows from 65536 on",
    variance=lambda j, x, m: _clamped(j, x, m) if j.cols >= 65536 else kernel.variance(j, x, m),
)
plant(
    "tiny_variance_dropped",
    "B",
    "a variance below 1e-20 counts as zero",
    rstd=lambda j, v: kernel.rstd(j, np.where(v < 1e-20, 0, v).astype(v.dtype)),
)
plant(
    "one_pass_vector_branch",
    "A",
    "one-pass variance only where the row is whole vectors of 8",
    like="tracel-ai/burn#5607",
    variance=_where(lambda job: job.cols % 8 == 0),
)
plant(
    "one_pass_recomputed",
    "A",
    "backward recomputes its statistics in one pass",
    like="tensorflow/tensorflow#25115",
    facts={"statistics": "none"},
    backward=lambda inner: kernel.LayerNorm(kernel.edited(variance=_clamped), {"statistics": "none"}).backward,
)
plant("shared_shift", "A", "all rows shifted by the first element of the first row", variance=_shared_shift)


def _outside(job: Job, variance: Array) -> Array:
    scale: Array = 1 / (np.sqrt(variance) + job.number(job.epsilon))
    return scale


def _with_epsilon(change: Callable[[float], float]) -> Callable[[Job, Array], Array]:
    return lambda job, variance: kernel.inverse_root(variance + job.number(change(job.epsilon)))


def _in_storage(job: Job, variance: Array) -> Array:
    return kernel.inverse_root(kernel.rounded(job, variance + job.number(job.epsilon)))


def _epsilon_in_storage(job: Job, variance: Array) -> Array:
    return kernel.inverse_root(variance + np.asarray(job.epsilon, job.storage).astype(job.work))


def _only_when_small(job: Job, variance: Array) -> Array:
    small = variance < job.number(job.epsilon)
    return kernel.inverse_root(np.where(small, variance + job.number(job.epsilon), variance))


def _in_count(job: Job, x: Array, mean: Array) -> Array:
    d = x - mean
    return job.total(d * d) / job.number(job.cols + job.epsilon)


def _unbiased(job: Job, x: Array, mean: Array) -> Array:
    d = x - mean
    return job.total(d * d) / job.number(max(job.cols - 1, 1))


def _squared(job: Job, variance: Array) -> Array:
    return 1 / (variance + job.number(job.epsilon)) ** 2


def _by_reciprocal(job: Job, x: Array, mean: Array, rstd: Array, gamma: Array | None, beta: Array | None) -> Array:
    return kernel.affine((x - mean) / rstd, gamma, beta)


plant("eps_outside_root", "C", "epsilon added to the standard deviation", like="allenai/OLMo#281", rstd=_outside)
plant("eps_forgotten", "C", "epsilon not added", like="tensorflow/tensorflow#58863", rstd=_with_epsilon(lambda e: 0.0))
plant("eps_hard_wired", "C", "epsilon always 1e-5", like="apple/axlearn#397", rstd=_with_epsilon(lambda e: 1e-5))
plant("eps_squared", "C", "epsilon squared", rstd=_with_epsilon(lambda e: e * e))
plant("eps_twice", "C", "epsilon added twice", rstd=_with_epsilon(lambda e: 2 * e))
plant("eps_subtracted", "C", "epsilon subtracted", like="flagos-ai/FlagGems#4955", rstd=_with_epsilon(lambda e: -e))
plant(
    "eps_floor",
    "C",
    "max(variance, epsilon) instead of the sum",
    rstd=lambda job, v: 1 / np.sqrt(np.maximum(v, job.number(job.epsilon))),
)
plant("eps_only_when_small", "C", "epsilon added only to variances below it", rstd=_only_when_small)
plant(
    "eps_sum_cast",
    "C",
    "variance + epsilon rounded to the type of x",
    like="deepspeedai/DeepSpeed#581",
    rstd=_in_storage,
)
plant("eps_cast", "C", "epsilon rounded to the type of x", like="tensorflow/tensorflow#24979", rstd=_epsilon_in_storage)
plant(
    "eps_float32",
    "C",
    "epsilon passed as float32 to a float64 kernel",
    rstd=_with_epsilon(lambda e: float(np.float32(e))),
)
plant(
    "eps_in_count",
    "C",
    "misplaced parenthesis: epsilon added to the element count",
    like="xlite-dev/LeetCUDA#309",
    variance=_in_count,
    rstd=_with_epsilon(lambda e: 0.0),
)
plant("eps_scaled", "C", "epsilon one percent too large", rstd=_with_epsilon(lambda e: 1.01 * e))
plant("unbiased", "C", "variance over N - 1", like="LBANN/lbann#2024", variance=_unbiased)
plant(
    "unbiased_recomputed",
    "C",
    "backward recomputes the variance over N - 1",
    facts={"statistics": "none"},
    backward=lambda inner: kernel.LayerNorm(kernel.edited(variance=_unbiased), {"statistics": "none"}).backward,
)
plant("squared_not_rooted", "C", "(variance + epsilon) squared instead of rooted", like="jax-ml/jax#442", rstd=_squared)
plant(
    "divided_by_reciprocal",
    "C",
    "deviation divided by the reciprocal root",
    like="mosaicml/llm-foundry#371",
    output=_by_reciprocal,
)
plant(
    "eps_forgotten_in_backward",
    "C",
    "backward forms the reciprocal root from the saved variance without epsilon",
    facts={"statistics": "var"},
    rstd_of=lambda job, stat, kind: 1 / np.sqrt(stat),
)
plant(
    "eps_hard_wired_in_backward",
    "C",
    "backward forms the reciprocal root with 1e-5",
    like="NVIDIA/apex#1259",
    facts={"statistics": "var"},
    rstd_of=lambda job, stat, kind: 1 / np.sqrt(stat + job.number(1e-5)),
)
