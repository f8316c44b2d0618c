"""Long rows of nearly equal numbers: sums in order drift there, which is no mistake; cancellation still is one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lnbench import laws
from lnbench.backend import Facts
from lnbench.case import Case
from lnbench.verify.bound import Judgement, judge
from lnbench.verify.verdict import Status

Array = np.ndarray[Any, np.dtype[Any]]


def in_order(a: Array) -> Array:
    sums: Array = np.add.accumulate(a, axis=1, dtype=np.float32)
    return sums[:, -1:]


def pairwise(a: Array) -> Array:
    sums: Array = a.sum(axis=1, keepdims=True, dtype=np.float32)
    return sums


def judged(case: Case, mean: Array, var: Array, x: Array) -> dict[str, Judgement]:
    rstd = np.float32(1) / np.sqrt(var + np.float32(case.epsilon))
    got = {"y": (x - mean) * rstd, "mean": mean, "rstd": rstd}
    return judge(case, "forward", {"x": x}, got, Facts(), unsystematic=laws.is_unsystematic(case, "forward"))


def long_rows(cols: int) -> tuple[Case, Array]:
    case = Case(shape=(4, cols), law="offset", gamma=False, beta=False)
    return case, laws.draw(case)["x"]


def test_two_passes_that_sum_in_order_are_accepted_at_tier_0_where_their_sums_drift() -> None:
    case, x = long_rows(1 << 15)
    n = np.float32(x.shape[1])
    mean = in_order(x) / n
    found = judged(case, mean, in_order((x - mean) ** 2) / n, x)
    assert {j.status for j in found.values()} == {Status.PASSED}
    assert found["mean"].tier == 0


@pytest.mark.parametrize("cols", [4096, 65536])
def test_a_clamped_one_pass_variance_beside_an_accurate_mean_is_not(cols: int) -> None:
    case, x = long_rows(cols)
    n = np.float32(cols)
    mean = pairwise(x) / n
    found = judged(case, mean, np.maximum(pairwise(x * x) / n - mean * mean, 0), x)
    assert found["mean"].status is Status.PASSED and found["mean"].tier == 2
    for name in ("y", "rstd"):
        budget = found[name].budget
        assert found[name].status is Status.UNSTABLE and budget is not None and budget > 1


@pytest.mark.parametrize("cols", [64, 4096])
def test_dividing_by_one_less_is_not_accepted_on_any_long_row(cols: int) -> None:
    case = Case(shape=(4, cols), law="normal", gamma=False, beta=False)
    x = laws.draw(case)["x"]
    mean = pairwise(x) / np.float32(cols)
    found = judged(case, mean, pairwise((x - mean) ** 2) / np.float32(cols - 1), x)
    assert found["rstd"].status is Status.FAILED
