"""References of the operators against independent float64 formulas, complex-step gradients and hand calculation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lnbench.case import Case, freeze
from lnbench.errors import UsageError
from lnbench.numerics import dtypes
from lnbench.operators import registry
from lnbench.verify.bound import reference

Array = np.ndarray[Any, np.dtype[Any]]


def _inputs(case: Case, seed: int = 0) -> dict[str, Array]:
    rng, operator = np.random.default_rng(seed), registry.get(case.op)
    wanted = {*operator.forward_inputs, *operator.backward_inputs}
    out = {}
    for name, t in operator.tensors(case).items():
        if name in wanted and t.role != "statistic":
            values = rng.standard_normal(t.shape) * 2 + 1
            out[name] = (
                np.abs(values).astype(dtypes.numpy(t.dtype)) if name == "running_var" else values.astype(t.dtype)
            )
    return out


def _plain(case: Case, t: dict[str, Any]) -> Any:
    """y by the textbook, on float64 or complex arrays."""
    x, one, zero = t["x"], 1.0, 0.0
    if case.op == "batch_norm":
        at = tuple(-1 if a == case.axis % x.ndim else 1 for a in range(x.ndim))
        gamma, beta = (t[n].reshape(at) if n in t else d for n, d in (("gamma", one), ("beta", zero)))
        axes: Any = tuple(a for a in range(x.ndim) if a != case.axis % x.ndim)
        m, v = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True) if np.isrealobj(x) else None
        if not case.training:
            m, v = t["running_mean"].reshape(at), t["running_var"].reshape(at)
    else:
        fold = registry.get(case.op).fold(case)
        axes = fold.reduced
        at = tuple(n if a in axes else 1 for a, n in enumerate(x.shape))
        gamma, beta = (t[n].reshape(at) if n in t else d for n, d in (("gamma", one), ("beta", zero)))
        m, v = x.mean(axis=axes, keepdims=True), None
    if case.op == "rms_norm":
        return x / np.sqrt((x * x).mean(axis=axes, keepdims=True) + case.epsilon) * gamma
    if v is None:
        v = ((x - m) ** 2).mean(axis=axes, keepdims=True)
    return (x - m) / np.sqrt(v + case.epsilon) * gamma + beta


BN = {"training": True, "momentum": 0.1}
CASES = [
    Case(shape=(5, 7), dtype="float64"),
    Case(shape=(3, 4, 5), axis=1, dtype="float64", epsilon=0.5),
    Case(shape=(3, 4, 5, 2), axis=(1, 3), dtype="float64"),
    Case(shape=(6, 1), dtype="float64"),
    Case(shape=(4, 6), dtype="float64", gamma=False),
    Case(shape=(4, 6), dtype="float64", beta=False),
    Case(op="rms_norm", shape=(3, 2, 9), dtype="float64", epsilon=0.1),
    Case(op="rms_norm", shape=(4, 6), dtype="float64", gamma=False),
    Case(op="batch_norm", shape=(3, 4, 5), axis=1, dtype="float64", attributes=freeze(BN)),
    Case(op="batch_norm", shape=(3, 5, 4), axis=-1, dtype="float64", attributes=freeze({**BN, "training": False})),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.key)
def test_forward_agrees_with_the_textbook(case: Case) -> None:
    t = _inputs(case)
    got = reference(case, "forward", t)["y"]
    assert got.shape == case.shape
    np.testing.assert_allclose(got, _plain(case, t), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.key)
def test_backward_agrees_with_complex_step_differentiation(case: Case) -> None:
    t = _inputs(case)
    got = reference(case, "backward", t)
    for name, of in (("dx", "x"), ("dgamma", "gamma"), ("dbeta", "beta")):
        if name not in got:
            assert of not in t or case.op == "rms_norm"
            continue
        expected = np.empty(t[of].shape)
        for at in np.ndindex(*expected.shape):
            moved: dict[str, Any] = dict(t)
            moved[of] = t[of].astype(complex)
            moved[of][at] += 1e-30j
            expected[at] = (t["dy"] * _plain(case, moved)).sum().imag / 1e-30
        np.testing.assert_allclose(got[name], expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(("kind", "power"), [("rstd", -0.5), ("std", 0.5), ("var", 1.0)])
def test_statistics_come_in_every_kind(kind: str, power: float) -> None:
    case = Case(shape=(4, 6), epsilon=0.25)
    t = _inputs(case)
    got = reference(case, "forward", t, kind=kind, only=["mean", kind])
    assert set(got) == {"mean", kind}
    shift = 0.0 if kind == "var" else 0.25
    expected = (t["x"].astype(np.float64).var(axis=1, keepdims=True) + shift) ** power
    assert got[kind].dtype == np.float32 and got[kind].shape == (4, 1)
    np.testing.assert_allclose(got[kind], expected, rtol=1e-7)


def test_running_statistics_follow_the_unbiased_convention() -> None:
    case = Case(op="batch_norm", shape=(3, 2, 4), axis=1, attributes=freeze({**BN, "momentum": 0.25}))
    t = _inputs(case)
    got = reference(case, "forward", t)
    x = t["x"].astype(np.float64)
    mean, var = x.mean(axis=(0, 2)), x.var(axis=(0, 2), ddof=1)
    np.testing.assert_allclose(got["running_mean_out"], 0.75 * t["running_mean"] + 0.25 * mean, rtol=1e-6)
    np.testing.assert_allclose(got["running_var_out"], 0.75 * t["running_var"] + 0.25 * var, rtol=1e-6)


def test_an_empty_batch_leaves_the_running_statistics_as_they_were() -> None:
    case = Case(op="batch_norm", shape=(0, 2, 4), axis=1)
    t = _inputs(case)
    got = reference(case, "forward", t)
    assert got["running_mean_out"].tolist() == t["running_mean"].tolist()
    assert got["running_var_out"].tolist() == t["running_var"].tolist()


def test_one_element_per_channel_has_no_unbiased_variance() -> None:
    outputs = registry.get("batch_norm").outputs(Case(op="batch_norm", shape=(1, 3), axis=1), "forward")
    assert outputs == ("y", "mean", "stat", "running_mean_out")


def test_no_rows_give_zero_parameter_gradients_and_no_columns_give_empty_ones() -> None:
    none = Case(shape=(0, 4))
    got = reference(none, "backward", _inputs(none))
    assert got["dx"].shape == (0, 4) and got["dgamma"].tolist() == [0.0] * 4 == got["dbeta"].tolist()
    thin = Case(shape=(3, 0))
    assert {n: a.shape for n, a in reference(thin, "backward", _inputs(thin)).items()} == {
        "dx": (3, 0),
        "dgamma": (0,),
        "dbeta": (0,),
    }


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm", "batch_norm"])
def test_every_operator_describes_itself(name: str) -> None:
    operator = registry.get(name)
    for text in (operator.title, operator.formula, operator.gradient, operator.source):
        assert len(text) > 10
    assert {"axis", "epsilon"} <= set(operator.defaults)
    case = Case(op=name, shape=(2, 3, 4), axis=operator.defaults["axis"])
    tensors = operator.tensors(case)
    for pass_, inputs in (("forward", operator.forward_inputs), ("backward", operator.backward_inputs)):
        assert {n for n in inputs if n != "stat"} <= set(tensors)
        assert {n for n in operator.outputs(case, pass_) if n != "stat"} <= set(tensors)
        cost = operator.cost(case, pass_)
        assert cost.bytes >= 2 * case.bytes and cost.flops > 0
    assert "mean" not in operator.tensors(case, "none") and "rstd" not in operator.tensors(case, "none")
    assert operator.tensors(case, "std", "bfloat16")["std"].dtype == "bfloat16"


def test_costs_are_the_minimal_traffic() -> None:
    case = Case(shape=(8, 16))
    operator = registry.get("layer_norm")
    assert operator.cost(case, "forward").bytes == 2 * 8 * 16 * 4 + 2 * 16 * 4 + 8 * 8
    assert operator.cost(case, "backward").bytes == 3 * 8 * 16 * 4 + 4 * 16 * 4 + 8 * 8


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (Case(shape=(2, 3), axis=2), "out of range"),
        (Case(shape=(2, 3), axis=(1, -1)), "twice"),
        (Case(op="batch_norm", shape=(2, 3), axis=(0, 1)), "one channel axis"),
        (Case(op="batch_norm", shape=(2, 3), axis=5), "out of range"),
    ],
)
def test_a_bad_axis_is_a_usage_error(case: Case, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        registry.get(case.op).check(case)
