"""`batch_norm`: standardizes each channel over batch and space, scales and shifts it, and keeps running statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from lnbench.case import Case
from lnbench.errors import UsageError
from lnbench.numerics.bounded import Bounded
from lnbench.numerics.forms import either
from lnbench.numerics.functions import rsqrt, sqrt
from lnbench.numerics.reductions import mean, total, variance
from lnbench.operators import _standardize
from lnbench.operators.schema import Attribute, Cost, Fold, Operator, Tensor, resolve_axes, statistic_dtype, traffic

RUNNING = ("running_mean", "running_var")


class BatchNorm(Operator):
    """Rows are the channels (`axis` is the channel axis); gamma, beta and the state have one element per channel.

    The state before a call is `running_mean` and `running_var`; training returns the state after it under the names
    `running_mean_out` and `running_var_out`. The running variance is the unbiased one, as in PyTorch, so it has no
    update when a channel has one element; an empty batch leaves the state as it was.
    """

    name = "batch_norm"
    title = "Batch normalization"
    formula = (
        "training: y = (x - mean(x)) / sqrt(var(x) + epsilon) * gamma + beta per channel, "
        "var(x) = mean((x - mean(x))**2), "
        "running_mean_out = (1 - momentum) * running_mean + momentum * mean(x), "
        "running_var_out = (1 - momentum) * running_var + momentum * var(x) * n / (n - 1); "
        "inference: y = (x - running_mean) / sqrt(running_var + epsilon) * gamma + beta"
    )
    gradient = (
        "with r = 1/sqrt(var + epsilon), xhat = (x - mean) * r and g = gamma * dy: "
        "training dx = r * (g - mean(g) - xhat * mean(g * xhat)), inference dx = r * g; "
        "dgamma = sum of dy * xhat, dbeta = sum of dy over each channel"
    )
    source = "Ioffe and Szegedy 2015, arXiv:1502.03167; PyTorch batch_norm, ONNX BatchNormalization-15"
    attributes = (
        Attribute("training", bool, True, "normalize by the statistics of x, and update the running ones"),
        Attribute(
            "momentum",
            float,
            0.1,
            "weight of the batch in the running statistics: running = (1 - momentum) * running + momentum * batch",
            lambda value: 0.0 <= value <= 1.0,
            "a number from 0 to 1",
        ),
    )
    defaults: ClassVar[Mapping[str, Any]] = {"axis": 1, "epsilon": 1e-5}
    default_laws: ClassVar[Mapping[str, str]] = {"running_var": "positive"}
    forward_inputs = ("x", "gamma", "beta", *RUNNING)
    backward_inputs = ("dy", "x", "gamma", *RUNNING, "mean", "stat")

    def fold(self, case: Case) -> Fold:
        rank = len(case.shape)
        if not isinstance(case.axis, int):
            raise UsageError(f"axis of batch_norm is {list(case.axis)}; give one channel axis")
        resolve_axes(case.shape, case.axis)
        return Fold(case.shape, tuple(a for a in range(rank) if a != case.axis % rank))

    def tensors(self, case: Case, kind: str = "rstd", stat_dtype: str | None = None) -> Mapping[str, Tensor]:
        fold = self.fold(case)
        state, channels = statistic_dtype(case.dtype), (fold.rows,)
        found = [Tensor("x", case.shape, case.dtype, "element", "data", "layout")]
        for name in _standardize.present(case, "gamma", "beta"):
            found.append(Tensor(name, channels, case.affine_dtype, "row", "affine", "gamma_layout"))
        for name in RUNNING:
            found.append(Tensor(name, channels, state, "row", "state"))
        found.append(Tensor("y", case.shape, case.dtype, "element", "data", "out_layout"))
        if kind != "none" and _is_training(case):
            for name in ("mean", kind):
                found.append(Tensor(name, channels, stat_dtype or state, "row", "statistic", required=False))
        for name in self.outputs(case, "forward")[3:]:
            found.append(Tensor(name, channels, state, "row", "state", required=False))
        found.append(Tensor("dy", case.shape, case.dtype, "element", "data", "dy_layout"))
        found.append(Tensor("dx", case.shape, case.dtype, "element", "data", "out_layout"))
        for name in _standardize.present(case, "dgamma", "dbeta"):
            found.append(Tensor(name, channels, case.affine_dtype, "row", "affine"))
        return {t.name: t for t in found}

    def outputs(self, case: Case, pass_: str) -> tuple[str, ...]:
        if pass_ == "backward":
            return ("dx", *_standardize.present(case, "dgamma", "dbeta"))
        if not _is_training(case):
            return ("y",)
        state = ("running_mean_out",) if self.fold(case).cols == 1 else ("running_mean_out", "running_var_out")
        return ("y", "mean", "stat", *state)

    def forward(self, t: Mapping[str, Bounded], case: Case) -> dict[str, Bounded]:
        x, gamma, beta = t["x"], t.get("gamma"), t.get("beta")
        if not _is_training(case):
            r = rsqrt(t["running_var"] + case.epsilon)
            return {"y": _standardize.output(x, t["running_mean"], r, gamma, beta)}
        n = x.shape[1]
        m = mean(x)
        v = variance(x, m)
        r = rsqrt(v + case.epsilon)
        out = {"mean": m, "rstd": r, "std": sqrt(v + case.epsilon), "var": v}
        out["y"] = _standardize.output(x, *_standardize.kept(m, r), gamma, beta)
        out["running_mean_out"] = _updated(t["running_mean"], m, _momentum(case), n)
        if n != 1:
            unbiased = v * (n / (n - 1.0))
            out["running_var_out"] = _updated(t["running_var"], unbiased, _momentum(case), n)
        return out

    def backward(self, t: Mapping[str, Bounded], case: Case) -> dict[str, Bounded]:
        x, dy = t["x"], t["dy"]
        g = _standardize.early_scaled(dy, t.get("gamma"))
        if _is_training(case):
            m = mean(x)
            m, r = _standardize.kept(m, rsqrt(variance(x, m) + case.epsilon))
        else:
            m, r = t["running_mean"], rsqrt(t["running_var"] + case.epsilon)
        xhat = _standardize.standardized(x, m, r)
        out = {"dx": _standardize.gradient(g, xhat, x, m, r) if _is_training(case) else g * r}
        if case.gamma:
            out["dgamma"] = _scale_gradient(dy, xhat, x, m, r)
        if case.beta:
            out["dbeta"] = total(dy)
        return out

    def exact_rows(self, inputs: Mapping[str, np.ndarray], case: Case) -> np.ndarray | None:
        return _standardize.exact_rows(self.fold(case).to_rows(inputs["x"]), case.dtype) if _is_training(case) else None

    def cost(self, case: Case, pass_: str) -> Cost:
        """Minimal traffic as if a channel stayed in cache between the two sweeps over it."""
        fold = self.fold(case)
        n, affine = fold.rows * fold.cols, fold.rows * (case.gamma + case.beta)
        if pass_ == "forward":
            statistics = 6 if _is_training(case) else 2
            return Cost(traffic(case, elements=2 * n, affine=affine, statistics=statistics * fold.rows), 7 * n)
        return Cost(traffic(case, elements=3 * n, affine=2 * affine, statistics=2 * fold.rows), 13 * n)


def _is_training(case: Case) -> bool:
    return bool(getattr(case, "training", True))


def _momentum(case: Case) -> float:
    return float(getattr(case, "momentum", 0.1))


def _updated(running: Bounded, batch: Bounded, momentum: float, n: int) -> Bounded:
    if n == 0:
        return running

    def weighted(running: Bounded, batch: Bounded) -> Bounded:
        return running * (1.0 - momentum) + batch * momentum

    def stepped(running: Bounded, batch: Bounded) -> Bounded:
        return running + (batch - running) * momentum

    return either((running, batch), weighted, stepped)


def _scale_gradient(dy: Bounded, xhat: Bounded, x: Bounded, m: Bounded, r: Bounded) -> Bounded:
    def direct(dy: Bounded, xhat: Bounded, x: Bounded, m: Bounded, r: Bounded) -> Bounded:
        return total(dy * xhat)

    def of_sums(dy: Bounded, xhat: Bounded, x: Bounded, m: Bounded, r: Bounded) -> Bounded:
        # (sum(dy x) - mean sum(dy)) rstd, as Caffe2's SpatialBN has it.
        return (total(dy * x) - m * total(dy)) * r

    return either((dy, xhat, x, m, r), direct, of_sums)


OPERATOR = BatchNorm()
