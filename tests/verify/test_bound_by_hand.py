"""The evaluated bounds against bounds derived by hand, against exact rational values, and in double-double."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from lnbench import laws
from lnbench.backend import Facts
from lnbench.case import Case
from lnbench.numerics import bounded, wide
from lnbench.numerics.rules import gamma, summation_constant
from lnbench.verify import sweep
from lnbench.verify.bound import expected_arrays, judge, reference

Array = Any
U = 2.0**-24


class ByHand:
    """Rounding-error bounds of two-pass layer_norm in float32, term by term (Higham 2002, chapters 3 and 4)."""

    def __init__(self, t: dict[str, Array], epsilon: float, tier: int):
        x, self.g, self.b, self.dy = (t[n].astype(np.float64) for n in ("x", "gamma", "beta", "dy"))
        rows, n = x.shape
        self.rows, self.tier, self.a = rows, tier, summation_constant(n, tier)
        mu = x.mean(axis=1, keepdims=True)
        var = ((x - mu) ** 2).mean(axis=1, keepdims=True)
        self.s = np.sqrt(var + epsilon)
        self.xhat = (x - mu) / self.s
        self.delta = gamma(self.a + 2, U) * np.abs(x).mean(axis=1, keepdims=True)
        rho, k = var / (var + epsilon), gamma(self.a + 5, U)
        up = k * rho + (1 + k) * (self.delta / self.s) ** 2
        self.eps_s = np.maximum(1 - 1 / np.sqrt(1 + up), 1 / np.sqrt(1 - k * rho) - 1) + 4 * U
        fused = 3 * U * (np.abs(x) + np.abs(mu)) / self.s
        self.e = self.delta / self.s * (1 + self.eps_s) + np.abs(self.xhat) * (self.eps_s + 2 * U) + fused

    def y(self) -> Array:
        scaled = self.g * self.xhat
        return np.abs(self.g) * self.e + 2 * U * np.abs(scaled) + U * np.abs(self.b) + 2 * U * np.abs(scaled + self.b)

    def dx(self) -> Array:
        def mean(a: Array) -> Array:
            return a.mean(axis=1, keepdims=True)

        g = self.g * self.dy
        h, size = mean(g * self.xhat), np.abs(self.xhat) + self.e
        dx = (g - mean(g) - self.xhat * h) / self.s
        eg = gamma(self.a + 3, U) * mean(np.abs(g))
        eh = gamma(self.a + 4, U) * mean(np.abs(g) * size) + mean(np.abs(g) * self.e)
        t = U * np.abs(g) + eg + np.abs(h) * self.e + size * eh
        t += 3 * U * (np.abs(g) + np.abs(mean(g)) + np.abs(self.xhat * h))
        return t / self.s * (1 + self.eps_s) + (self.eps_s + 2 * U) * np.abs(dx)

    def dgamma(self) -> Array:
        k = gamma(summation_constant(self.rows, self.tier) + 2, U)
        size = np.abs(self.xhat) + self.e
        return (np.abs(self.dy) * self.e).sum(axis=0) + k * (np.abs(self.dy) * size).sum(axis=0)

    def dbeta(self) -> Array:
        return gamma(summation_constant(self.rows, self.tier), U) * np.abs(self.dy).sum(axis=0)


@pytest.mark.parametrize("law", ["normal", "decades", "near_epsilon", "one_spike", "integers"])
@pytest.mark.parametrize("tier", [0, 1, 2])
@pytest.mark.parametrize("cols", [5, 64, 1000])
def test_evaluated_bounds_agree_with_those_by_hand_within_a_factor_4(cols: int, tier: int, law: str) -> None:
    case = Case(shape=(23, cols), law=law)
    t = dict(laws.draw(case))
    hand = ByHand(t, case.epsilon, tier)
    found: dict[str, tuple[Array, Array]] = {}
    for pass_ in ("forward", "backward"):
        found |= expected_arrays(case, pass_, t, Facts(), unsystematic=True, tier=tier)
    for name in ("y", "dx", "dgamma", "dbeta"):
        expected = getattr(hand, name)()
        tiny = 1e-6 * expected.max()
        ratio = (found[name][1] + tiny) / (expected + tiny)
        # Where the mean dominates, the bound also covers Welford's update, which the one by hand does not.
        assert 0.25 <= np.median(ratio) <= 4.0, name
        assert ratio.min() >= 0.25, name
    ratio = (found["mean"][1] / hand.delta).ravel()
    assert ratio.min() >= 0.25 and ratio.max() <= 4.0


def _exact_layer_norm(t: dict[str, Array]) -> tuple[list[list[Fraction]], list[list[Fraction]]]:
    """y and dx in rational arithmetic for rows whose var + epsilon is the square 4: epsilon = 4 - var is exact."""
    x, g, b, dy = (
        [[Fraction(float(v)) for v in row] for row in np.atleast_2d(t[n])] for n in ("x", "gamma", "beta", "dy")
    )
    ys, dxs = [], []
    for row, d in zip(x, dy, strict=True):
        n = len(row)
        mu = sum(row, Fraction(0)) / n
        xhat = [(v - mu) / 2 for v in row]
        ys.append([h * w + c for h, w, c in zip(xhat, g[0], b[0], strict=True)])
        q = [w * v for w, v in zip(g[0], d, strict=True)]
        mean_g = sum(q, Fraction(0)) / n
        h = sum((a * c for a, c in zip(q, xhat, strict=True)), Fraction(0)) / n
        dxs.append([(a - mean_g - c * h) / 2 for a, c in zip(q, xhat, strict=True)])
    return ys, dxs


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_expected_values_equal_rational_arithmetic_far_below_the_bound(dtype: str) -> None:
    rng = np.random.default_rng(7)
    x = np.array([[1, -1, 1, -1, 1, -1, 1, -1], [101, 99, 99, 101, 101, 99, 99, 101]], dtype)
    case = Case(shape=(2, 8), dtype=dtype, epsilon=3.0)  # var = 1, so sqrt(var + epsilon) = 2
    t = {"x": x, **{n: rng.standard_normal(s).astype(dtype) for n, s in (("gamma", 8), ("beta", 8), ("dy", (2, 8)))}}
    y, dx = _exact_layer_norm(t)
    for pass_, name, exact in (("forward", "y", y), ("backward", "dx", dx)):
        rounded = reference(case, pass_, t)[name]
        _, bound = expected_arrays(case, pass_, t, Facts(), unsystematic=True, tier=2)[name]
        for got, e, allowed in zip(rounded.ravel(), (v for r in exact for v in r), bound.ravel(), strict=True):
            assert got == (np.float32(float(e)) if dtype == "float32" else float(e))
            assert abs(Fraction(float(got)) - e) < Fraction(float(allowed))


@pytest.mark.parametrize("pass_", ["forward", "backward"])
def test_double_double_serves_float64_as_long_double_does(monkeypatch: pytest.MonkeyPatch, pass_: str) -> None:
    for law in ("normal", "offset", "nan_row", "tiny"):
        case = Case(shape=(11, 37), dtype="float64", law=law)
        t = dict(laws.draw(case))
        got = reference(case, pass_, t)
        usual = expected_arrays(case, pass_, t, Facts(), unsystematic=True)
        monkeypatch.setattr(wide, "has_wide_long_double", lambda: False)
        forced = expected_arrays(case, pass_, t, Facts(), unsystematic=True)
        judged = judge(case, pass_, t, reference(case, pass_, t), Facts(), unsystematic=True)
        monkeypatch.undo()
        assert {j.status.value for j in judged.values()} == {"PASSED"}
        for name, (value, bound) in usual.items():
            np.testing.assert_allclose(forced[name][1], bound, rtol=1e-2)
            np.testing.assert_array_equal(np.isnan(forced[name][0]), np.isnan(value))
            fine = np.isfinite(value) & np.isfinite(bound)
            assert np.all(np.abs(forced[name][0] - value)[fine] <= 1e-2 * bound[fine] + np.spacing(np.abs(value[fine])))
            np.testing.assert_array_equal(got[name], reference(case, pass_, t)[name])


def test_float_work_inside_a_double_kernel_is_seen() -> None:
    case = Case(shape=(8, 33), dtype="float64")
    t = dict(laws.draw(case))
    got = reference(case, "forward", t)
    got["y"] = got["y"].astype(np.float32).astype(np.float64)
    j = judge(case, "forward", t, got, Facts(), unsystematic=True)["y"]
    assert j.status.value == "FAILED" and j.budget is not None and j.budget > 1e5


def test_threads_and_blocks_do_not_change_a_judgement(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(shape=(700, 500))
    t = dict(laws.draw(case))
    for pass_ in ("forward", "backward"):
        got = reference(case, pass_, t)
        large = judge(case, pass_, t, got, Facts(), unsystematic=True)
        monkeypatch.setattr(sweep, "SMALL_ELEMENTS", 1 << 30)
        small = judge(case, pass_, t, got, Facts(), unsystematic=True)
        monkeypatch.undo()
        for name, j in large.items():
            other = small[name]
            assert (j.status, j.compared, j.tier) == (other.status, other.compared, other.tier)
            assert j.budget == pytest.approx(other.budget, rel=1e-4)
            assert j.resolution == pytest.approx(other.resolution, rel=1e-4)


@pytest.mark.parametrize("law", ["normal", "overflow", "nan_row"])
@pytest.mark.parametrize("pass_", ["forward", "backward"])
def test_rows_done_in_pieces_have_the_same_bounds(monkeypatch: pytest.MonkeyPatch, pass_: str, law: str) -> None:
    for dtype, op in (("float32", "layer_norm"), ("float64", "layer_norm"), ("bfloat16", "rms_norm")):
        case = Case(shape=(5, 333), dtype=dtype, op=op, law=law)
        t = dict(laws.draw(case))
        whole = expected_arrays(case, pass_, t, Facts(), unsystematic=True)
        monkeypatch.setattr(bounded, "LONG", 64)
        pieces = expected_arrays(case, pass_, t, Facts(), unsystematic=True)
        monkeypatch.undo()
        for name, (value, bound) in whole.items():
            np.testing.assert_array_equal(pieces[name][0], value)
            np.testing.assert_allclose(pieces[name][1], bound, rtol=1e-12)


def test_memory_grows_by_few_copies_of_a_long_row() -> None:
    case = Case(shape=(1, 1 << 21))
    rng = np.random.default_rng(0)
    t = {n: rng.standard_normal(1 << 21, dtype=np.float32) for n in ("x", "gamma", "beta")}
    t["x"] = t["x"][None]
    got = {"y": reference(case, "forward", t)["y"]}
    tracemalloc.start()
    try:
        judge(case, "forward", t, got, Facts(), unsystematic=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * 8 * case.elements
