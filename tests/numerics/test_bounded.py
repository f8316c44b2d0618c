"""`Bounded` against exact rational arithmetic: float32 programs of each operation stay inside, and come near."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from lnbench.numerics.bounded import Bounded, constant, given
from lnbench.numerics.forms import either
from lnbench.numerics.functions import early, rsqrt, saved, sqrt, square
from lnbench.numerics.reductions import mean, total, total_rows, variance
from lnbench.numerics.rules import Arithmetic, Rules, gamma, summation_constant

F = np.float32
Array = np.ndarray[Any, np.dtype[Any]]
RNG = np.random.default_rng(5)


def _arithmetic(rows: int = 64, **rules: Any) -> Arithmetic:
    return Arithmetic.of(Rules(**rules), rows)


def _given(values: Array, ar: Arithmetic) -> Bounded:
    return given(values, "float32", ar)


def _budget(b: Bounded, got: Array) -> float:
    assert b.error is not None
    return float(np.max(np.abs(got.astype(np.float64) - b.arithmetic.wide.narrow(b.value)) / b.error))


A, B = RNG.standard_normal((2, 64, 33)).astype(F)


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide"])
def test_one_operation_is_bounded_by_half_an_ulp_and_comes_near_it(name: str) -> None:
    ar = _arithmetic()
    a, b = _given(A, ar), _given(B, ar)
    result = {"add": a + b, "subtract": a - b, "multiply": a * b, "divide": a / b}[name]
    assert 0.5 < _budget(result, getattr(np, name)(A, B)) <= 1.0


def test_operands_of_any_shape_broadcast_and_keep_their_errors() -> None:
    ar = _arithmetic()
    row, col = _given(A[:, :1], ar), _given(A[:1], ar)
    product = (row * row) * (col * col)
    squares, squares_col = A[:, :1] * A[:, :1], A[:1] * A[:1]
    assert 0.2 < _budget(product, squares * squares_col) <= 1.0
    assert _budget((col * col) * (row * row), squares_col * squares) <= 1.0
    assert _budget(1.0 - row * 2.0, F(1) - A[:, :1] * F(2)) <= 1.0


def test_values_are_exact_to_rational_arithmetic() -> None:
    ar = _arithmetic()
    result = _given(A, ar) * _given(B, ar) - _given(A, ar)
    for got, a, b in zip(result.value.ravel(), A.ravel(), B.ravel(), strict=True):
        exact = Fraction(float(a)) * Fraction(float(b)) - Fraction(float(a))
        assert abs(Fraction(float(got)) - exact) <= Fraction(2) ** -52 * (abs(exact) + abs(Fraction(float(a))))


def test_errors_propagate_to_first_order() -> None:
    ar = _arithmetic()
    a = _given(A, ar).plus_error(1e-3)
    b = _given(B, ar).plus_error(1e-3)
    p, q = np.abs(A).astype(np.float64), np.abs(B).astype(np.float64)
    for result, derivative in ((a + b, 2.0 + 0 * p), (a * b, p + q), (a * a, 2 * p)):
        assert result.error is not None
        assert np.all(result.error >= 1e-3 * derivative)
        assert np.all(result.error <= 1.01 * (1e-3 * derivative + 1e-6) + 1e-5)


def test_a_quotient_by_something_that_may_be_zero_is_undecided() -> None:
    ar = _arithmetic()
    quotient = _given(A, ar) / _given(B, ar).plus_error(10.0)
    assert quotient.error is not None
    assert np.isinf(quotient.error).all()


def test_roots_bound_programs_of_four_units_and_an_uncertain_argument() -> None:
    ar = _arithmetic()
    v = square(_given(A, ar)) + 1e-5
    computed = A * A + F(1e-5)
    assert 0.05 < _budget(rsqrt(v), F(1) / np.sqrt(computed)) <= 1.0
    assert 0.05 < _budget(sqrt(v), np.sqrt(computed)) <= 1.0
    moved = square(_given(A, ar)).plus_error(0.5)
    moved.floor = 0.0
    for shift in (0.5, -0.5):
        there = np.maximum(A.astype(np.float64) ** 2 + shift, 0.0) + 1e-5
        assert _budget(rsqrt(moved + 1e-5), 1.0 / np.sqrt(there)) <= 1.0
        assert _budget(sqrt(moved + 1e-5), np.sqrt(there)) <= 1.0


def test_a_sum_of_squares_plus_epsilon_never_reaches_zero() -> None:
    ar = _arithmetic()
    v = square(_given(A, ar)).plus_error(1e6)
    v.floor = 0.0
    error = rsqrt(v + 1e-5).error
    assert error is not None and np.isfinite(error).all()
    v.floor = None
    error = rsqrt(v + 1e-5).error
    assert error is not None and np.isinf(error).all()


def test_an_infinite_mean_square_has_the_exact_reciprocal_root_zero() -> None:
    with np.errstate(all="ignore"):
        r = rsqrt(mean(square(_given(np.array([[np.inf, 1.0]], F), _arithmetic()))) + 1e-6)
    assert r.value.tolist() == [[0.0]] and r.error is not None and r.error.tolist() == [[0.0]]


@pytest.mark.parametrize("tier", [0, 1, 2])
def test_sums_in_the_order_of_a_tier_stay_inside_it(tier: int) -> None:
    x = (RNG.standard_normal((16, 1000)) + 3.0).astype(F)
    got = np.cumsum(x, axis=1)[:, -1:] if tier < 2 else x.sum(axis=1, keepdims=True)
    ar = _arithmetic(tier=tier)
    assert 1e-3 < _budget(total(_given(x, ar)), got) <= 1.0
    assert 1e-3 < _budget(mean(_given(x, ar)), got / F(1000)) <= 1.0


def test_summation_constants_grow_as_the_tiers_say() -> None:
    assert [summation_constant(1000, t) for t in (0, 1, 2)] == [999, 2 * 32 + 4, 10 + 4]
    assert [summation_constant(n, 2) for n in (0, 1, 2, 3, 1024, 1025)] == [0, 0, 1, 2, 14, 15]
    assert all(summation_constant(n, 1) == min(n - 1, 2 * int(np.ceil(np.sqrt(n))) + 4) for n in range(1, 3000))
    assert gamma(4, 0.25) == np.inf


def test_the_mean_of_equal_small_integers_is_exact_for_powers_of_two() -> None:
    x = np.repeat(np.array([[3.0], [-7.0], [2.0**22], [0.1]], F), 8, axis=1)
    error = mean(_given(x, _arithmetic())).error
    assert error is not None
    assert [e == 0.0 for e in error.ravel()] == [True, True, False, False]
    odd = mean(_given(x[:, :7], _arithmetic())).error
    single = mean(_given(x[:, :1], _arithmetic())).error
    assert odd is not None and np.all(odd > 0)
    assert single is not None and np.all(single == 0)


def test_the_variance_covers_two_pass_and_welford_but_not_one_pass() -> None:
    x = (RNG.standard_normal((32, 256)) + 3000.0).astype(F)
    b = _given(x, _arithmetic())
    v = variance(b, mean(b))
    m = x.mean(axis=1, keepdims=True)
    two_pass = np.mean((x - m) ** 2, axis=1, keepdims=True)
    q, w = np.zeros((32, 1), F), np.zeros((32, 1), F)
    for k in range(256):
        d = x[:, k : k + 1] - w
        w += d / F(k + 1)
        q += d * (x[:, k : k + 1] - w)
    one_pass = np.mean(x * x, axis=1, keepdims=True) - m * m
    assert _budget(v, two_pass) <= 1.0
    assert _budget(v, q / F(256)) <= 1.0
    assert _budget(v, one_pass) > 1.0
    loose = _given(x, _arithmetic(one_pass=True))
    assert _budget(variance(loose, mean(loose)), one_pass) <= 1.0


def test_parts_of_a_sum_over_rows_add_up_to_the_whole() -> None:
    ar = _arithmetic(rows=64)
    whole = total_rows(_given(A, ar) * _given(B, ar))
    parts = [total_rows(_given(A[s], ar) * _given(B[s], ar)) for s in (slice(0, 10), slice(10, 64))]
    assert whole.error is not None and parts[0].error is not None and parts[1].error is not None
    np.testing.assert_allclose(parts[0].value + parts[1].value, whole.value, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(parts[0].error + parts[1].error, whole.error, rtol=1e-12)
    assert 1e-2 < _budget(whole, (A * B).sum(axis=0, keepdims=True)) <= 1.0


def test_either_propagates_what_came_in_once() -> None:
    ar = _arithmetic()
    x = _given((A + F(1000)).astype(F), ar)
    m = _given(np.full((64, 1), 1000.0, F), ar).plus_error(1e-2)
    r = _given(np.full((64, 1), 1.5, F), ar)
    both = either((x, m, r), lambda x, m, r: (x - m) * r, lambda x, m, r: x * r - m * r)
    alone = (x - m) * r
    expanded = x * r - m * r
    assert both.error is not None and alone.error is not None and expanded.error is not None
    assert np.all(both.error >= alone.error * (1 - 1e-6))
    # The expanded form's own roundings (about u |x r| twice), but the error of m only once.
    assert np.all(both.error <= 1.5e-2 * 1.01 + 2**-24 * 4 * 1500)
    assert _budget(both, ((A + F(1000)).astype(F) * F(1.5) - F(1500)).astype(F)) <= 1.0


def test_an_intermediate_beyond_the_range_is_marked_and_others_are_not() -> None:
    x = np.array([[1e30, 1.0], [2.0, 3.0]], F)
    b = square(_given(x, _arithmetic()))
    assert b.beyond is not None and b.beyond.tolist() == [[True, False], [False, False]]
    m = mean(b)
    assert m.beyond is not None and m.beyond.tolist() == [[True], [False]]
    assert (_given(x, _arithmetic()) + 1.0).beyond is None


def test_rules_add_their_roundings() -> None:
    ar = _arithmetic(storage="bfloat16", saved="bfloat16", early=True, flush=True)
    a = given(A, "float32", ar) * 1.0
    plain = a.error
    assert plain is not None
    for b in (saved(a), early(a)):
        assert b.error is not None
        assert np.all(b.error >= 2.0**-8 * np.abs(A))
    tiny = given(np.array([[1e-40, 1.0]], F), "float32", ar)
    assert tiny.error is not None and tiny.error[0, 0] > 0 and tiny.error[0, 1] == 0
    assert saved(given(A, "float32", _arithmetic()) * 1.0).error is not None
    assert early(given(A, "float32", _arithmetic())).error is None


def test_constants_of_the_formula_carry_their_rounding() -> None:
    assert constant(0.5, _arithmetic()).error is None
    error = constant(1e-5, _arithmetic()).error
    assert error is not None and abs(float(np.float32(1e-5)) - 1e-5) <= error[0, 0] <= 1e-12


def test_inputs_with_more_bits_than_the_arithmetic_are_rounded() -> None:
    wide = given(np.array([[0.1]]), "float64", _arithmetic())
    assert wide.error is not None and wide.error[0, 0] >= abs(float(F(0.1)) - 0.1)
