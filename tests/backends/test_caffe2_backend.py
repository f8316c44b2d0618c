"""The model of Caffe2's LayerNorm against the formulas, its zero-size rules and the weakness it is there for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lnbench
from lnbench import Case, Status
from lnbench_backends import caffe2_backend as caffe2

Array = np.ndarray[Any, Any]


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_forward_and_gradient_are_layer_norm() -> None:
    x, gamma, beta, dy = draw(5, 7), draw(7, seed=1), draw(7, seed=2), draw(5, 7, seed=3)
    out = caffe2.layer_norm(x, gamma, beta, axis=1, epsilon=0.25)
    mean = x.mean(1, keepdims=True, dtype=np.float64)
    std = np.sqrt(x.var(1, keepdims=True, dtype=np.float64) + 0.25)
    xhat = (x - mean) / std
    np.testing.assert_allclose(out["y"], xhat * gamma + beta, atol=1e-5)
    np.testing.assert_allclose(out["mean"], mean, atol=1e-6)
    np.testing.assert_allclose(out["std"], std, rtol=1e-6)
    grad = caffe2.layer_norm_grad(dy, x, gamma, out["mean"], out["std"], axis=1, epsilon=0.25)
    g = dy * gamma
    dx = (g - g.mean(1, keepdims=True) - xhat * (g * xhat).mean(1, keepdims=True)) / std
    np.testing.assert_allclose(grad["dx"], dx, atol=1e-5)
    np.testing.assert_allclose(grad["dgamma"], (dy * xhat).sum(0), atol=1e-4)
    np.testing.assert_allclose(grad["dbeta"], dy.sum(0), atol=1e-5)


def test_statistics_have_one_trailing_axis() -> None:
    out = caffe2.layer_norm(draw(2, 3, 4, 5), None, None, axis=2, epsilon=1e-5)
    assert out["mean"].shape == out["std"].shape == (2, 3, 1)
    assert caffe2.layer_norm(draw(3, 4), None, None, axis=0, epsilon=1e-5)["mean"].shape == (1,)


def test_one_column_has_no_variance_and_empty_rows_have_std_of_root_epsilon() -> None:
    one = caffe2.layer_norm(np.full((3, 1), 1e6, np.float32), None, None, axis=1, epsilon=0.25)
    assert np.all(one["y"] == 0) and np.all(one["std"] == 0.5)
    empty = caffe2.layer_norm(draw(4, 0), None, None, axis=1, epsilon=0.25)
    assert np.all(empty["mean"] == 0) and np.all(empty["std"] == 0.5) and empty["y"].shape == (4, 0)


def test_the_variance_is_not_clamped() -> None:
    rows = np.float32(100) + np.float32(1e-3) * draw(64, 256)
    y = caffe2.layer_norm(rows, None, None, axis=1, epsilon=1e-5)["y"]
    share = np.isnan(y).all(1).mean()
    assert 0.1 < share < 0.7, "about a third of such rows has a negative variance"


def test_verification_names_the_one_pass_variance() -> None:
    case = Case(shape=(20, 100), law="offset", seed=1)
    reasons = {
        v.reason
        for v in lnbench.verify("lnbench_backends.caffe2_backend:Caffe2Backend", case)
        if v.status is Status.UNSTABLE
    }
    assert any("one-pass variance" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (Case(shape=(3,)), "rank 2"),
        (Case(shape=(3, 4), beta=False), "together or neither"),
        (Case(shape=(3, 4, 5), axis=(1,)), "last axes"),
        (Case(shape=(3, 4), dtype="float16"), "float16"),
        (Case(shape=(3, 4), dtype="float64"), "epsilon as float32"),
        (Case(shape=(3, 4), op="rms_norm"), "rms_norm"),
    ],
)
def test_what_the_operator_did_not_take_is_refused(case: Case, words: str) -> None:
    reason = caffe2.Caffe2Backend().supports(case)
    assert reason is not None and words in reason


def test_float64_has_a_forward_and_no_gradient() -> None:
    verdicts = lnbench.verify(
        "lnbench_backends.caffe2_backend:Caffe2Backend", Case(shape=(5, 8), dtype="float64", epsilon=0.25)
    )
    assert {v.status for v in verdicts if v.pass_ == "forward" and v.check == "bound"} == {Status.PASSED}
    assert {v.status for v in verdicts if v.pass_ == "backward"} == {Status.SKIPPED}
