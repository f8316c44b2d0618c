from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from lnbench.numerics import wide
from lnbench.numerics.double_double import DoubleDouble

A, B = np.random.default_rng(3).standard_normal((2, 4, 9))
KINDS = [
    pytest.param(wide.double_double, 2.0**-100, id="double-double"),
    pytest.param(wide.float64, 2.0**-52, id="float64"),
]
if wide.has_wide_long_double():
    KINDS.append(pytest.param(wide.long_double, 2.0**-63, id="long double"))


def _exact(value: Any) -> list[Fraction]:
    if isinstance(value, DoubleDouble):
        pairs = zip(value.high.ravel(), value.low.ravel(), strict=True)
        return [Fraction(float(h)) + Fraction(float(low)) for h, low in pairs]
    # A long double splits into two doubles without loss.
    high = value.astype(np.float64)
    return [Fraction(float(h)) + Fraction(float(r)) for h, r in zip(high.ravel(), (value - high).ravel(), strict=True)]


def _close(got: Any, expected: list[Fraction], unit: float, scale: list[Fraction] | None = None) -> None:
    for g, e, s in zip(_exact(got), expected, scale or expected, strict=True):
        assert abs(g - e) <= Fraction(unit) * abs(s)


def _pairs() -> list[tuple[Fraction, Fraction]]:
    return [(Fraction(float(a)), Fraction(float(b))) for a, b in zip(A.ravel(), B.ravel(), strict=True)]


@pytest.mark.parametrize(("kind", "unit"), KINDS)
def test_the_four_operations_agree_with_rational_arithmetic(kind: wide.Wide, unit: float) -> None:
    a, b = kind.array(A), kind.array(B)
    _close(a + b, [x + y for x, y in _pairs()], unit)
    _close(a - b, [x - y for x, y in _pairs()], unit)
    _close(a * b, [x * y for x, y in _pairs()], unit)
    _close(a / b, [x / y for x, y in _pairs()], unit)


@pytest.mark.parametrize(("kind", "unit"), KINDS)
def test_roots_square_back_to_their_argument(kind: wide.Wide, unit: float) -> None:
    roots = _exact(kind.sqrt(kind.array(np.abs(A))))
    for root, (a, _) in zip(roots, _pairs(), strict=True):
        assert abs(root * root - abs(a)) <= 3 * Fraction(unit) * abs(a)


@pytest.mark.parametrize(("kind", "unit"), KINDS)
def test_sums_agree_with_rational_arithmetic(kind: wide.Wide, unit: float) -> None:
    rows = [[Fraction(float(v)) for v in row] for row in A]
    a = kind.array(A)
    _close(
        kind.sum_cols(a), [sum(r, Fraction(0)) for r in rows], 9 * unit, [sum(map(abs, r), Fraction(0)) for r in rows]
    )
    columns = list(zip(*rows, strict=True))
    sizes = [sum(map(abs, c), Fraction(0)) for c in columns]
    _close(kind.sum_rows(a), [sum(c, Fraction(0)) for c in columns], 4 * unit, sizes)
    _close(kind.sum_squares(a), [sum((v * v for v in r), Fraction(0)) for r in rows], 10 * unit)


@pytest.mark.parametrize(("kind", "unit"), KINDS)
def test_what_is_not_finite_stays_what_it_is(kind: wide.Wide, unit: float) -> None:
    with np.errstate(all="ignore"):
        odd = kind.array(np.array([[np.inf, -np.inf, np.nan, 0.0]]))
        assert kind.narrow(odd + 1.0).tolist()[0][:2] == [np.inf, -np.inf]
        assert np.isnan(kind.narrow(odd - odd))[0, :3].all()
        assert np.isnan(kind.narrow(odd * 0.0))[0, :3].all()
        assert kind.narrow(1.0 / odd).tolist()[0][:2] == [0.0, 0.0]
        assert kind.narrow(kind.sqrt(odd))[0, 3] == 0.0


@pytest.mark.parametrize(("kind", "unit"), KINDS)
def test_empty_sums_are_zero(kind: wide.Wide, unit: float) -> None:
    assert kind.narrow(kind.sum_cols(kind.array(np.zeros((3, 0))))).tolist() == [[0.0]] * 3
    assert kind.narrow(kind.sum_rows(kind.array(np.zeros((0, 3))))).tolist() == [[0.0] * 3]


def test_float64_programs_are_judged_in_something_wider() -> None:
    assert wide.choose("float32") is wide.float64
    assert wide.choose("float64") in (wide.long_double, wide.double_double)
