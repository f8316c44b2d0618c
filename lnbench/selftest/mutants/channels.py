"""batch_norm, right and with planted bugs: statistics per channel, running state, inference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lnbench.operators.schema import Fold
from lnbench.selftest import kernel
from lnbench.selftest.kernel import STEPS, Array, Job, Results, affine, dtype_of, scaled
from lnbench.selftest.mutants._plant import Mutant, add


def _running(old: Array, new: Array, momentum: float) -> Array:
    return (1 - momentum) * old + momentum * new


def _gradient(job: Job, g: Array, xhat: Array, rstd: Array, training: bool) -> Array:
    return rstd * (g - job.average(g) - xhat * job.average(g * xhat)) if training else rstd * g


def _spread(job: Job, x: Array, mean: Array) -> tuple[Array, Array]:
    """The variance that normalizes and the one that enters the running state."""
    variance = kernel.variance(job, x, mean)
    return variance, variance * job.number(job.cols / max(job.cols - 1, 1))


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """The plug-in functions of batch_norm; a mutant replaces one of the formulas.

    axis: which axis is the channel. training: what the flag is taken for. momentum: what is used for it.
    used: the statistics of inference from (x's own mean and variance, the running ones).
    """

    axis: Callable[[int, int], int] = lambda axis, rank: axis % rank
    spread: Callable[[Job, Array, Array], tuple[Array, Array]] = _spread
    running: Callable[[Array, Array, float], Array] = _running
    training: Callable[[bool], bool] = bool
    inference_rstd: Callable[[Job, Array], Array] = kernel.rstd
    gradient: Callable[[Job, Array, Array, Array, bool], Array] = _gradient
    columns: Callable[[Job, Array], Array] = lambda job, a: job.total(a)
    late: bool = False
    empty_state: float = 1.0

    def forward(
        self, x: Array, gamma: Array | None, beta: Array | None, running_mean: Array, running_var: Array, **call: Any
    ) -> Results:
        job, training = self._job(x, call), self.training(call["training"])
        if not x.size:
            old = {
                "running_mean_out": running_mean * self.empty_state,
                "running_var_out": running_var * self.empty_state,
            }
            return {"y": np.empty(x.shape, job.storage)} | old
        values = job.fold.to_rows(x).astype(job.work)
        scale, shift = (None if a is None else a.reshape(-1, 1).astype(job.work) for a in (gamma, beta))
        state = [a.reshape(-1, 1).astype(job.work) for a in (running_mean, running_var)]
        if not training:
            r = self.inference_rstd(job, state[1])
            return {"y": self._stored(job, affine((values - state[0]) * r, scale, shift))}
        mean = kernel.mean(job, values)
        variance, unbiased = self.spread(job, values, mean)
        momentum = float(call["momentum"])
        new = self.running(state[0], mean, momentum), self.running(state[1], unbiased, momentum)
        m, v = new if self.late else (mean, variance)
        r = kernel.rstd(job, v)
        found = {"y": self._stored(job, affine((values - m) * r, scale, shift)), "mean": m.ravel(), "rstd": r.ravel()}
        return found | {"running_mean_out": new[0].ravel(), "running_var_out": new[1].ravel()}

    def backward(
        self,
        dy: Array,
        x: Array,
        gamma: Array | None,
        running_mean: Array,
        running_var: Array,
        mean: Array | None,
        rstd: Array | None,
        **call: Any,
    ) -> Results:
        job, training = self._job(x, call), self.training(call["training"])
        if not x.size:
            zeros = np.zeros(job.rows, job.affine)
            return {"dx": np.empty(x.shape, job.storage), "dgamma": zeros, "dbeta": zeros.copy()}
        values, cotangent = (job.fold.to_rows(a).astype(job.work) for a in (x, dy))
        if not training:
            m = running_mean.reshape(-1, 1).astype(job.work)
            r = self.inference_rstd(job, running_var.reshape(-1, 1).astype(job.work))
        elif mean is None or rstd is None:
            m = kernel.mean(job, values)
            r = kernel.rstd(job, self.spread(job, values, m)[0])
        else:
            m, r = (a.reshape(-1, 1).astype(job.work) for a in (mean, rstd))
        xhat = (values - m) * r
        scale = None if gamma is None else gamma.reshape(-1, 1).astype(job.work)
        dx = self.gradient(job, scaled(cotangent, scale), xhat, r, training)
        return {
            "dx": self._stored(job, dx),
            "dgamma": self.columns(job, cotangent * xhat).ravel().astype(job.affine),
            "dbeta": self.columns(job, cotangent).ravel().astype(job.affine),
        }

    def _job(self, x: Array, call: dict[str, Any]) -> Job:
        axis, case = self.axis(call["axis"], x.ndim), call["case"]
        fold = Fold(x.shape, tuple(a for a in range(x.ndim) if a != axis))
        work = np.dtype(np.float64 if case.dtype == "float64" else np.float32)
        types = dtype_of(case.dtype), dtype_of(case.affine_dtype)
        return Job(STEPS, fold, call["epsilon"], work, *types, call["threads"], case)

    def _stored(self, job: Job, rows: Array) -> Array:
        return job.fold.from_rows(rows.astype(job.storage))


def _plant(name: str, family: str, sentence: str, passes: tuple[str, ...], like: str = "", **formulas: Any) -> None:
    norm = BatchNorm(**formulas)
    add(Mutant(f"batch_{name}", family, f"batch_norm: {sentence}", like, passes, "batch_norm",
               forward=norm.forward, backward=norm.backward))  # fmt: skip


def _biased(job: Job, x: Array, mean: Array) -> tuple[Array, Array]:
    return kernel.variance(job, x, mean), kernel.variance(job, x, mean)


def _unbiased(job: Job, x: Array, mean: Array) -> tuple[Array, Array]:
    return _spread(job, x, mean)[1], _spread(job, x, mean)[1]


def _one_pass(job: Job, x: Array, mean: Array) -> tuple[Array, Array]:
    variance = np.maximum(job.average(x * x) - mean * mean, 0)
    return variance, variance * job.number(job.cols / max(job.cols - 1, 1))


def _first_image(job: Job, a: Array) -> Array:
    """Sums that stop behind the first half of batch and space."""
    return job.total(a[:, : (job.cols + 1) // 2])


_FORWARD, _BACKWARD, _BOTH = ("forward",), ("backward",), ("forward", "backward")

_plant("one_pass", "A", "variance as mean(x*x) - mean^2", _FORWARD, "tensorflow/tensorflow#25115", spread=_one_pass)
_plant("running_biased", "C", "the running variance takes the biased variance", _FORWARD, spread=_biased)
_plant("unbiased", "C", "normalizes by the unbiased variance", _FORWARD, spread=_unbiased)
_plant("momentum_reversed", "C", "momentum and 1 - momentum exchanged", _FORWARD,
       running=lambda old, new, momentum: momentum * old + (1 - momentum) * new)  # fmt: skip
_plant(
    "momentum_hard_wired",
    "C",
    "momentum always 0.1",
    _FORWARD,
    running=lambda old, new, momentum: 0.9 * old + 0.1 * new,
)
_plant("running_not_updated", "J", "the running statistics stay as they were", _FORWARD,
       running=lambda old, new, momentum: old)  # fmt: skip
_plant("normalized_by_running", "K", "training normalizes by the updated running statistics", _FORWARD, late=True)
_plant("inference_by_batch", "K", "inference uses the statistics of x", _BOTH, training=lambda flag: True)
_plant("inference_without_eps", "C", "inference forgets epsilon", _BOTH, "chainer/chainer#2214",
       inference_rstd=lambda job, variance: kernel.inverse_root(variance))  # fmt: skip
_plant("inference_eps_subtracted", "C", "inference subtracts epsilon", _BOTH, "flagos-ai/FlagGems#4955",
       inference_rstd=lambda job, variance: kernel.inverse_root(variance - job.number(job.epsilon)))  # fmt: skip
_plant("inference_deviation", "C", "the running variance taken for a deviation", _BOTH,
       inference_rstd=lambda job, variance: 1 / (variance + job.number(job.epsilon)))  # fmt: skip
_plant("dx_of_inference", "K", "training dx as gamma dy rstd", _BACKWARD,
       gradient=lambda job, g, xhat, rstd, training: rstd * g)  # fmt: skip
_plant("dx_of_training", "K", "inference dx with the terms of training", _BACKWARD, "mlpack/mlpack#1923",
       gradient=lambda job, g, xhat, rstd, training: _gradient(job, g, xhat, rstd, True))  # fmt: skip
_plant("half_of_batch", "F", "dgamma and dbeta over half of batch and space", _BACKWARD, columns=_first_image)
_plant("empty_state_nan", "G", "an empty batch makes the running statistics NaN", _FORWARD, "pytorch/pytorch#12013",
       empty_state=float("nan"))  # fmt: skip
