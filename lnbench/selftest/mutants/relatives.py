"""rms_norm, right and with planted bugs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lnbench.selftest import kernel
from lnbench.selftest.kernel import STEPS, Array, Job, Results, job_for, scaled
from lnbench.selftest.mutants._plant import Mutant, add


def rms(job: Job, x: Array) -> Array:
    """1 / sqrt(mean(x*x) + epsilon) of every row."""
    return kernel.rstd(job, job.average(x * x))


def rms_dx(job: Job, g: Array, xhat: Array, rstd: Array) -> Array:
    return rstd * (g - xhat * job.average(g * xhat))


@dataclass(frozen=True, slots=True)
class RmsNorm:
    """The plug-in functions of rms_norm; a mutant replaces one of the four formulas."""

    rstd: Callable[[Job, Array], Array] = rms
    output: Callable[[Array, Array | None], Array] = scaled
    dx: Callable[[Job, Array, Array, Array], Array] = rms_dx
    xhat: Callable[[Job, Array, Array], Array] = lambda job, x, rstd: x * rstd

    def forward(self, x: Array, gamma: Array | None, **call: Any) -> Results:
        job = job_for(STEPS, x.shape, call["axis"], call["epsilon"], call["threads"], call["case"])
        if not x.size:
            return {"y": np.empty(x.shape, job.storage)}
        values = kernel.read(job, x, "element", "x")
        rstd = self.rstd(job, values)
        scale = None if gamma is None else kernel.read(job, gamma, "column", "gamma")
        y = self.output(self.xhat(job, values, rstd), scale)
        return {"y": job.fold.from_rows(y.astype(job.storage)), "rstd": rstd.reshape(job.fold.statistic_shape)}

    def backward(self, dy: Array, x: Array, gamma: Array | None, rstd: Array | None, **call: Any) -> Results:
        job = job_for(STEPS, x.shape, call["axis"], call["epsilon"], call["threads"], call["case"])
        shape = job.fold.reduced_shape
        if not x.size:
            return {"dx": np.empty(x.shape, job.storage), "dgamma": np.zeros(shape, job.affine)}
        values, cotangent = (kernel.read(job, a, "element", "") for a in (x, dy))
        r = self.rstd(job, values) if rstd is None else kernel.read(job, rstd, "row", "rstd")
        scale = None if gamma is None else kernel.read(job, gamma, "column", "gamma")
        xhat = self.xhat(job, values, r)
        dx = self.dx(job, scaled(cotangent, scale), xhat, r)
        return {
            "dx": job.fold.from_rows(dx.astype(job.storage)),
            "dgamma": kernel.columns(job, cotangent * xhat).astype(job.affine).reshape(shape),
        }


def _plant(name: str, family: str, sentence: str, passes: tuple[str, ...], like: str = "", **formulas: Any) -> None:
    norm = RmsNorm(**formulas)
    add(Mutant(f"rms_{name}", family, f"rms_norm: {sentence}", like, passes, "rms_norm",
               forward=norm.forward, backward=norm.backward))  # fmt: skip


def _centred(job: Job, x: Array) -> Array:
    d = x - job.average(x)
    return kernel.rstd(job, job.average(d * d))


def _without_tail(job: Job, x: Array) -> Array:
    squares = x * x
    if job.cols > 4:
        squares[:, job.cols - job.cols % 4 :] = 0
    return kernel.rstd(job, job.average(squares))


_FORWARD, _BACKWARD, _BOTH = ("forward",), ("backward",), ("forward", "backward")

_plant("eps_outside_root", "C", "epsilon added to the root", _FORWARD,
       rstd=lambda job, x: 1 / (np.sqrt(job.average(x * x)) + job.number(job.epsilon)))  # fmt: skip
_plant("eps_forgotten", "C", "epsilon not added", _FORWARD, rstd=lambda job, x: 1 / np.sqrt(job.average(x * x)))
_plant("unbiased", "C", "mean square over N - 1", _FORWARD,
       rstd=lambda job, x: kernel.rstd(job, job.total(x * x) / job.number(max(job.cols - 1, 1))))  # fmt: skip
_plant("is_layer_norm", "K", "the deviation instead of the root mean square", _FORWARD, "keras-team/keras#19643",
       rstd=_centred)  # fmt: skip
_plant("absolute", "K", "computes with |x|", _BOTH, xhat=lambda job, x, rstd: np.abs(x) * rstd)
_plant("tail", "E", "elements behind the last whole vector are not squared", _FORWARD, rstd=_without_tail)
_plant("gamma_ignored", "L", "gamma not applied", _FORWARD, output=lambda xhat, gamma: xhat)
_plant("one_plus_gamma", "L", "1 + gamma instead of gamma", _FORWARD, "linkedin/Liger-Kernel#74",
       output=lambda xhat, gamma: xhat if gamma is None else xhat * (1 + gamma))  # fmt: skip
_plant("short_squares", "B", "squares formed in float16", _FORWARD, "nntrainer/nntrainer#3935",
       rstd=lambda job, x: kernel.rstd(job, job.average((x.astype(np.float16) ** 2).astype(job.work))))  # fmt: skip
_plant("dx_without_projection", "K", "dx without the xhat term", _BACKWARD, dx=lambda job, g, xhat, rstd: rstd * g)
_plant("dx_with_mean", "K", "dx of layer_norm", _BACKWARD,
       dx=lambda job, g, xhat, rstd: rms_dx(job, g, xhat, rstd) - rstd * job.average(g))  # fmt: skip
_plant("dx_row_zero", "F", "dx uses the product sum of row 0 for all rows", _BACKWARD,
       dx=lambda job, g, xhat, rstd: rstd * (g - xhat * job.average(g * xhat)[:1]))  # fmt: skip
