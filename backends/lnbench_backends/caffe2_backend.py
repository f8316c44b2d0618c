"""A model of Caffe2's LayerNorm operator and its gradient, stage by stage in NumPy: its data flow and its roundings.

Caffe2 itself left PyTorch's releases. This follows caffe2/operators/layer_norm_op.cc (pytorch/pytorch, commit
21464707) and utils/math/reduce.cc (commit 0851b62a): one-pass variance that is not clamped, standard deviation saved
instead of its reciprocal, fused scale and bias, gradients from the sums ds and db. Only the order of sums is NumPy's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lnbench.backend import Call, FunctionBackend, Tensors
from lnbench.case import Case
from lnbench.errors import Unsupported
from lnbench_backends._frameworks import (
    Array,
    float32_epsilon,
    needs_affine_dtype,
    needs_trailing_axes,
)

FACTS = {"statistics": "std", "threads": "ignored"}


class Caffe2Backend(FunctionBackend):
    """Forward for float32 and float64, gradient for float32, as the operator was registered."""

    def __init__(self) -> None:
        super().__init__("caffe2", dtypes=("float32", "float64"), facts=FACTS)
        self.forward("layer_norm")(layer_norm)
        self.backward("layer_norm")(layer_norm_grad)

    def describe(self) -> Mapping[str, str]:
        return {
            "version": f"model of Caffe2 at 21464707, NumPy {np.__version__}",
            "device": "cpu",
            "variance": "one pass, mean(x*x) - mean*mean, not clamped",
            **self.facts,
        }

    def supports(self, case: Case) -> str | None:
        reason = super().supports(case)
        if reason:
            return reason
        if len(case.shape) < 2:
            return "Caffe2's LayerNorm takes tensors of rank 2 and more"
        if case.gamma != case.beta:
            return "Caffe2's LayerNorm takes gamma and beta together or neither"
        return (
            needs_trailing_axes(case, "Caffe2's LayerNorm")
            or needs_affine_dtype(case, "Caffe2's LayerNorm")
            or float32_epsilon(case, "Caffe2's LayerNorm")
        )

    def prepare(self, case: Case, pass_: str, tensors: Tensors, threads: int) -> Call:
        if pass_ == "backward" and case.dtype != "float32":
            raise Unsupported("Caffe2's LayerNormGradient is registered for float32 only")
        return super().prepare(case, pass_, tensors, threads)


def fold(x: Array, axis: int | tuple[int, ...]) -> tuple[Array, tuple[int, ...]]:
    """x as (M, N) and the shape of the statistics, shape[:axis] + (1,)."""
    first = (min(a % x.ndim for a in axis) if isinstance(axis, tuple) else axis) % x.ndim
    rows = int(np.prod(x.shape[:first], dtype=np.int64))
    return x.reshape(rows, int(np.prod(x.shape[first:], dtype=np.int64))), (*x.shape[:first], 1)


def moments(x: Array) -> tuple[Array, Array]:
    """`math::Moments` over the columns of (M, N): mean and variance as (M, 1)."""
    rows, cols = x.shape
    if cols == 0:
        return np.zeros((rows, 1), x.dtype), np.zeros((rows, 1), x.dtype)
    if cols == 1:
        return x.copy(), np.zeros_like(x)
    mean = np.add.reduce(x, axis=1, keepdims=True) / x.dtype.type(cols)
    return mean, np.add.reduce(x * x, axis=1, keepdims=True) / x.dtype.type(cols) - mean * mean


@np.errstate(all="ignore")
def layer_norm(
    x: Array, gamma: Array | None, beta: Array | None, *, axis: int | tuple[int, ...], epsilon: float
) -> Mapping[str, Any]:
    rows, statistic_shape = fold(x, axis)
    mean, variance = moments(rows)
    # ComputeSigmaAndFusedParams
    shifted = variance + x.dtype.type(np.float32(epsilon))
    scale = 1 / np.sqrt(shifted)
    sigma = scale * shifted
    bias = -scale * mean
    # LayerNormForward
    y = rows * scale + bias
    if gamma is not None and beta is not None:
        y = y * gamma.reshape(1, -1) + beta.reshape(1, -1)
    return {"y": y.reshape(x.shape), "mean": mean.reshape(statistic_shape), "std": sigma.reshape(statistic_shape)}


@np.errstate(all="ignore")
def layer_norm_grad(
    dy: Array,
    x: Array,
    gamma: Array | None,
    mean: Array,
    std: Array,
    *,
    axis: int | tuple[int, ...],
    epsilon: float,
) -> Mapping[str, Any]:
    del epsilon  # std contains it
    rows, _ = fold(x, axis)
    cotangent, _ = fold(dy, axis)
    mean, sigma = mean.reshape(-1, 1), std.reshape(-1, 1)
    cols = x.dtype.type(max(rows.shape[1], 1))
    scaled = cotangent if gamma is None else cotangent * gamma.reshape(1, -1)
    # ComputeInternalGradients: the product dy*x is staged in dX and used twice
    product = cotangent * rows
    ds = np.add.reduce(product if gamma is None else product * gamma.reshape(1, -1), axis=1, keepdims=True)
    db = np.add.reduce(scaled, axis=1, keepdims=True)
    # ComputeFusedParams
    rstd = 1 / sigma
    x_scale = (db * mean - ds) * rstd * rstd * rstd / cols
    bias = -x_scale * mean - db * rstd / cols
    found = {"dx": (scaled * rstd + rows * x_scale + bias).reshape(x.shape)}
    if gamma is not None:
        # GammaBetaBackward
        g_scale = -rstd * mean
        found["dgamma"] = np.add.reduce(product * rstd + cotangent * g_scale, axis=0).reshape(gamma.shape)
        found["dbeta"] = np.add.reduce(cotangent, axis=0).reshape(gamma.shape)
    return found
