"""`layer_norm`: standardizes the elements of each row, then scales and shifts them by column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from lnbench.case import Case
from lnbench.numerics.bounded import Bounded
from lnbench.numerics.functions import rsqrt, sqrt
from lnbench.numerics.reductions import mean, total_rows, variance
from lnbench.operators import _standardize
from lnbench.operators.schema import Cost, Fold, Operator, Tensor, resolve_axes, statistic_dtype, traffic


class LayerNorm(Operator):
    """Rows are the normalized groups; gamma and beta have one element per column."""

    name = "layer_norm"
    title = "Layer normalization"
    formula = "y = (x - mean(x)) / sqrt(var(x) + epsilon) * gamma + beta, var(x) = mean((x - mean(x))**2) over `axis`"
    gradient = (
        "with r = 1/sqrt(var(x) + epsilon), xhat = (x - mean(x)) * r and g = gamma * dy: "
        "dx = r * (g - mean(g) - xhat * mean(g * xhat)); dgamma = sum of dy * xhat, dbeta = sum of dy over the rows"
    )
    source = "Ba, Kiros and Hinton 2016, arXiv:1607.06450; PyTorch native_layer_norm, ONNX LayerNormalization, Caffe2"
    defaults: ClassVar[Mapping[str, Any]] = {"axis": -1, "epsilon": 1e-5}
    forward_inputs = ("x", "gamma", "beta")
    backward_inputs = ("dy", "x", "gamma", "mean", "stat")

    def fold(self, case: Case) -> Fold:
        return Fold(case.shape, resolve_axes(case.shape, case.axis))

    def tensors(self, case: Case, kind: str = "rstd", stat_dtype: str | None = None) -> Mapping[str, Tensor]:
        fold = self.fold(case)
        stat = stat_dtype or statistic_dtype(case.dtype)
        found = [Tensor("x", case.shape, case.dtype, "element", "data", "layout")]
        for name in _standardize.present(case, "gamma", "beta"):
            found.append(Tensor(name, fold.reduced_shape, case.affine_dtype, "column", "affine", "gamma_layout"))
        found.append(Tensor("y", case.shape, case.dtype, "element", "data", "out_layout"))
        if kind != "none":
            for name in ("mean", kind):
                found.append(Tensor(name, fold.statistic_shape, stat, "row", "statistic", required=False))
        found.append(Tensor("dy", case.shape, case.dtype, "element", "data", "dy_layout"))
        found.append(Tensor("dx", case.shape, case.dtype, "element", "data", "out_layout"))
        for name in _standardize.present(case, "dgamma", "dbeta"):
            found.append(Tensor(name, fold.reduced_shape, case.affine_dtype, "column", "affine"))
        return {t.name: t for t in found}

    def outputs(self, case: Case, pass_: str) -> tuple[str, ...]:
        return ("y", "mean", "stat") if pass_ == "forward" else ("dx", *_standardize.present(case, "dgamma", "dbeta"))

    def forward(self, t: Mapping[str, Bounded], case: Case) -> dict[str, Bounded]:
        x = t["x"]
        m = mean(x)
        v = variance(x, m)
        r = rsqrt(v + case.epsilon)
        y = _standardize.output(x, *_standardize.kept(m, r), t.get("gamma"), t.get("beta"))
        return {"y": y, "mean": m, "rstd": r, "std": sqrt(v + case.epsilon), "var": v}

    def backward(self, t: Mapping[str, Bounded], case: Case) -> dict[str, Bounded]:
        x, dy = t["x"], t["dy"]
        m = mean(x)
        m, r = _standardize.kept(m, rsqrt(variance(x, m) + case.epsilon))
        g, xhat = _standardize.early_scaled(dy, t.get("gamma")), _standardize.standardized(x, m, r)
        out = {"dx": _standardize.gradient(g, xhat, x, m, r)}
        if case.gamma:
            out["dgamma"] = total_rows(_standardize.scale_terms(dy, xhat, x, m, r))
        if case.beta:
            out["dbeta"] = total_rows(dy)
        return out

    def exact_rows(self, inputs: Mapping[str, np.ndarray], case: Case) -> np.ndarray:
        return _standardize.exact_rows(self.fold(case).to_rows(inputs["x"]), case.dtype)

    def cost(self, case: Case, pass_: str) -> Cost:
        fold = self.fold(case)
        n, affine = fold.rows * fold.cols, fold.cols * (case.gamma + case.beta)
        if pass_ == "forward":
            return Cost(traffic(case, elements=2 * n, affine=affine, statistics=2 * fold.rows), 7 * n)
        return Cost(traffic(case, elements=3 * n, affine=2 * affine, statistics=2 * fold.rows), 13 * n)


OPERATOR = LayerNorm()
