from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from lnbench.numerics import dtypes

NAMES = ("float16", "bfloat16", "float32", "float64")


@pytest.mark.parametrize("name", NAMES)
def test_constants_agree_with_the_machine_parameters(name: str) -> None:
    form, info = dtypes.get(name), ml_dtypes.finfo(dtypes.numpy(name))  # type: ignore[no-untyped-call]
    assert form.unit == float(info.eps) / 2
    assert form.largest == float(info.max)
    assert form.normal == float(info.smallest_normal)
    assert form.smallest == float(info.smallest_subnormal)


@pytest.mark.parametrize("name", ("float16", "float32", "float64"))
def test_ulp_is_the_spacing_towards_larger_magnitudes(name: str) -> None:
    dtype = dtypes.numpy(name)
    values = np.array([0.0, 1.0, 1.5, -3.0, 1000.0, 6e-8, dtypes.get(name).normal], dtype)
    assert (
        dtypes.ulp(values.astype(np.float64), name).tolist() == np.spacing(np.abs(values)).astype(np.float64).tolist()
    )


def test_ulp_of_bfloat16_has_eight_significant_bits() -> None:
    assert dtypes.ulp(np.array([1.0, 255.0]), "bfloat16").tolist() == [2.0**-7, 1.0]


def _nearest(value: float, name: str) -> float:
    """The nearest number of the format, ties to even, by exact arithmetic on its spacing."""
    spacing = Fraction(float(dtypes.ulp(np.array([value]), name)[0]))
    return float(round(Fraction(value) / spacing) * spacing)


@pytest.mark.parametrize("name", NAMES[:3])
def test_rounding_is_to_nearest_even_and_happens_once(name: str) -> None:
    rng = np.random.default_rng(1)
    unit = dtypes.get(name).unit
    # Just above and below midpoints: a detour over float32 would round them twice.
    values = np.concatenate([1 + unit * (2 * rng.integers(0, 50, 40) + 1) + s * 2.0**-45 for s in (-1, 0, 1)])
    values = np.concatenate([values, -values * 3.0, rng.standard_normal(50), [6e-8, 3e-8, 1e-41, 0.0]])
    rounded = dtypes.round_to(values, name)
    assert rounded.dtype == dtypes.numpy(name)
    assert rounded.astype(np.float64).tolist() == [_nearest(v, name) for v in values]


@pytest.mark.parametrize("name", NAMES[:3])
def test_rounding_beyond_the_range_gives_the_infinity_of_the_sign(name: str) -> None:
    largest = dtypes.get(name).largest
    values = np.array([largest, -largest, 2.0 * largest, -2.0 * largest, np.inf, np.nan])
    rounded = dtypes.round_to(values, name).astype(np.float64)
    assert rounded[:5].tolist() == [largest, -largest, np.inf, -np.inf, np.inf]
    assert np.isnan(rounded[5])


@pytest.mark.parametrize("name", NAMES)
def test_widening_is_exact_for_any_strides(name: str) -> None:
    array = np.random.default_rng(2).standard_normal((6, 8)).astype(dtypes.numpy(name))[::2, 1::3]
    wide = dtypes.widen(array)
    assert wide.dtype == np.float64
    assert wide.shape == array.shape
    assert wide.tolist() == [[float(v) for v in row] for row in array]
