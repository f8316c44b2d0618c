"""What `judge` does with shapes, dtypes, NaN, infinities, overflow, and cases that decide nothing."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from lnbench.backend import Facts
from lnbench.case import Case
from lnbench.numerics import dtypes
from lnbench.operators import registry
from lnbench.verify.bound import Judgement, judge, reference
from lnbench.verify.verdict import Status

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = dict[str, Array]
F = np.float32


def _inputs(case: Case, x: Array | None = None, scale: float = 1.0) -> dict[str, Array]:
    rng, operator = np.random.default_rng(1), registry.get(case.op)
    t = operator.tensors(case)
    names = [n for n in {*operator.forward_inputs, *operator.backward_inputs} if n in t and t[n].role != "statistic"]
    out = {n: (rng.standard_normal(t[n].shape) * scale + 0.5).astype(dtypes.numpy(t[n].dtype)) for n in sorted(names)}
    if x is not None:
        out["x"] = x.astype(dtypes.numpy(case.dtype))
    return out


def _judge(
    case: Case, pass_: str, inputs: dict[str, Array], got: dict[str, Array], **facts: str
) -> dict[str, Judgement]:
    return judge(case, pass_, inputs, got, Facts.of(facts), unsystematic=True, grade=True)


CASE = Case(shape=(4, 6))


def test_correctly_rounded_results_pass_the_best_tier() -> None:
    inputs = _inputs(CASE)
    for pass_ in ("forward", "backward"):
        for name, j in _judge(CASE, pass_, inputs, reference(CASE, pass_, inputs)).items():
            assert (j.status, j.tier, j.undecided, j.out_of_domain) == (Status.PASSED, 2, 0, 0), name
            assert j.budget is not None and j.budget < 1.0
            assert j.effective_a is not None and j.effective_a <= 5
            assert j.resolution is not None and 0 < j.resolution < 1e-4


def test_one_wrong_element_fails_and_is_located() -> None:
    case = Case(shape=(3, 4, 5), axis=(0, 2))
    inputs = _inputs(case)
    got = reference(case, "forward", inputs)
    got["y"][1, 2, 3] += F(1e-3)
    j = _judge(case, "forward", inputs, got)["y"]
    assert j.status is Status.FAILED and j.worst_index == (1, 2, 3) and j.tier is None
    assert j.reason.startswith("1 of 60 elements of y")
    assert j.got == float(got["y"][1, 2, 3]) and j.budget is not None and j.budget > 10
    assert (
        j.bound is not None and j.expected is not None and abs(j.got - j.expected) == pytest.approx(j.budget * j.bound)
    )


def test_every_element_of_every_output_is_held_to_the_resolution() -> None:
    for pass_ in ("forward", "backward"):
        inputs = _inputs(CASE)
        right = reference(CASE, pass_, inputs)
        for name, j in _judge(CASE, pass_, inputs, right).items():
            assert j.resolution is not None
            for at in np.ndindex(*right[name].shape):
                wrong = {n: a.copy() for n, a in right.items()}
                wrong[name][at] += F(1.5 * j.resolution * np.abs(right[name]).max())
                assert _judge(CASE, pass_, inputs, wrong)[name].status is not Status.PASSED


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda y: y.astype(np.float64), "dtype float64; expected float32"),
        (lambda y: y[:, :5], "20 elements"),
        (lambda y: y.reshape(6, 4), r"shape \[6, 4\]"),
        (lambda y: y.ravel(), r"shape \[24\]"),
    ],
)
def test_a_wrong_dtype_or_shape_is_a_failure_in_words(wrong: Any, words: str) -> None:
    inputs = _inputs(CASE)
    got = reference(CASE, "forward", inputs)
    got["y"] = wrong(got["y"])
    j = _judge(CASE, "forward", inputs, got)["y"]
    assert j.status is Status.FAILED
    assert re.search(words, j.reason)


def test_statistics_may_have_any_shape_with_the_same_elements() -> None:
    inputs = _inputs(CASE)
    got = reference(CASE, "forward", inputs)
    got["mean"], got["rstd"] = got["mean"].ravel(), got["rstd"].reshape(2, 2)
    assert {j.status for j in _judge(CASE, "forward", inputs, got).values()} == {Status.PASSED}


def test_only_required_outputs_must_be_there() -> None:
    inputs = _inputs(CASE)
    got = reference(CASE, "forward", inputs)
    only_y = _judge(CASE, "forward", inputs, {"y": got["y"], "extra": got["y"]})
    assert set(only_y) == {"y"}
    without = _judge(CASE, "forward", inputs, {"mean": got["mean"]})
    assert without["y"].status is Status.FAILED and "not returned" in without["y"].reason
    assert set(judge(CASE, "forward", inputs, {}, Facts(), unsystematic=True, require_all=False)) == set()


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_a_special_row_must_be_special_and_only_it(special: float) -> None:
    x = np.random.default_rng(2).standard_normal((4, 6))
    x[2, 3] = special
    inputs = _inputs(CASE, x)
    for pass_ in ("forward", "backward"):
        right = reference(CASE, pass_, inputs)
        assert {j.status for j in _judge(CASE, pass_, inputs, right).values()} == {Status.PASSED}
        for name in right.keys() - {"dbeta"}:
            swallowed = {
                n: np.nan_to_num(a, nan=1.0, posinf=1.0, neginf=1.0) if n == name else a for n, a in right.items()
            }
            assert _judge(CASE, pass_, inputs, swallowed)[name].status is Status.FAILED
    spread = reference(CASE, "forward", inputs)
    spread["y"][1, 0] = np.nan
    assert _judge(CASE, "forward", inputs, spread)["y"].status is Status.FAILED


def test_an_infinite_row_may_have_any_statistic_that_is_not_finite() -> None:
    x = np.ones((4, 6))
    x[0, 0] = np.inf
    inputs = _inputs(CASE, x)
    got = reference(CASE, "forward", inputs)
    got["mean"][0], got["rstd"][0] = np.nan, np.inf
    assert {j.status for j in _judge(CASE, "forward", inputs, got).values()} == {Status.PASSED}
    got["y"][0, 1] = np.inf
    assert _judge(CASE, "forward", inputs, got)["y"].status is Status.FAILED


def test_an_infinite_dy_may_give_infinity_or_nan() -> None:
    inputs = _inputs(CASE)
    inputs["dy"][1, 2] = np.inf
    got = reference(CASE, "backward", inputs)
    got["dx"][1] = np.nan
    judged = _judge(CASE, "backward", inputs, got)
    assert {j.status for j in judged.values()} == {Status.PASSED}
    got["dbeta"][2] = 1.0
    assert _judge(CASE, "backward", inputs, got)["dbeta"].status is Status.FAILED


def test_rms_norm_of_an_infinite_row_is_zero_beside_the_infinity() -> None:
    case = Case(op="rms_norm", shape=(2, 4))
    inputs = _inputs(case, np.array([[np.inf, 1, 2, 3], [1, 2, 3, 4.0]]))
    got = reference(case, "forward", inputs)
    assert np.isnan(got["y"][0, 0]) and np.all(got["y"][0, 1:] == 0)
    assert _judge(case, "forward", inputs, got)["y"].status is Status.PASSED


def test_overflow_of_the_store_must_be_the_infinity_of_its_sign() -> None:
    case = Case(shape=(2, 4), dtype="float16")
    inputs = _inputs(case, np.array([[1, 2, 3, 4.0], [4, 3, 2, 1.0]]))
    inputs["gamma"][:] = np.float16(60000)
    got = reference(case, "forward", inputs)
    assert np.isinf(got["y"]).sum() == 4
    assert _judge(case, "forward", inputs, got)["y"].status is Status.PASSED
    for wrong in (np.float16(65504), np.float16(np.nan), -got["y"][0, 0]):
        bad = {n: a.copy() for n, a in got.items()}
        bad["y"][0, 0] = wrong
        assert _judge(case, "forward", inputs, bad)["y"].status is not Status.PASSED


def test_beyond_the_range_of_the_arithmetic_anything_may_come() -> None:
    x = np.random.default_rng(3).standard_normal((4, 6))
    x[1] *= 1e30
    inputs = _inputs(CASE, x)
    got = reference(CASE, "forward", inputs)
    got["y"][1], got["rstd"][1] = np.nan, 0.0
    judged = _judge(CASE, "forward", inputs, got)
    assert judged["y"].status is Status.PASSED and judged["y"].out_of_domain == 6 and judged["y"].compared == 18
    assert judged["rstd"].out_of_domain == 1
    got["y"][2, 0] = np.nan
    assert _judge(CASE, "forward", inputs, got)["y"].status is Status.FAILED


def test_a_declared_domain_excuses_what_lies_outside() -> None:
    x = np.random.default_rng(3).standard_normal((4, 6))
    x[1] *= 1e6
    inputs = _inputs(CASE, x)
    got = reference(CASE, "forward", inputs)
    got["y"][1] = np.nan
    assert _judge(CASE, "forward", inputs, got)["y"].status is Status.FAILED
    assert _judge(CASE, "forward", inputs, got, domain="1000")["y"].status is Status.PASSED


def test_undecided_elements_may_be_anything_but_nan_unless_epsilon_is_zero() -> None:
    constant = np.full((4, 6), 0.1)
    constant[0] = [1, 2, 3, 4, 5, 6]
    for epsilon, wanted in ((0.0, Status.PASSED), (1e-30, Status.FAILED)):
        case = Case(shape=(4, 6), epsilon=epsilon, dtype="float32")
        inputs = _inputs(case, constant)
        got = reference(case, "forward", inputs)
        got["y"][1:] = 7.0
        judged = _judge(case, "forward", inputs, got)["y"]
        if epsilon == 0.0:
            assert judged.status is Status.PASSED and judged.undecided == 18
        got["y"][1:] = np.nan
        assert (_judge(case, "forward", inputs, got)["y"].status is Status.PASSED) is (wanted is Status.PASSED)


def test_a_case_that_decides_nothing_is_empty() -> None:
    inputs = _inputs(CASE, np.random.default_rng(3).standard_normal((4, 6)) * 1e30)
    got = {"y": reference(CASE, "forward", inputs)["y"]}
    j = _judge(CASE, "forward", inputs, got)["y"]
    assert j.status is Status.EMPTY and j.compared == 0 and "no element" in j.reason


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)])
def test_size_zero_of_the_right_shape_passes(shape: tuple[int, ...]) -> None:
    case = Case(shape=shape)
    inputs = _inputs(case)
    for pass_ in ("forward", "backward"):
        got = reference(case, pass_, inputs)
        assert {j.status for j in _judge(case, pass_, inputs, got).values()} == {Status.PASSED}
    got = reference(case, "backward", inputs)
    if shape == (0, 4):
        got["dgamma"][1] = np.nan
        assert _judge(case, "backward", inputs, got)["dgamma"].status is Status.FAILED
    got["dx"] = got["dx"].reshape(-1)
    assert _judge(case, "backward", inputs, got)["dx"].status is Status.FAILED


def test_strides_do_not_matter() -> None:
    case = Case(shape=(5, 4, 6), axis=(0, 2))
    inputs = _inputs(case)
    odd = {n: np.repeat(a, 2, axis=-1)[..., ::2] for n, a in inputs.items()}
    odd["x"] = np.ascontiguousarray(inputs["x"].T).T
    got = reference(case, "backward", odd)
    assert all(np.array_equal(got[n], a) for n, a in reference(case, "backward", inputs).items())
    assert {j.status for j in _judge(case, "backward", odd, got).values()} == {Status.PASSED}
