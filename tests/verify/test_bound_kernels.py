"""Plain NumPy kernels under `judge`: correct ones of different kinds are never accused, planted bugs always are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from lnbench import laws
from lnbench.backend import Facts
from lnbench.case import Case
from lnbench.numerics import dtypes
from lnbench.verify.bound import Judgement, judge
from lnbench.verify.verdict import Status

Array = Any
Arrays = dict[str, Array]
Sum = Callable[[Array], Array]


def pairwise(a: Array) -> Array:
    return a.sum(axis=1, keepdims=True, dtype=a.dtype)


def sequential(a: Array) -> Array:
    return np.cumsum(a, axis=1, dtype=a.dtype)[:, -1:]


def two_pass(x: Array, total: Sum) -> tuple[Array, Array]:
    n = x.dtype.type(x.shape[1])
    m = total(x) / n
    return m, total((x - m) * (x - m)) / n


def welford(x: Array, total: Sum) -> tuple[Array, Array]:
    m, q = np.zeros((2, len(x), 1), x.dtype)
    for k in range(x.shape[1]):
        d = x[:, k : k + 1] - m
        m = m + d / x.dtype.type(k + 1)
        q = q + d * (x[:, k : k + 1] - m)
    return m, q / x.dtype.type(x.shape[1])


def merged(x: Array, total: Sum) -> tuple[Array, Array]:
    """Chan's update over halves."""
    n = x.shape[1]
    if n <= 16:
        return welford(x, total)
    (m1, v1), (m2, v2) = merged(x[:, : n // 2], total), merged(x[:, n // 2 :], total)
    a, b, t = x.dtype.type(n // 2), x.dtype.type(n - n // 2), x.dtype.type(n)
    d = m2 - m1
    return m1 + d * (b / t), (v1 * a + v2 * b + d * d * (a * b / t)) / t


def one_pass(x: Array, total: Sum) -> tuple[Array, Array]:
    n = x.dtype.type(x.shape[1])
    m = total(x) / n
    return m, total(x * x) / n - m * m


def clamped(x: Array, total: Sum) -> tuple[Array, Array]:
    m, v = one_pass(x, total)
    return m, np.maximum(v, 0)


def unbiased(x: Array, total: Sum) -> tuple[Array, Array]:
    m, v = two_pass(x, total)
    return m, v * x.dtype.type(x.shape[1] / (x.shape[1] - 1))


def root(v: Array, epsilon: float) -> Array:
    return v.dtype.type(1) / np.sqrt(v + v.dtype.type(epsilon))


def root_of_14_bits(v: Array, epsilon: float) -> Array:
    bits = root(v, epsilon).view(np.int32)
    return ((bits + (1 << 9)) & ~((1 << 10) - 1)).view(np.float32)


def epsilon_outside(v: Array, epsilon: float) -> Array:
    return v.dtype.type(1) / (np.sqrt(v) + v.dtype.type(epsilon))


def direct(x: Array, m: Array, r: Array, g: Array, b: Array) -> Array:
    return (x - m) * r * g + b


def scale_first(x: Array, m: Array, r: Array, g: Array, b: Array) -> Array:
    return (x - m) * (r * g) + b


def fused(x: Array, m: Array, r: Array, g: Array, b: Array) -> Array:
    return (x * r - m * r) * g + b


def folded(x: Array, m: Array, r: Array, g: Array, b: Array) -> Array:
    return x * (r * g) + (b - m * (r * g))


def shift_scaled(x: Array, m: Array, r: Array, g: Array, b: Array) -> Array:
    return ((x - m) * r + b) * g


def projected(q: Array, x: Array, m: Array, r: Array, total: Sum) -> Array:
    n, h = x.dtype.type(x.shape[1]), (x - m) * r
    return r * (q - total(q) / n - h * (total(q * h) / n))


def affine(q: Array, x: Array, m: Array, r: Array, total: Sum) -> Array:
    n, db = x.dtype.type(x.shape[1]), total(q)
    b = (db * m - total(q * x)) * r * r * r / n
    return q * r + x * b + (-b * m - db * r / n)


def without_mean(q: Array, x: Array, m: Array, r: Array, total: Sum) -> Array:
    h = (x - m) * r
    return r * (q - h * (total(q * h) / x.dtype.type(x.shape[1])))


def without_projection(q: Array, x: Array, m: Array, r: Array, total: Sum) -> Array:
    return r * (q - total(q) / x.dtype.type(x.shape[1]))


@dataclass(frozen=True)
class Kernel:
    moments: Callable[[Array, Sum], tuple[Array, Array]] = two_pass
    total: Sum = pairwise
    root: Callable[[Array, float], Array] = root
    output: Callable[..., Array] = direct
    gradient: Callable[..., Array] = projected
    terms: Callable[..., Array] = lambda dy, x, m, r: dy * ((x - m) * r)

    def run(self, case: Case, t: Arrays) -> dict[str, Arrays]:
        work = np.float64 if case.dtype == "float64" else np.float32
        x, g, b, dy = (dtypes.widen(t[n], work) for n in ("x", "gamma", "beta", "dy"))
        with np.errstate(all="ignore"):
            m, v = self.moments(x, self.total)
            r = self.root(v, case.epsilon)
            forward = {"y": self.output(x, m, r, g, b)}
            backward = {
                "dx": self.gradient(dy * g, x, m, r, self.total),
                "dgamma": self.total(np.ascontiguousarray(self.terms(dy, x, m, r).T))[:, 0],
                "dbeta": self.total(np.ascontiguousarray(dy.T))[:, 0],
            }
            short = dtypes.numpy(case.dtype)
            forward = {n: a.astype(short) for n, a in forward.items()}
            return {
                "forward": {**forward, "mean": m, "rstd": r},
                "backward": {n: a.astype(short) for n, a in backward.items()},
            }


CORRECT = {
    "two-pass": Kernel(),
    "sequential": Kernel(total=sequential, output=scale_first),
    "welford": Kernel(moments=welford, total=sequential, output=folded, gradient=affine),
    "merged": Kernel(moments=merged, output=fused, terms=lambda dy, x, m, r: dy * x * r - dy * (m * r)),
}


@cache
def _inputs(case: Case) -> Arrays:
    return dict(laws.draw(case))


def _judged(kernel: Kernel, case: Case, **facts: str) -> dict[str, Judgement]:
    t = _inputs(case)
    out: dict[str, Judgement] = {}
    for pass_, got in kernel.run(case, t).items():
        out |= judge(case, pass_, t, got, Facts.of(facts), unsystematic=laws.is_unsystematic(case), forward=out)
    return out


LAWS = [n for n in laws.names() if "x" in laws.get(n).tensors]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", CORRECT)
def test_correct_kernels_are_never_accused(name: str, law: str) -> None:
    for dtype in ("float32", "float64", "bfloat16", "float16"):
        for shape, epsilon in (((6, 1), 1e-5), ((5, 2), 1e-5), ((6, 16), 1e-12), ((9, 257), 0.1), ((3, 769), 1e-5)):
            case = Case(shape=shape, law=law, dtype=dtype, epsilon=epsilon)
            for output, j in _judged(CORRECT[name], case).items():
                assert j.status in (Status.PASSED, Status.EMPTY), (case, output, j)


@pytest.mark.parametrize("law", ["normal", "offset", "decades", "one_spike", "near_epsilon"])
def test_the_bound_of_a_two_pass_kernel_is_approached(law: str) -> None:
    for n in (7, 256, 769):
        judged = _judged(Kernel(), Case(shape=(32, n), law=law))
        budgets = {o: j.budget for o, j in judged.items() if j.budget is not None}
        assert max(budgets.values()) <= 1.0
        assert max(budgets["y"], budgets["mean"]) >= 0.01 and budgets["dx"] >= 0.01


FORMULA = {
    "unbiased variance": (Kernel(moments=unbiased), "normal", {"y", "rstd", "dx", "dgamma"}),
    "rsqrt of 14 bits": (Kernel(root=root_of_14_bits), "normal", {"y", "rstd", "dx"}),
    "epsilon outside the root": (Kernel(root=epsilon_outside), "near_epsilon", {"y", "rstd", "dx", "dgamma"}),
    "beta before gamma": (Kernel(output=shift_scaled), "normal", {"y"}),
    "dx without the mean of g": (Kernel(gradient=without_mean), "normal", {"dx"}),
    "dx without the projection": (Kernel(gradient=without_projection), "normal", {"dx"}),
    "dgamma from x alone": (Kernel(terms=lambda dy, x, m, r: dy * x * r), "offset", {"dgamma"}),
}


@pytest.mark.parametrize("name", FORMULA)
@pytest.mark.parametrize("cols", [2, 7, 64, 769, 4096])
def test_a_wrong_formula_breaks_exactly_the_outputs_it_enters(name: str, cols: int) -> None:
    kernel, law, wrong = FORMULA[name]
    judged = _judged(kernel, Case(shape=(32, cols), law=law))
    broken = {o for o, j in judged.items() if j.status is not Status.PASSED}
    assert wrong <= broken <= wrong | {"dgamma"}
    assert all(judged[o].status is Status.FAILED and (judged[o].budget or 0) > 1 for o in wrong - {"dgamma"})


@pytest.mark.parametrize("moments", [one_pass, clamped])
@pytest.mark.parametrize("cols", [64, 4096, 65536])
def test_one_pass_variance_is_unstable_on_offset_rows_and_says_so(moments: Any, cols: int) -> None:
    judged = _judged(Kernel(moments=moments), Case(shape=(16, cols), law="offset"))
    for output in ("y", "rstd", "dx"):
        j = judged[output]
        assert j.status is Status.UNSTABLE and (j.budget or 0) > 1 and "one-pass variance" in j.reason, output
    assert judged["mean"].status is judged["dbeta"].status is Status.PASSED


def test_one_lost_row_of_8192_breaks_dgamma_and_dbeta() -> None:
    case = Case(shape=(8192, 16))
    t = _inputs(case)
    for lost in (0, 4321):
        dy = t["dy"].copy()
        dy[lost] = 0
        got = Kernel().run(case, {**t, "dy": dy})["backward"]
        got["dx"] = Kernel().run(case, t)["backward"]["dx"]
        judged = judge(case, "backward", t, got, Facts(), unsystematic=True)
        assert judged["dx"].status is Status.PASSED
        assert judged["dgamma"].status is judged["dbeta"].status is Status.FAILED


def test_sums_in_bfloat16_are_unstable_and_allowed_when_declared() -> None:
    case = Case(shape=(64, 48), dtype="bfloat16")
    t, short = _inputs(case), dtypes.numpy("bfloat16")

    def total(terms: Array) -> Array:
        out = np.zeros(terms.shape[1], short)
        for row in terms.astype(short):
            out = (out + row).astype(short)
        return out

    got = Kernel().run(case, t)["backward"]
    got["dbeta"] = total(t["dy"])
    judged = judge(case, "backward", t, got, Facts(), unsystematic=True)
    assert judged["dbeta"].status is Status.UNSTABLE and "sums" in judged["dbeta"].reason
    declared = judge(case, "backward", t, got, Facts(accumulate="storage"), unsystematic=True)
    assert declared["dbeta"].status is Status.PASSED


def test_statistics_in_bfloat16_are_unstable_in_backward_and_allowed_when_declared() -> None:
    case = Case(shape=(16, 96), dtype="bfloat16")
    t = _inputs(case)

    def rounded(x: Array, total: Sum) -> tuple[Array, Array]:
        m, v = two_pass(x, total)
        return dtypes.round_to(m, "bfloat16").astype(np.float32), v

    kernel = replace(Kernel(), moments=rounded)
    got = kernel.run(case, t)["backward"]
    judged = judge(case, "backward", t, got, Facts(), unsystematic=True)
    assert judged["dgamma"].status is Status.UNSTABLE and "statistic" in judged["dgamma"].reason
    declared = judge(case, "backward", t, got, Facts(statistics_dtype="storage"), unsystematic=True)
    assert {j.status for j in declared.values()} == {Status.PASSED}


def test_wide_accumulators_that_are_declared_are_held_to_less() -> None:
    case = Case(shape=(16, 4096), law="offset")
    plain = _judged(Kernel(total=sequential), case, accumulate="float64")
    assert plain["mean"].status is not Status.PASSED
    wide = Kernel(total=lambda a: a.sum(axis=1, keepdims=True, dtype=np.float64).astype(a.dtype))
    assert {j.status for j in _judged(wide, case, accumulate="float64").values()} == {Status.PASSED}
