"""`rms_norm`: divides each row by its root mean square, then scales it by column. There is no beta."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lnbench.case import Case
from lnbench.numerics.bounded import Bounded
from lnbench.numerics.forms import either
from lnbench.numerics.functions import early, rsqrt, saved, sqrt, square
from lnbench.numerics.reductions import mean, total, total_rows
from lnbench.operators._standardize import scaled
from lnbench.operators.schema import Cost, Fold, Operator, Tensor, resolve_axes, statistic_dtype, traffic


class RmsNorm(Operator):
    """Rows are the normalized groups; gamma has one element per column. `var` is the mean square; `beta` is ignored."""

    name = "rms_norm"
    title = "Root mean square normalization"
    formula = "y = x / sqrt(mean(x**2) + epsilon) * gamma over `axis`"
    gradient = (
        "with r = 1/sqrt(mean(x**2) + epsilon), xhat = x * r and g = gamma * dy: "
        "dx = r * (g - xhat * mean(g * xhat)); dgamma = sum of dy * xhat over the rows"
    )
    source = "Zhang and Sennrich 2019, arXiv:1910.07467; PyTorch rms_norm, ONNX RMSNormalization, Keras, Flax"
    defaults: ClassVar[Mapping[str, Any]] = {"axis": -1, "epsilon": 1e-6, "beta": False}
    statistics = ("stat",)
    forward_inputs = ("x", "gamma")
    backward_inputs = ("dy", "x", "gamma", "stat")

    def fold(self, case: Case) -> Fold:
        return Fold(case.shape, resolve_axes(case.shape, case.axis))

    def tensors(self, case: Case, kind: str = "rstd", stat_dtype: str | None = None) -> Mapping[str, Tensor]:
        fold = self.fold(case)
        found = [Tensor("x", case.shape, case.dtype, "element", "data", "layout")]
        if case.gamma:
            found.append(Tensor("gamma", fold.reduced_shape, case.affine_dtype, "column", "affine", "gamma_layout"))
        found.append(Tensor("y", case.shape, case.dtype, "element", "data", "out_layout"))
        if kind != "none":
            dtype = stat_dtype or statistic_dtype(case.dtype)
            found.append(Tensor(kind, fold.statistic_shape, dtype, "row", "statistic", required=False))
        found.append(Tensor("dy", case.shape, case.dtype, "element", "data", "dy_layout"))
        found.append(Tensor("dx", case.shape, case.dtype, "element", "data", "out_layout"))
        if case.gamma:
            found.append(Tensor("dgamma", fold.reduced_shape, case.affine_dtype, "column", "affine"))
        return {t.name: t for t in found}

    def outputs(self, case: Case, pass_: str) -> tuple[str, ...]:
        return ("y", "stat") if pass_ == "forward" else ("dx", "dgamma") if case.gamma else ("dx",)

    def forward(self, t: Mapping[str, Bounded], case: Case) -> dict[str, Bounded]:
        x = t["x"]
        q = mean(square(x))
        q.floor = 0.0
        r = rsqrt(q + case.epsilon)
        y = scaled(early(x * saved(r, converted=True)), t.get("gamma"))
        return {"y": y, "rstd": r, "std": sqrt(q + case.epsilon), "var": q}

    def backward(self, t: Mapping[str, Bounded], case: Case) -> dict[str, Bounded]:
        x, dy = t["x"], t["dy"]
        q = mean(square(x))
        q.floor = 0.0
        r = saved(rsqrt(q + case.epsilon), converted=True)
        out = {"dx": _gradient(dy, x, r, t.get("gamma"))}
        if case.gamma:
            out["dgamma"] = total_rows(dy * early(x * r))
        return out

    def cost(self, case: Case, pass_: str) -> Cost:
        fold = self.fold(case)
        n, affine = fold.rows * fold.cols, fold.cols * case.gamma
        if pass_ == "forward":
            return Cost(traffic(case, elements=2 * n, affine=affine, statistics=fold.rows), 5 * n)
        return Cost(traffic(case, elements=3 * n, affine=2 * affine, statistics=fold.rows), 10 * n)


def _gradient(dy: Bounded, x: Bounded, r: Bounded, gamma: Bounded | None) -> Bounded:
    def direct(dy: Bounded, x: Bounded, r: Bounded, gamma: Bounded | None) -> Bounded:
        g, xhat = early(scaled(dy, gamma)), early(x * r)
        return r * (g - xhat * mean(g * xhat))

    def affine(dy: Bounded, x: Bounded, r: Bounded, gamma: Bounded | None) -> Bounded:
        g = early(scaled(dy, gamma))
        return g * r - x * (total(g * x) * (r * r * r) / float(x.shape[1]))

    return either((dy, x, r, gamma), direct, affine)


OPERATOR = RmsNorm()
