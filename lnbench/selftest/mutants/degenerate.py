"""Family D: constant rows and rows of one element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lnbench.selftest import forms, kernel
from lnbench.selftest.kernel import Array, Function, Job, Results
from lnbench.selftest.mutants._plant import plant


def _contracted(job: Job, x: Array, mean: Array, rstd: Array, gamma: Array | None, beta: Array | None) -> Array:
    shift = np.broadcast_to(-mean * rstd, x.shape)
    return kernel.affine(forms.fused_add(x, np.broadcast_to(rstd, x.shape), shift), gamma, beta)


def _one_column(change: Callable[[Job, Array, Array | None, Array | None], Array]) -> Callable[..., Array]:
    def output(job: Job, x: Array, mean: Array, rstd: Array, gamma: Array | None, beta: Array | None) -> Array:
        if job.cols > 1:
            return kernel.output(job, x, mean, rstd, gamma, beta)
        return change(job, x, gamma, beta)

    return output


def _unbiased_always(job: Job, x: Array, mean: Array) -> Array:
    d = x - mean
    return job.total(d * d) / job.number(job.cols - 1) if job.cols == 1 else kernel.variance(job, x, mean)


def _zero_row(job: Job, dy: Array, x: Array, mean: Array, rstd: Array, gamma: Array | None) -> Array:
    right = kernel.dx(job, dy, x, mean, rstd, gamma)
    return np.where(np.all(x == 0, axis=1, keepdims=True), job.number(np.nan), right)


def _constant_row(job: Job, dy: Array, x: Array, mean: Array, rstd: Array, gamma: Array | None) -> Array:
    right = kernel.dx(job, dy, x, mean, rstd, gamma)
    return np.where(np.all(x == x[:, :1], axis=1, keepdims=True), job.number(0), right)


def _single_dgamma(job: Job, dy: Array, x: Array, mean: Array, rstd: Array) -> Array:
    return kernel.dbeta(job, dy) if job.cols == 1 else kernel.dgamma(job, dy, x, mean, rstd)


def _rejects_single(inner: Function) -> Function:
    def run(x: Array, *arrays: Any, **call: Any) -> Results:
        if x.shape[-1] == 1:
            raise ValueError("normalized size must be greater than 1")
        return inner(x, *arrays, **call)

    return run


plant(
    "contracted",
    "D",
    "x * s - m * s with a fused multiply-add does not cancel on constant rows",
    like="pytorch/pytorch#73161",
    output=_contracted,
)
plant(
    "folded_on_constants",
    "D",
    "scale and shift folded: x * s + t does not cancel on constant rows",
    like="pytorch/pytorch#108072",
    output=forms.folded,
)
plant("single_is_nan", "D", "0/0 for one-element rows", like="web-platform-tests/wpt#43893", variance=_unbiased_always)
plant(
    "single_passed_through",
    "D",
    "one-element rows are not normalized",
    output=_one_column(lambda job, x, gamma, beta: kernel.affine(x, gamma, beta)),
)
plant("single_dgamma", "D", "dgamma of one-element rows is not 0", like="pytorch/pytorch#188372", dgamma=_single_dgamma)
plant(
    "single_rejected",
    "D",
    "one-element rows are refused",
    like="microsoft/onnxruntime#25896",
    forward=_rejects_single,
    dies=True,
)
plant("zero_row_gradient", "D", "dx of an all-zero row is NaN", like="tracel-ai/burn#1992", dx=_zero_row)
plant("constant_row_gradient", "D", "dx of a constant row is 0", dx=_constant_row)
