"""Family G: row counts, grids, partitions over threads, empty input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lnbench.selftest import kernel
from lnbench.selftest.kernel import Array, Function, Job, Results
from lnbench.selftest.mutants._plant import plant

Rows = Callable[[Job], slice | np.ndarray[Any, np.dtype[np.signedinteger[Any]]]]


def _stored(name: str, change: Callable[[Job, Array], Array]) -> Callable[..., Array]:
    """Stores `name` after a change."""

    def store(job: Job, values: Array, dtype: np.dtype[Any], output: str) -> Array:
        return kernel.store(job, change(job, values) if output == name else values, dtype, output)

    return store


def _zero(rows: Rows) -> Callable[[Job, Array], Array]:
    def change(job: Job, values: Array) -> Array:
        values = values.copy()
        values[rows(job)] = 0
        return values

    return change


def _unwritten(rows: Rows) -> Callable[[Job, Array], Array]:
    def change(job: Job, values: Array) -> Array:
        values = values.copy()
        values[rows(job)] = np.nan
        return values

    return change


def _columns_without(rows: Rows) -> Callable[[Job, Array], Array]:
    """Sums over rows that leave some rows out."""

    def columns(job: Job, a: Array) -> Array:
        a = a.copy()
        a[rows(job)] = 0
        return kernel.columns(job, a)

    return columns


def _tree_of_power_of_two(job: Job, a: Array) -> Array:
    """A halving tree that is only right for powers of two."""
    while a.shape[0] > 1:
        half = a.shape[0] // 2
        a = a[:half] + a[half : 2 * half]
    return a


def _partition(job: Job) -> int:
    """Rows per thread, rounded down; at least one."""
    return max(job.rows // job.threads, 1)


def _behind_partition(job: Job) -> slice:
    return slice(_partition(job) * job.threads, None)


def _ends_of_partition(job: Job) -> np.ndarray[Any, np.dtype[np.signedinteger[Any]]]:
    ends = np.arange(1, job.threads) * _partition(job)
    return ends[ends < job.rows]


def _surplus_threads(job: Job) -> slice:
    return slice(job.rows - 1, None) if job.threads > job.rows else slice(0, 0)


def _few_threads(job: Job, dy: Array, x: Array, mean: Array, rstd: Array, gamma: Array | None) -> Array:
    """The scratch row is reused too early when there are two threads."""
    right = kernel.dx(job, dy, x, mean, rstd, gamma)
    if job.threads == 2 and job.rows > 1:
        right[1] = right[0]
    return right


def _single_row(job: Job, dy: Array, x: Array, mean: Array, rstd: Array, gamma: Array | None) -> Array:
    right = kernel.dx(job, dy, x, mean, rstd, gamma)
    return right * rstd if job.rows == 1 else right


def _boundary_twice(job: Job, a: Array) -> Array:
    sums = kernel.columns(job, a)
    for end in _ends_of_partition(job):
        sums = sums + a[end : end + 1]
    return sums


def _empty(change: Callable[[Results], Results]) -> Callable[[Function], Function]:
    """Changes the results of calls without rows."""

    def around(inner: Function) -> Function:
        def run(*arrays: Any, **call: Any) -> Results:
            found = inner(*arrays, **call)
            return change(found) if 0 in np.shape(arrays[0]) else found

        return run

    return around


def _raise(found: Results) -> Results:
    raise RuntimeError("invalid configuration argument")


plant(
    "last_row_zero",
    "G",
    "the last row of y is 0",
    store=_stored("y", _zero(lambda job: slice(job.rows - 1, None))),
    passes="forward",
)
plant(
    "last_row_of_dx_zero",
    "G",
    "the last row of dx is 0",
    store=_stored("dx", _zero(lambda job: slice(job.rows - 1, None))),
    passes="backward",
)
plant(
    "row_cap_65535",
    "G",
    "rows above the grid limit of 65535 are not computed",
    like="NVIDIA/apex#411",
    store=_stored("y", _unwritten(lambda job: slice(65535, None))),
    passes="forward",
)
plant(
    "grid_cap_48",
    "G",
    "a grid of 48 programs, one row each",
    like="vllm-project/vllm-ascend#5012",
    store=_stored("y", _unwritten(lambda job: slice(48, None))),
    passes="forward",
)
plant(
    "rows_in_fours",
    "G",
    "rows behind the last block of 4 are missing in y",
    store=_stored("y", _unwritten(lambda job: slice(job.rows // 4 * 4, None))),
    passes="forward",
)
plant(
    "lost_row",
    "G",
    "one row of many is missing in dgamma and dbeta",
    columns=_columns_without(lambda job: slice(job.rows // 2, job.rows // 2 + 1)),
)
plant(
    "lost_row_of_8192",
    "G",
    "from 8192 rows on, one is missing in dgamma and dbeta",
    columns=_columns_without(lambda job: slice(8191, 8192)),
)
plant(
    "scratch_by_floor",
    "G",
    "scratch sized by floor: rows of the last block of 8 are missing in dgamma and dbeta",
    like="BobMcDear/attorch#18",
    columns=_columns_without(lambda job: slice(job.rows // 8 * 8, None)),
)
plant(
    "rows_over_1024_lost",
    "G",
    "dgamma and dbeta of the first 1024 rows only",
    columns=_columns_without(lambda job: slice(1024, None)),
)
plant(
    "halving_tree",
    "G",
    "a halving tree over rows that is right for powers of two only",
    like="karpathy/llm.c#439",
    columns=_tree_of_power_of_two,
)
plant(
    "thread_remainder_lost",
    "G",
    "rows divided by threads, the remainder never summed",
    columns=_columns_without(_behind_partition),
)
plant(
    "thread_ends_lost",
    "G",
    "the first row of every thread but the first is missing in dgamma and dbeta",
    columns=_columns_without(_ends_of_partition),
)
plant("thread_ends_twice", "G", "the row between two threads is added by both", columns=_boundary_twice)
plant(
    "surplus_threads",
    "G",
    "with more threads than rows a partial sum is dropped",
    columns=_columns_without(_surplus_threads),
)
plant(
    "scratch_for_many_threads",
    "G",
    "per-thread scratch is wrong for exactly two threads",
    like="pytorch/pytorch#80930",
    dx=_few_threads,
)
plant(
    "single_row_kernel",
    "G",
    "a special kernel for one row scales dx twice",
    like="PaddlePaddle/Paddle#35480",
    dx=_single_row,
)
plant(
    "empty_gradients_missing",
    "G",
    "without rows dgamma and dbeta are left as they were",
    like="flagos-ai/FlagGems#5474",
    backward=_empty(lambda found: {"dx": found["dx"]}),
)
plant(
    "empty_gradients_nan",
    "G",
    "without rows dgamma is 0/0",
    backward=_empty(lambda found: found | {"dgamma": found["dgamma"] * np.nan}),
)
plant(
    "empty_launch",
    "G",
    "a launch with an empty range fails",
    like="intel/torch-xpu-ops#4378",
    forward=_empty(_raise),
    dies=True,
)
plant(
    "row_after_blocks_of_64_lost",
    "G",
    "a single row behind blocks of 64 is missing from dbeta",
    dbeta=lambda job, dy: kernel.dbeta(job, dy[:-1] if len(dy) % 64 == 1 and len(dy) > 1 else dy),
)
