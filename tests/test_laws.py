"""Laws: what is drawn is legal, repeatable and hostile in the way its description says."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lnbench import laws
from lnbench.case import DTYPES, Case
from lnbench.errors import UsageError
from lnbench.laws import drawing
from lnbench.laws.schema import KINDS, log_uniform, standardized, stream
from lnbench.numerics import dtypes

NOT_FINITE = ("nan_row", "inf_row")
X_LAWS = [n for n in laws.names() if "x" in laws.get(n).tensors]
DY_LAWS = [n for n in laws.names() if "dy" in laws.get(n).tensors]


def wide(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.float64)


def x_of(law: str, shape: tuple[int, ...], dtype: str = "float32", **keys: object) -> np.ndarray:
    return wide(laws.draw(Case(shape=shape, dtype=dtype, law=law, **keys))["x"])  # type: ignore[arg-type]


def case_with(law: str, **keys: object) -> Case:
    """A case in which `law` draws a tensor that it suits."""
    suits = laws.get(law).tensors
    if "x" in suits:
        return Case(law=law, **keys)  # type: ignore[arg-type]
    if "state" in suits:
        return Case(op="batch_norm", axis=1, law={"running_var": law}, **keys)  # type: ignore[arg-type]
    return Case(law={"dy" if "dy" in suits else "gamma": law}, **keys)  # type: ignore[arg-type]


# Every law.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("law", laws.names())
def test_a_law_draws_every_shape_in_the_exact_dtype(law: str, dtype: str) -> None:
    for shape in ((1, 1), (3, 1), (1, 7), (7, 5), (33, 130), (0, 4), (4, 0)):
        case = case_with(law, shape=shape, dtype=dtype)
        drawn = laws.draw(case)
        for name, tensor in laws.inputs_of(case).items():
            assert drawn[name].shape == tensor.shape
            assert drawn[name].dtype == dtypes.numpy(tensor.dtype)
            assert drawn[name].flags.c_contiguous
            assert law in NOT_FINITE or np.isfinite(wide(drawn[name])).all()


@pytest.mark.parametrize("law", laws.names())
def test_a_law_says_in_one_sentence_what_it_reveals(law: str) -> None:
    found = laws.get(law)
    assert found.reveals.endswith(".") and 30 < len(found.reveals) < 120
    assert found.tensors and set(found.tensors) <= set(KINDS)


def test_numbers_are_the_same_in_every_process() -> None:
    code = (
        "from lnbench import laws; from lnbench.case import Case; import hashlib;"
        "d = laws.draw(Case(shape=(9, 40), law='offset', seed=5)); h = hashlib.sha256();"
        "[h.update(v.tobytes()) for v in d.values()]; print(h.hexdigest())"
    )
    digest = hashlib.sha256()
    for array in laws.draw(Case(shape=(9, 40), law="offset", seed=5)).values():
        digest.update(array.tobytes())
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == digest.hexdigest()


def test_numbers_are_the_same_on_every_machine() -> None:
    # Integers and powers of two only, so that no library function takes part.
    assert stream(0, "integers", "x", 0, 0).integers(-8, 9, 6).tolist() == [-2, 7, 2, 0, -7, -8]
    drawn = log_uniform(stream(1), 1.0, 1024.0, (3,))
    assert drawn.tolist() == pytest.approx([177.964214870839, 24.907217306960845, 1.055370715380435], rel=1e-14)


def test_seed_variant_tensor_and_law_all_change_the_numbers() -> None:
    base = Case(shape=(5, 40))
    seen = [laws.draw(base)["x"], laws.draw(base.replace(seed=1))["x"], laws.draw(base, variant=1)["x"]]
    seen += [laws.draw(base)["beta"], laws.draw(base.replace(law="relu"))["x"]]
    assert len({a.tobytes() for a in seen}) == len(seen)
    assert not np.array_equal(laws.draw(base)["gamma"], laws.draw(base)["beta"])


@pytest.mark.parametrize("law", ["normal", "impulses", "decades", "nan_row", "scale_steps", "chunks"])
def test_numbers_do_not_depend_on_who_draws_a_block(law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "BLOCK", 1000)
    case = Case(shape=(64, 96), law=law)
    many = laws.draw(case)
    monkeypatch.setattr(drawing, "_each", lambda function, starts: [function(s) for s in reversed(starts)])
    one = laws.draw(case)
    assert all(many[n].tobytes() == one[n].tobytes() for n in many)


def test_a_large_tensor_is_drawn_in_blocks() -> None:
    case = Case(shape=(8192, 1024), passes="forward")
    tracemalloc.start()
    drawn = laws.draw(case)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < drawn["x"].nbytes + (24 << 20)


def test_axes_that_do_not_fold_get_the_same_rows() -> None:
    middle = Case(shape=(4, 6, 5), axis=(1,), law="constant_rows")
    x = laws.draw(middle)["x"]
    assert np.array_equal(x, np.repeat(x[:, :1, :], 6, axis=1))
    assert len(np.unique(x[:, 0, :])) > 3


def test_a_forward_case_has_no_dy_and_absent_parameters_are_not_drawn() -> None:
    assert list(laws.draw(Case(shape=(2, 3), passes="forward", beta=False))) == ["x", "gamma"]
    assert list(laws.draw(Case(shape=(2, 3), gamma=False, beta=False))) == ["x", "dy"]


def test_a_broadcast_dy_has_equal_rows() -> None:
    dy = laws.draw(Case(shape=(3, 4, 10), dy_layout="broadcast"))["dy"].reshape(12, 10)
    assert (dy == dy[0]).all() and len(np.unique(dy[0])) == 10


def test_state_has_its_own_laws() -> None:
    drawn = laws.draw(Case(op="batch_norm", axis=1, shape=(3, 50, 4)))
    assert (drawn["running_var"] >= 0.25).all() and (drawn["running_var"] <= 4).all()
    assert (drawn["running_mean"] < 0).any()


# Names.


def test_an_unknown_law_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="did you mean 'offset'"):
        laws.get("ofset")


def test_a_law_that_does_not_suit_its_tensor_is_refused() -> None:
    with pytest.raises(UsageError, match="'one_hot' does not suit x; it suits dy"):
        laws.draw(Case(shape=(2, 3), law="one_hot"))


def test_only_laws_with_random_looking_rounding_are_unsystematic() -> None:
    chosen = {n for n in laws.names() if laws.get(n).unsystematic}
    assert chosen == {"normal", "uniform", "offset", "signed", "mixed"}
    assert laws.is_unsystematic(Case(shape=(2, 3), law="offset"))
    assert not laws.is_unsystematic(Case(shape=(2, 3), law="impulses"))
    spiky_dy = Case(shape=(2, 3), law=(("dy", "one_hot"),))
    assert laws.is_unsystematic(spiky_dy, "forward") and not laws.is_unsystematic(spiky_dy, "backward")
    assert not laws.is_unsystematic(Case(shape=(2, 3), inputs="x.npz"))


# What each law promises.


@pytest.mark.parametrize(("dtype", "low", "high"), [("float32", 3e3, 2e4), ("float16", 150, 800), ("bfloat16", 20, 80)])
def test_offset_reaches_the_distance_that_the_dtype_can_hold(dtype: str, low: float, high: float) -> None:
    x = x_of("offset", (300, 256), dtype)
    distance = np.abs(x.mean(1)) / x.std(1)
    assert distance.min() > 5 and low < distance.max() < high


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_decades_has_one_row_1e8_times_the_smallest(dtype: str) -> None:
    spread = x_of("decades", (64, 100), dtype).std(1)
    assert spread.argmax() == 32 and spread.max() / np.sort(spread)[-2] > 1e3
    assert spread.max() / spread.min() > 2e7


@pytest.mark.parametrize("epsilon", [1e-12, 1e-5, 0.5])
def test_near_epsilon_keeps_each_variance_within_a_factor_of_four(epsilon: float) -> None:
    variance = x_of("near_epsilon", (50, 20), epsilon=epsilon).var(1)
    assert (variance > 0.24 * epsilon).all() and (variance < 4.1 * epsilon).all()


def test_constant_rows_are_small_integers_with_a_zero_row() -> None:
    x = x_of("constant_rows", (20, 64), "float16")
    assert (x == x[:, :1]).all() and (x == np.rint(x)).all()
    assert x[0, 0] == 14 and x[1, 0] == 0 and x[2, 0] == 1234


def test_spikes_stand_first_last_and_anywhere() -> None:
    place = np.abs(x_of("one_spike", (40, 97))).argmax(1)
    assert {0, 96} < set(place.tolist()) and len(set(place.tolist())) > 5
    tail = np.abs(x_of("tail_spike", (40, 97))).argmax(1)
    assert tail.min() == 80 and tail.max() == 96


@pytest.mark.parametrize("shape", [(64, 96), (33, 257), (3, 50)])
def test_impulses_touch_every_column_and_every_row(shape: tuple[int, int]) -> None:
    large = np.abs(x_of("impulses", shape)) > 1
    assert (large.sum(0) >= 1).all() and (large.sum(1) >= 1).all()
    assert large.mean() < 2 / min(shape)


def test_chunks_have_means_of_their_own() -> None:
    x = x_of("chunks", (4, 3000))
    means = x.reshape(4, -1, 50).mean(2)
    assert means.std(1).min() > 30


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_huge_squares_pass_the_half_range_and_stay_inside_the_arithmetic(dtype: str) -> None:
    x = x_of("huge", (20, 300), dtype)
    limit = float(np.finfo(np.float64 if dtype == "float64" else np.float32).max)
    assert (x.var(1) * 300 > 65504).all() and (np.abs(x - x.mean(1, keepdims=True)).max(1) > 256).all()
    assert (
        np.square(x / 1e150).sum(1).max() < limit / 1e300 if dtype == "float64" else np.square(x).sum(1).max() < limit
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormal_numbers_are_multiples_of_the_smallest_one(dtype: str) -> None:
    steps = x_of("subnormal", (5, 33), dtype) / dtypes.get(dtype).smallest
    assert (steps == np.rint(steps)).all() and np.abs(steps).max() > 50


def test_half_range_has_squares_beyond_float16_and_below_it() -> None:
    largest = np.abs(x_of("half_range", (10, 64))).max(1)
    assert (largest[::2] ** 2 > 65504).all() and (largest[1::2] ** 2 < 2e-5).all() and largest.max() <= 60000


def test_unlike_rows_stand_in_every_order_beside_each_other() -> None:
    far = x_of("unlike_rows", (12, 400)).mean(1) > 4
    pairs = zip(far[::2].tolist(), far[1::2].tolist(), strict=True)
    assert set(pairs) == {(False, True), (False, False), (True, False)}


@pytest.mark.parametrize(("law", "is_special"), [("nan_row", np.isnan), ("inf_row", np.isposinf)])
def test_special_values_stand_alone(law: str, is_special: Callable[[np.ndarray], np.ndarray]) -> None:
    special = is_special(x_of(law, (9, 40)))
    assert special.sum() == 1 and special[4].any()
    assert np.isfinite(wide(laws.draw(Case(shape=(9, 40), law=law))["dy"])).all()


def test_steps_are_four_neighbouring_numbers() -> None:
    assert x_of("steps", (6, 4))[0].tolist() == [40000, 40001, 40002, 40003]
    for dtype in DTYPES:
        assert all(len(np.unique(row)) == 4 for row in x_of("steps", (6, 16), dtype))


def test_scale_steps_repeat_one_row_exactly() -> None:
    x = x_of("scale_steps", (16, 30))
    assert (x[9] == 2 * x[8]).all() and (x[15] == 128 * x[8]).all()


def test_ramp_stays_inside_float16() -> None:
    assert x_of("ramp", (3, 40000), "float16").max() <= 32768
    assert x_of("ramp", (3, 10))[0].tolist() == list(range(10))


def test_overflow_leaves_most_rows_inside_the_domain() -> None:
    x = x_of("overflow", (8, 16))
    assert (np.abs(x).max(1) > 1e19).tolist() == [False, False, False, True] * 2


def test_padding_is_the_last_quarter_of_the_rows() -> None:
    x = x_of("padded", (8, 5))
    assert (x[6:] == 0).all() and (x[:6] != 0).all()


def test_gamma_is_signed_and_never_small() -> None:
    gamma = wide(laws.draw(Case(shape=(1, 4000)))["gamma"])
    assert np.abs(gamma).min() >= 0.25 and np.abs(gamma).max() < 2
    assert 0.2 < (gamma < 0).mean() < 0.3


def test_zeros_and_signs_has_zeros_tiny_and_negative_entries() -> None:
    gamma = wide(laws.draw(Case(shape=(1, 600), law=(("gamma", "zeros_and_signs"),)))["gamma"])
    assert 0.25 < (gamma == 0).mean() < 0.42 and (gamma < 0).any()
    assert ((np.abs(gamma) < 2e-3) & (gamma != 0)).any()


def test_both_reduction_terms_of_dx_are_of_order_one() -> None:
    for law in ("normal", "offset", "chunks"):
        drawn = laws.draw(Case(shape=(20, 4000), law=law))
        g = wide(drawn["dy"]) * wide(drawn["gamma"])
        xhat = standardized(drawn["x"], 1e-5)
        assert np.abs(g.mean(1)).min() > 0.1 and np.abs((g * xhat).mean(1)).min() > 0.1


def test_laws_for_dy_do_what_their_names_say() -> None:
    def dy(law: str) -> np.ndarray:
        return wide(laws.draw(Case(shape=(12, 30), law=(("dy", law),)))["dy"])

    assert (dy("one_hot").sum(1) == 1).all() and len(set(dy("one_hot").argmax(1).tolist())) > 3
    assert (dy("constant") == dy("constant")[:, :1]).all() and (dy("zero") == 0).all()
    drawn = laws.draw(Case(shape=(12, 30), law=(("dy", "along_xhat"),)))
    ratio = wide(drawn["dy"]) / standardized(drawn["x"], 1e-5)
    assert np.allclose(ratio, ratio[:, :1], rtol=1e-4)


# What each law reveals: a planted mistake is far beyond what a correct float32 program does.


def normalized(x: Any, epsilon: float, *, dtype: type = np.float64) -> Any:
    x = x.astype(dtype)
    d = x - x.mean(1, keepdims=True, dtype=dtype)
    return d / np.sqrt((d * d).mean(1, keepdims=True, dtype=dtype) + dtype(epsilon))


def one_pass(x: Any, epsilon: float) -> Any:
    x = x.astype(np.float32)
    m = x.mean(1, keepdims=True)
    return (x - m) / np.sqrt((x * x).mean(1, keepdims=True) - m * m + np.float32(epsilon))


def epsilon_outside(x: Any, epsilon: float) -> Any:
    d = x - x.mean(1, keepdims=True)
    return d / (d.std(1, keepdims=True) + epsilon)


def without_epsilon(x: Any, epsilon: float) -> Any:
    return normalized(x, 0.0)


def unbiased(x: Any, epsilon: float) -> Any:
    return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, ddof=1, keepdims=True) + epsilon)


def padded_lanes(x: Any, epsilon: float) -> Any:
    full = -(-x.shape[1] // 16) * 16
    m = x.mean(1, keepdims=True)
    square = ((x - m) ** 2).sum(1, keepdims=True) + (full - x.shape[1]) * m * m
    return (x - m) / np.sqrt(square / x.shape[1] + epsilon)


def last_element_lost(x: Any, epsilon: float) -> Any:
    d = x - x.mean(1, keepdims=True)
    return d / np.sqrt((d[:, :-1] ** 2).sum(1, keepdims=True) / x.shape[1] + epsilon)


def half_inside(x: Any, epsilon: float) -> Any:
    h = x.astype(np.float16)
    d = h - h.mean(1, keepdims=True)
    return d.astype(np.float64) / np.sqrt((d * d).mean(1, keepdims=True).astype(np.float64) + epsilon)


def next_row(x: Any, epsilon: float) -> Any:
    return (x - np.roll(x, 1, 0).mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + epsilon)


def shared_scale(x: Any, epsilon: float) -> Any:
    return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True).mean() + epsilon)


def merged_without_means(x: Any, epsilon: float) -> Any:
    parts = np.array_split(x, 2, axis=1)
    variance = np.mean([p.var(1, keepdims=True) for p in parts], axis=0)
    return (x - x.mean(1, keepdims=True)) / np.sqrt(variance + epsilon)


REVEALED = [
    ("offset", one_pass, 1e-5),
    ("steps", one_pass, 1e-5),
    ("near_epsilon", epsilon_outside, 1e-2),
    ("near_epsilon", without_epsilon, 1e-5),
    ("decades", unbiased, 1e-5),
    ("decades", shared_scale, 1e-5),
    ("tail_spike", padded_lanes, 1e-5),
    ("tail_spike", last_element_lost, 1e-5),
    ("one_spike", last_element_lost, 1e-5),
    ("uniform", padded_lanes, 1e-5),
    ("chunks", merged_without_means, 1e-5),
    ("half_range", half_inside, 1e-12),
    ("tiny", without_epsilon, 1e-5),
    ("scale_steps", shared_scale, 1e-12),
    ("ramp", next_row, 1e-5),
    ("constant_rows", without_epsilon, 1e-6),
    ("impulses", unbiased, 1e-5),
]


@pytest.mark.parametrize(("law", "mistake", "epsilon"), REVEALED)
def test_a_mistake_stands_out_on_the_data_that_reveal_it(
    law: str, mistake: Callable[[Any, float], Any], epsilon: float
) -> None:
    x = x_of(law, (37, 45), epsilon=epsilon)
    with np.errstate(all="ignore"):
        expected = normalized(x, epsilon)
        right = np.abs(normalized(x, epsilon, dtype=np.float32) - expected).max()
        wrong = np.abs(mistake(x, epsilon) - expected)
    worst = np.where(np.isnan(wrong), np.inf, wrong).max()
    assert worst > 20 * max(right, 2.0**-24)


# Files.


def saved(tmp_path: object, **arrays: np.ndarray) -> str:
    path = f"{tmp_path}/real.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def test_a_file_supplies_tensors_and_the_rest_is_drawn(tmp_path: object) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    drawn = laws.draw(Case(shape=(2, 3), inputs=saved(tmp_path, x=x, y=x)))
    assert np.array_equal(drawn["x"], x) and list(drawn) == ["x", "gamma", "beta", "dy"]
    other = laws.draw(Case(shape=(2, 3), inputs=saved(tmp_path, x=x)), variant=1)["x"]
    assert sorted(other.ravel().tolist()) == [-5, -4, -3, -2, -1, 0] and not np.array_equal(other, -x)


def test_bfloat16_survives_a_file(tmp_path: object) -> None:
    x = laws.draw(Case(shape=(2, 3), dtype="bfloat16"))["x"]
    drawn = laws.draw(Case(shape=(2, 3), dtype="bfloat16", inputs=saved(tmp_path, x=x)))
    assert drawn["x"].dtype == x.dtype and drawn["x"].tobytes() == x.tobytes()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros((2, 4), np.float32)}, r"x has shape \[2, 4\], the case says \[2, 3\]"),
        ({"x": np.zeros((2, 3))}, "x is float64, the case says float32"),
        ({"gama": np.zeros(3, np.float32)}, "holds an array 'gama' .did you mean 'gamma'"),
        ({"y": np.zeros((2, 3), np.float32)}, "holds no input of this case"),
        ({"x": np.array([[None] * 3] * 2)}, "not a readable .npz archive"),
    ],
)
def test_a_file_that_disagrees_with_the_case_is_refused(
    tmp_path: object, arrays: dict[str, np.ndarray], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        laws.draw(Case(shape=(2, 3), inputs=saved(tmp_path, **arrays)))


def test_a_file_that_is_no_archive_is_refused(tmp_path: object) -> None:
    path = f"{tmp_path}/real.npz"
    for content in (b"", b"PK\x03\x04broken", b"hello"):
        with open(path, "wb") as stream:
            stream.write(content)
        with pytest.raises(UsageError, match=r"npz"):
            laws.draw(Case(shape=(2, 3), inputs=path))
    np.save(f"{tmp_path}/plain.npy", np.zeros(3))
    with pytest.raises(UsageError, match=r"not an \.npz archive"):
        laws.draw(Case(shape=(2, 3), inputs=f"{tmp_path}/plain.npy"))
    with pytest.raises(UsageError, match="cannot be read"):
        laws.draw(Case(shape=(2, 3), inputs=f"{tmp_path}/none.npz"))
