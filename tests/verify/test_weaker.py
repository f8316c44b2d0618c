"""Weaknesses of real frameworks: each is UNSTABLE, by the name of what it does, and nothing else hides behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import lnbench
from lnbench import Case, FunctionBackend, Status
from lnbench.backend import Facts
from lnbench.verify.bound import judge, reference

Array = np.ndarray[Any, np.dtype[Any]]


def layer_norm(x: Array, epsilon: float) -> tuple[Array, Array]:
    """(y, std) in the dtype of x, with a one-pass variance that nothing keeps positive."""
    m = x.mean(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        std = np.sqrt((x * x).mean(1, keepdims=True) - m * m + x.dtype.type(epsilon))
    return (x - m) / std, std


def test_a_standard_deviation_of_a_negative_variance_is_unstable() -> None:
    case = Case(shape=(64, 256), epsilon=1e-12, gamma=False, beta=False)
    x = (1000 + 1e-3 * np.random.default_rng(0).normal(size=case.shape)).astype("float32")
    y, std = layer_norm(x, case.epsilon)
    assert np.isnan(std).any()
    mean = reference(case, "forward", {"x": x}, kind="std")["mean"]
    got = {"y": y, "mean": mean, "std": std}
    judged = judge(case, "forward", {"x": x}, got, Facts(statistics="std"), unsystematic=True)
    for name in ("y", "std"):
        assert judged[name].status is Status.UNSTABLE and "one-pass variance" in judged[name].reason, name


def test_a_standard_deviation_that_no_cancellation_explains_is_wrong() -> None:
    case = Case(shape=(4, 64), gamma=False, beta=False)
    x = np.random.default_rng(0).normal(size=case.shape).astype("float32")
    _, std = layer_norm(x, case.epsilon)
    std[2] = np.nan
    judged = judge(
        case, "forward", {"x": x}, {"std": std}, Facts(statistics="std"), unsystematic=True, require_all=False
    )
    assert judged["std"].status is Status.FAILED


@pytest.mark.parametrize(("factor", "said"), [(1.0, True), (1.0001, False)])
def test_float64_computed_in_float32_is_wrong_and_told_so(factor: float, said: bool) -> None:
    case = Case(shape=(8, 64), dtype="float64", gamma=False, beta=False)
    x = np.random.default_rng(0).normal(size=case.shape)
    y, _ = layer_norm(x.astype("float32"), case.epsilon)
    got = {"y": factor * y.astype("float64")}
    judged = judge(case, "forward", {"x": x}, got, Facts(statistics="none"), unsystematic=True, require_all=False)
    assert judged["y"].status is Status.FAILED
    assert ("computes in float32" in judged["y"].reason) == said


def flushing(facts: Mapping[str, str]) -> FunctionBackend:
    """The gradient of a formula that is differentiated step by step, where 1/std**3 underflows."""
    backend = FunctionBackend("flushing", dtypes=["float64"], facts={"statistics": "none", **facts})

    @backend.forward("layer_norm")
    def forward(x: Array, gamma: Array, beta: Array, *, axis: int, epsilon: float) -> dict[str, Array]:
        d = x - x.mean(1, keepdims=True)
        return {"y": d / np.sqrt((d * d).mean(1, keepdims=True) + epsilon)}

    @backend.backward("layer_norm")
    def backward(
        dy: Array, x: Array, gamma: Array, mean: None, none: None, *, axis: int, epsilon: float
    ) -> dict[str, Array]:
        d = x - x.mean(1, keepdims=True)
        r = 1 / np.sqrt((d * d).mean(1, keepdims=True) + epsilon)
        cube = np.where(r**3 < np.finfo(np.float64).tiny, 0.0, r**3)
        return {"dx": r * (dy - dy.mean(1, keepdims=True)) - d * (dy * d).mean(1, keepdims=True) * cube}

    return backend


@pytest.mark.parametrize(
    ("facts", "law", "status"),
    [
        ({"subnormals": "flush"}, "huge", Status.UNSTABLE),
        ({}, "huge", Status.FAILED),
        ({"subnormals": "flush"}, "normal", Status.PASSED),
    ],
)
def test_a_gradient_that_loses_a_flushed_term_is_unstable(facts: dict[str, str], law: str, status: Status) -> None:
    case = Case(shape=(5, 100), dtype="float64", law=law, gamma=False, beta=False)
    (found,) = lnbench.verify(flushing(facts), case, checks=["gradient"])
    assert found.status is status
    assert ("subnormal" in found.reason) == (status is Status.UNSTABLE)


def test_differences_of_a_forward_that_is_not_right_say_nothing() -> None:
    backend = FunctionBackend("short", dtypes=["float64"], facts={"statistics": "none"})

    @backend.forward("layer_norm")
    def forward(x: Array, gamma: Array, beta: Array, *, axis: int, epsilon: float) -> dict[str, Array]:
        return {"y": layer_norm(x.astype("float32"), epsilon)[0].astype("float64")}

    @backend.backward("layer_norm")
    def backward(
        dy: Array, x: Array, gamma: Array, mean: None, none: None, *, axis: int, epsilon: float
    ) -> dict[str, Array]:
        d = x - x.mean(1, keepdims=True)
        r = 1 / np.sqrt((d * d).mean(1, keepdims=True) + epsilon)
        xhat = d * r
        return {"dx": r * (dy - dy.mean(1, keepdims=True) - xhat * (dy * xhat).mean(1, keepdims=True))}

    case = Case(shape=(5, 100), dtype="float64", gamma=False, beta=False)
    found = {(v.pass_, v.check): v.status for v in lnbench.verify(backend, case, checks=["bound", "gradient"])}
    assert found == {("forward", "bound"): Status.FAILED, ("backward", "bound"): Status.PASSED}


def test_a_gradient_that_may_be_anything_is_not_compared() -> None:
    backend = flushing({})

    @backend.backward("layer_norm")
    def backward(
        dy: Array, x: Array, gamma: Array, mean: None, none: None, *, axis: int, epsilon: float
    ) -> dict[str, Array]:
        return {"dx": np.full_like(x, np.nan)}

    case = Case(
        shape=(6, 40), dtype="float64", epsilon=0.0, law=(("dy", "normal"), ("x", "tiny")), gamma=False, beta=False
    )
    found = lnbench.verify(backend, case, checks=["bound", "gradient"])
    assert not [v for v in found if v.check == "gradient"]
    (dx,) = [v for v in found if v.output == "dx"]
    assert dx.status is Status.EMPTY and dx.out_of_domain == 240
