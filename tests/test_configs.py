"""The shipped suites: every case is named, sourced and drawable, and every family of known mistakes is there."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lnbench import config, laws
from lnbench.case import DTYPES, Case
from lnbench.operators import registry

FOLDER = Path(__file__).parents[1] / "configs"
SUITES = ("smoke", "ci", "models", "ladder", "full")


@cache
def cases(suite: str) -> tuple[Case, ...]:
    return tuple(config.load(str(FOLDER / f"{suite}.yaml")))


def rows_and_cols(case: Case) -> tuple[int, int]:
    fold = registry.get(case.op).fold(case)
    return fold.rows, fold.cols


def laws_of(case: Case) -> dict[str, str]:
    return {n: laws.law_of(case, t).name for n, t in laws.inputs_of(case).items()}


def test_the_suites_are_those_that_the_documentation_names() -> None:
    assert {p.stem for p in FOLDER.glob("*.yaml")} == set(SUITES)


def test_an_installed_package_finds_its_suites() -> None:
    if not config.suites():
        pytest.skip("the package is not installed, so the suites are not beside it")
    assert config.suites() == SUITES
    assert tuple(config.load("ci")) == cases("ci")


@pytest.mark.parametrize("suite", SUITES)
def test_every_case_has_a_name_of_its_own_and_a_source(suite: str) -> None:
    names = [c.name for c in cases(suite)]
    assert all(names) and len(set(names)) == len(names)
    assert len({c.key for c in cases(suite)}) == len(names)
    assert all(len(c.source) > 3 for c in cases(suite))


@pytest.mark.parametrize("suite", SUITES)
def test_every_case_survives_the_way_through_its_repro_line(suite: str) -> None:
    for case in cases(suite):
        assert config.inline(case.inline()) == [case]


@pytest.mark.parametrize("suite", ["smoke", "ci"])
def test_every_case_can_be_drawn(suite: str) -> None:
    for case in cases(suite):
        for name, array in laws.draw(case).items():
            special = laws_of(case)[name] in ("nan_row", "inf_row", "overflow")
            assert special or np.isfinite(np.asarray(array, np.float64)).all(), (case.name, name)


def test_sizes_keep_the_suites_quick() -> None:
    assert len(cases("smoke")) <= 15 and sum(c.elements for c in cases("smoke")) < 50_000
    assert 150 <= len(cases("ci")) <= 240
    assert statistics.median(c.elements for c in cases("ci")) < 10_000
    assert sum(c.elements for c in cases("ci")) < 1_500_000
    assert max(c.elements for c in cases("models")) <= 2_000_000
    assert max(c.bytes for c in cases("full")) <= 1 << 30


def test_the_ladder_has_its_ten_rungs() -> None:
    assert [c.shape for c in cases("ladder")] == [
        (1, 768),
        (8, 768),
        (64, 64),
        (128, 768),
        (512, 768),
        (1024, 1024),
        (4096, 1024),
        (4096, 4096),
        (32768, 1024),
        (8192, 8192),
    ]


@pytest.mark.parametrize(
    "shape",
    [(8, 197, 768), (2, 577, 768), (1, 64), (32, 64), (256, 64), (64, 64), (1, 1500, 512), (1, 56, 56, 96), (64, 4096)],
)
def test_models_hold_the_shapes_of_real_models(shape: tuple[int, ...]) -> None:
    assert shape in {c.shape for c in cases("models")}


@pytest.mark.parametrize("hidden", [64, 512, 768, 1024, 1280, 1600, 3584, 4096, 5120])
def test_models_hold_the_hidden_sizes_of_real_models(hidden: int) -> None:
    assert hidden in {rows_and_cols(c)[1] for c in cases("models")}


FAMILIES: dict[str, Callable[[Case], bool]] = {
    "mean over deviation of 1e4 in float32": lambda c: laws_of(c)["x"] == "offset" and c.dtype == "float32",
    "rows of very different scale": lambda c: laws_of(c)["x"] == "decades" and rows_and_cols(c)[0] > 8,
    "constant rows, N a power of two": lambda c: laws_of(c)["x"] == "constant_rows" and rows_and_cols(c)[1] == 256,
    "constant rows, N odd": lambda c: laws_of(c)["x"] == "constant_rows" and rows_and_cols(c)[1] % 2 == 1,
    "one column": lambda c: rows_and_cols(c)[1] == 1,
    "float16 squares beyond its range": lambda c: laws_of(c)["x"] == "huge" and c.dtype == "float16",
    "float16 subnormals": lambda c: laws_of(c)["x"] == "subnormal" and c.dtype == "float16",
    "4096 ones in float16": lambda c: (
        laws_of(c)["x"] == "ones" and rows_and_cols(c)[1] == 4096 and c.dtype == "float16"
    ),
    "float64, tiny N": lambda c: c.dtype == "float64" and rows_and_cols(c)[1] <= 3,
    "float64, large N": lambda c: c.dtype == "float64" and rows_and_cols(c)[1] >= 1000,
    "impulses": lambda c: laws_of(c)["x"] == "impulses",
    "chunks": lambda c: laws_of(c)["x"] == "chunks" and rows_and_cols(c)[1] >= 1000,
    "one spike": lambda c: laws_of(c)["x"] == "one_spike",
    "NaN in one row": lambda c: laws_of(c)["x"] == "nan_row",
    "Inf in one row": lambda c: laws_of(c)["x"] == "inf_row",
    "a row length beyond 16384": lambda c: rows_and_cols(c)[1] > 16384,
    "gamma absent": lambda c: not c.gamma and c.beta,
    "beta absent": lambda c: c.gamma and not c.beta and c.op == "layer_norm",
    "gamma and beta absent": lambda c: not c.gamma and not c.beta,
    "gamma with zeros": lambda c: laws_of(c).get("gamma") == "zeros_and_signs",
    "large beta": lambda c: laws_of(c).get("beta") == "large_beta",
    "float32 gamma beside a half x": lambda c: c.affine_dtype == "float32" and c.dtype in ("float16", "bfloat16"),
    "one-hot dy": lambda c: laws_of(c).get("dy") == "one_hot",
    "constant dy": lambda c: laws_of(c).get("dy") == "constant",
    "zero dy": lambda c: laws_of(c).get("dy") == "zero",
    "dy along xhat": lambda c: laws_of(c).get("dy") == "along_xhat",
    "rank 1": lambda c: len(c.shape) == 1,
    "rank 3": lambda c: len(c.shape) == 3,
    "rank 5": lambda c: len(c.shape) == 5,
    "two normalized axes": lambda c: c.axis == -2,
    "axes that do not touch": lambda c: c.axis == (1, 3),
    "broadcast dy": lambda c: c.dy_layout == "broadcast",
    "rows 1 GiB apart": lambda c: "sparse_rows" in (c.layout, c.dy_layout, c.out_layout),
    "rms_norm": lambda c: c.op == "rms_norm",
    "batch_norm training": lambda c: c.op == "batch_norm" and bool(c.training),
    "batch_norm inference": lambda c: c.op == "batch_norm" and not c.training,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_ci_holds_every_family_of_mistakes_in_both_passes(family: str) -> None:
    found = [c for c in cases("ci") if FAMILIES[family](c)]
    assert any(c.pass_names == ("forward", "backward") for c in found)


@pytest.mark.parametrize("epsilon", [1e-12, 1e-8, 1e-5, 1e-2, 0.1, 0.5])
def test_ci_holds_epsilon_far_below_at_and_far_above_the_variance(epsilon: float) -> None:
    assert any(c.epsilon == epsilon and laws_of(c)["x"] == "near_epsilon" for c in cases("ci"))


def test_ci_holds_the_sizes_where_mistakes_were_found() -> None:
    sizes = [rows_and_cols(c) for c in cases("ci") if c.op == "layer_norm"]
    lengths = {*range(1, 18), 31, 33, 127, 255, 257, 300, 513, 769, 1025, 1536, 2049, 4096, 16385, 65536}
    assert lengths <= {n for _, n in sizes}
    assert {0, 1, 2, 3, 5, 45, 48, 49, 50, 300, 1027, 8192, 65540} <= {m for m, _ in sizes}
    assert (4, 0) in sizes


@pytest.mark.parametrize("key", ["layout", "dy_layout", "gamma_layout", "out_layout"])
def test_ci_holds_every_layout_of_every_tensor(key: str) -> None:
    from lnbench import layouts
    from lnbench.config.meaning import LAYOUT_ROLES

    suited = {n for n in layouts.names() if LAYOUT_ROLES[key] in layouts.get(n).suits}
    missing = suited - {getattr(c, key) for c in cases("ci")}
    assert missing <= ({"transposed"} if key == "gamma_layout" else set())


def test_full_holds_every_dtype_law_layout_and_thread_count() -> None:
    full = cases("full")
    assert {c.dtype for c in full} == set(DTYPES)
    used = {law for c in (*full, *cases("ci")) for law in laws_of(c).values()}
    assert used == set(laws.names())
    assert {c.threads for c in full} >= set(range(1, 9))
    assert any(c.bytes == 1 << 30 for c in full) and any(rows_and_cols(c)[1] == 1 << 20 for c in full)
    assert {rows_and_cols(c) for c in full} >= {(65540, 64)}
