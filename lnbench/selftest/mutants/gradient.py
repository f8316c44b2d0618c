"""Family K: gradient formulas, saved statistics, axes and shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lnbench.selftest import kernel
from lnbench.selftest.kernel import Array, Function, Job, Results, scaled
from lnbench.selftest.mutants._plant import plant
from lnbench.selftest.mutants.tails import projected

Gradient = Callable[[Job, Array, Array, Array], Array]  # (job, g or dy, xhat, rstd) -> dx


def _of_g(formula: Gradient) -> Callable[..., Array]:
    """A step `dx` from a formula over the gradient at xhat."""

    def dx(job: Job, dy: Array, x: Array, mean: Array, rstd: Array, gamma: Array | None) -> Array:
        return formula(job, scaled(dy, gamma), (x - mean) * rstd, rstd)

    return dx


def _of_dx(change: Callable[[Job, Array, Array, Array], Array]) -> Callable[..., Array]:
    """A step `dx` that changes the right one: (job, dx, dy, rstd) -> dx."""

    def dx(job: Job, dy: Array, x: Array, mean: Array, rstd: Array, gamma: Array | None) -> Array:
        return change(job, kernel.dx(job, dy, x, mean, rstd, gamma), dy, rstd)

    return dx


def _without_gamma(job: Job, dy: Array, x: Array, mean: Array, rstd: Array, gamma: Array | None) -> Array:
    return kernel.dx(job, dy, x, mean, rstd, None)


def _gamma_twice(job: Job, dy: Array, x: Array, mean: Array, rstd: Array, gamma: Array | None) -> Array:
    g, xhat = scaled(dy, gamma), (x - mean) * rstd
    return projected(job, g, xhat, rstd, mean_gx=job.average(scaled(g, gamma) * xhat))


def _gamma_last(job: Job, dy: Array, x: Array, mean: Array, rstd: Array, gamma: Array | None) -> Array:
    return scaled(kernel.dx(job, dy, x, mean, rstd, None), gamma)


def _eps_free_term(job: Job, dy: Array, x: Array, mean: Array, rstd: Array, gamma: Array | None) -> Array:
    g, d = scaled(dy, gamma), x - mean
    return rstd * (g - job.average(g) - d / job.average(d * d) * job.average(g * d))


def _uncentred(job: Job, dy: Array, x: Array, mean: Array, rstd: Array, gamma: Array | None) -> Array:
    return kernel.dx(job, dy, x, np.zeros_like(mean), rstd, gamma)


def _one_element(job: Job, dx: Array, dy: Array, rstd: Array) -> Array:
    dx = dx.copy()
    dx[job.rows // 2, job.cols // 3] = 20
    return dx


def _stretched(job: Job, dx: Array, dy: Array, rstd: Array) -> Array:
    return dx * job.number(1.02) if job.storage.name == "bfloat16" else dx


for name, sentence, formula in (
    ("dx_without_mean_g", "dx without mean(g)", lambda job, g, xhat, r: r * (g - xhat * job.average(g * xhat))),
    ("dx_without_xhat_term", "dx without the term along xhat", lambda job, g, xhat, r: r * (g - job.average(g))),
    ("dx_without_both", "dx as gamma dy rstd", lambda job, g, xhat, r: r * g),
    ("dx_sign_of_xhat_term", "the term along xhat added instead of subtracted",
     lambda job, g, xhat, r: r * (g - job.average(g) + xhat * job.average(g * xhat))),
    ("dx_term_over_n_minus_1", "mean(g xhat) over N - 1",
     lambda job, g, xhat, r: projected(job, g, xhat, r, None, job.total(g * xhat) / job.number(max(job.cols - 1, 1)))),
    ("dx_without_rstd", "dx not multiplied by rstd", lambda job, g, xhat, r: projected(job, g, xhat, np.ones_like(r))),
    ("dx_rstd_squared", "dx multiplied by rstd twice", lambda job, g, xhat, r: projected(job, g, xhat, r * r)),
    ("dx_terms_swapped", "the two row means exchanged",
     lambda job, g, xhat, r: projected(job, g, xhat, r, job.average(g * xhat), job.average(g))),
):  # fmt: skip
    plant(name, "K", sentence, dx=_of_g(formula))

plant("dx_without_gamma", "K", "dx without gamma", like="karpathy/llm.c#763", dx=_without_gamma)
plant(
    "dx_gamma_twice", "K", "gamma applied twice in the term along xhat", like="NVIDIA/Megatron-LM#6859", dx=_gamma_twice
)
plant("dx_gamma_last", "K", "gamma applied after the projection", dx=_gamma_last)
plant("dx_eps_free_term", "K", "the term along xhat with the variance instead of variance + epsilon", dx=_eps_free_term)
plant("dx_uncentred", "K", "the mean not subtracted in dx", dx=_uncentred)
plant("dx_doubled", "K", "dx twice too large", dx=_of_dx(lambda job, dx, dy, rstd: 2 * dx))
plant(
    "dx_residual_added", "K", "dy added to dx", like="Dao-AILab/quack#53", dx=_of_dx(lambda job, dx, dy, rstd: dx + dy)
)
plant("dx_stretched", "K", "dx of bfloat16 2 % too large", dx=_of_dx(_stretched))
plant("dx_one_element", "K", "one element of dx is 20", dx=_of_dx(_one_element))
plant(
    "dgamma_averaged",
    "K",
    "dgamma averaged over rows instead of summed",
    dgamma=lambda job, *a: kernel.dgamma(job, *a) / job.number(job.rows),
)
plant(
    "dbeta_averaged",
    "K",
    "dbeta averaged over rows instead of summed",
    dbeta=lambda job, dy: kernel.dbeta(job, dy) / job.number(job.rows),
)
plant(
    "dgamma_from_x",
    "K",
    "dgamma from x instead of xhat",
    dgamma=lambda job, dy, x, mean, rstd: job.steps.columns(job, dy * x),
)
plant(
    "dgamma_uncentred",
    "K",
    "the mean not subtracted in dgamma",
    dgamma=lambda job, dy, x, mean, rstd: kernel.dgamma(job, dy, x, np.zeros_like(mean), rstd),
)
plant(
    "dgamma_without_rstd",
    "K",
    "dgamma from x - mean",
    dgamma=lambda job, dy, x, mean, rstd: kernel.dgamma(job, dy, x, mean, np.ones_like(rstd)),
)
plant(
    "dgamma_one_element",
    "K",
    "one element of dgamma is wrong by one part in 500",
    dgamma=lambda job, *a: kernel.dgamma(job, *a) * (1 + 2e-3 * (np.arange(job.cols) == 0)).astype(job.work),
)
plant(
    "rstd_read_as_variance",
    "K",
    "backward takes the saved rstd for the variance",
    like="ooples/AiDotNet.Tensors#784",
    rstd_of=lambda job, stat, kind: kernel.rstd(job, stat),
)
plant(
    "variance_saved_for_rstd",
    "K",
    "forward saves the variance in place of rstd",
    like="flagos-ai/FlagGems#5771",
    statistic=lambda job, variance, rstd, kind: variance,
)
plant(
    "rstd_saved_without_eps",
    "K",
    "the saved rstd lacks epsilon",
    like="flagos-ai/FlagGems#5392",
    statistic=lambda job, variance, rstd, kind: 1 / np.sqrt(variance),
)


def _backward(change: Callable[[Results], Results]) -> Callable[[Function], Function]:
    def around(inner: Function) -> Function:
        def run(*arrays: Any, **call: Any) -> Results:
            return change(inner(*arrays, **call))

        return run

    return around


def _with_gamma(name: str) -> Callable[[Function], Function]:
    """A parameter gradient multiplied by gamma."""

    def around(inner: Function) -> Function:
        def run(dy: Array, x: Array, gamma: Array | None, *arrays: Any, **call: Any) -> Results:
            found = inner(dy, x, gamma, *arrays, **call)
            return found if gamma is None else found | {name: (found[name] * gamma).astype(found[name].dtype)}

        return run

    return around


class _FromOutput:
    """xhat recovered from y as (y - beta) / gamma: 0/0 where gamma is 0, and as poor as y is coarse."""

    def __init__(self) -> None:
        self.saved: dict[int, tuple[Array, Array | None]] = {}

    def forward(self, inner: Function) -> Function:
        def run(x: Array, gamma: Array | None, beta: Array | None, **call: Any) -> Results:
            found = inner(x, gamma, beta, **call)
            self.saved[x.size] = found["y"].copy(), None if beta is None else beta.copy()
            return found

        return run

    def backward(self, inner: Function) -> Function:
        def run(dy: Array, x: Array, gamma: Array | None, mean: Any, rstd: Any, **call: Any) -> Results:
            y, beta = self.saved.get(x.size, (None, None))
            if y is None or y.shape != x.shape or not x.size:
                return inner(dy, x, gamma, mean, rstd, **call)
            job = kernel.job_for(kernel.STEPS, x.shape, call["axis"], call["epsilon"], 1, call["case"])
            xhat = kernel.read(job, y, "element", "y")
            if beta is not None:
                xhat = xhat - kernel.read(job, beta, "column", "beta")
            if gamma is not None:
                xhat = xhat / kernel.read(job, gamma, "column", "gamma")
            found = inner(dy, x, gamma, mean, rstd, **call)
            dgamma = kernel.columns(job, kernel.read(job, dy, "element", "dy") * xhat)
            return found | {"dgamma": dgamma.astype(job.affine).reshape(job.fold.reduced_shape)}

        return run


_recovered = _FromOutput()
plant(
    "xhat_from_y",
    "K",
    "dgamma from xhat recovered from y",
    like="microsoft/onnxruntime#4156",
    forward=_recovered.forward,
    backward=_recovered.backward,
    passes="backward",
)
plant(
    "gradients_exchanged",
    "K",
    "dgamma and dbeta exchanged",
    like="Oneflow-Inc/oneflow#6149",
    backward=_backward(lambda found: found | {"dgamma": found["dbeta"], "dbeta": found["dgamma"]}),
)
plant("dgamma_with_gamma", "K", "dgamma multiplied by gamma", backward=_with_gamma("dgamma"))
plant("dbeta_with_gamma", "K", "dbeta multiplied by gamma", backward=_with_gamma("dbeta"))
plant(
    "dgamma_missing",
    "K",
    "dgamma never written",
    like="unslothai/unsloth#4550",
    backward=_backward(lambda found: {k: v for k, v in found.items() if k != "dgamma"}),
)
plant(
    "dx_zero",
    "K",
    "the gradient stops: dx is 0",
    like="huggingface/candle#2168",
    backward=_backward(lambda found: found | {"dx": found["dx"] * np.asarray(0, found["dx"].dtype)}),
)
