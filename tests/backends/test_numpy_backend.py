"""The numpy backend's own sums and layouts; that it is right is what `lnbench verify` says."""

from __future__ import annotations

import numpy as np
import pytest

import lnbench
from lnbench import Case, Status
from lnbench_backends.numpy_backend import NumpyBackend, Rows, column_sums, row_means


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 15, 16, 17, 8191, 8192])
def test_column_sums_add_every_row_once(rows: int) -> None:
    a = np.arange(rows * 3, dtype=np.float64).reshape(rows, 3)
    assert np.array_equal(column_sums(a), a.sum(axis=0))


def test_column_sums_do_not_lose_what_a_running_sum_loses() -> None:
    a = np.full((1 << 16, 1), np.float32(0.1), dtype=np.float32)
    a[0] = 4096.0
    exact = 4096.0 + (a.shape[0] - 1) * float(np.float32(0.1))
    running = float(np.add.accumulate(a[:, 0], dtype=np.float32)[-1])
    assert abs(float(column_sums(np.repeat(a, 2, axis=1))[0]) - exact) * 20 < abs(running - exact)


def test_means_of_equal_integers_are_exact() -> None:
    for cols in range(1, 200):
        assert np.all(row_means(np.full((2, cols), np.float32(7))) == 7)


@pytest.mark.parametrize("axis", [-1, 0, 1, (0,), (0, 2), (1,), (1, 0)])
def test_folding_and_storing_are_inverse(axis: int | tuple[int, ...]) -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    rows = Rows.of(x, axis)
    out = np.empty((4, 3, 2)).transpose(2, 1, 0)
    folded = rows.fold(x)
    assert folded.flags.c_contiguous and not np.shares_memory(folded, x)
    rows.store(folded, out)
    assert np.array_equal(out, x)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("op", ["layer_norm", "rms_norm", "batch_norm"])
def test_it_passes_its_own_verification(op: str, dtype: str) -> None:
    axis = 1 if op == "batch_norm" else -1
    cases = [
        Case(op=op, shape=(5, 6, 7), axis=axis, dtype=dtype, beta=op != "rms_norm", layout="transposed"),
        Case(op=op, shape=(9, 33), axis=axis, dtype=dtype, beta=op != "rms_norm", law="constant_rows"),
    ]
    verdicts = lnbench.verify(NumpyBackend(), cases=cases)
    assert verdicts and {v.status for v in verdicts} == {Status.PASSED}
