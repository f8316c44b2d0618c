"""Family F: partial results merged wrongly, rows mixed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lnbench.selftest import kernel
from lnbench.selftest.kernel import Array, Job, scaled
from lnbench.selftest.mutants._plant import plant
from lnbench.selftest.mutants.tails import projected


def _shared_by(rows: int) -> Callable[[Job, Array], Array]:
    """Rows packed in one block share a block-wide mean."""

    def mean(job: Job, x: Array) -> Array:
        own = kernel.mean(job, x)
        if job.cols > 256:
            return own
        starts = range(0, job.rows, rows)
        return np.concatenate([np.full_like(own[i : i + rows], own[i : i + rows].mean()) for i in starts])

    return mean


def _chunks(job: Job, x: Array, size: int = 64) -> tuple[Array, Array, Array]:
    """Counts (k,), means (rows, k) and variances (rows, k) of chunks of a row."""
    pieces = [x[:, i : i + size] for i in range(0, job.cols, size)]
    means = np.concatenate([job.average(p) for p in pieces], axis=1)
    spread = [job.average((p - job.average(p)) ** 2) for p in pieces]
    return np.array([p.shape[1] for p in pieces], job.work), means, np.concatenate(spread, axis=1)


def _no_between_term(job: Job, x: Array, mean: Array) -> Array:
    counts, _, variances = _chunks(job, x)
    return job.total(variances * counts) / job.number(job.cols)


def _equal_weights(job: Job, x: Array) -> Array:
    return job.average(_chunks(job, x)[1])


def _sums_as_means(job: Job, x: Array, mean: Array) -> Array:
    parts = -(-job.cols // 64)
    return kernel.variance(job, x, mean) / job.number(parts)


def _wrong_merge(job: Job, x: Array, mean: Array) -> Array:
    counts, means, variances = _chunks(job, x)
    between = counts * (means - mean) ** 2
    return (job.total(variances * counts) + job.total(between) / job.number(max(len(counts) - 1, 1))) / job.number(
        job.cols
    )


def _neighbour(job: Job, variance: Array) -> Array:
    r = kernel.rstd(job, variance)
    r[1:][8::2] = r[:-1][8::2].copy()
    return r


def _dx_twice_mean(job: Job, dy: Array, x: Array, mean: Array, rstd: Array, gamma: Array | None) -> Array:
    g, xhat = scaled(dy, gamma), (x - mean) * rstd
    return projected(job, g, xhat, rstd, mean_g=2 * job.average(g))


def _dx_tile_mean(job: Job, dy: Array, x: Array, mean: Array, rstd: Array, gamma: Array | None) -> Array:
    g, xhat = scaled(dy, gamma), (x - mean) * rstd
    return projected(job, g, xhat, rstd, mean_gx=np.full_like(rstd, np.mean(g * xhat)))


def _last_block(job: Job, dy: Array, x: Array, mean: Array, rstd: Array, gamma: Array | None) -> Array:
    g, xhat = scaled(dy, gamma), (x - mean) * rstd
    product = g * xhat
    if job.cols > 256:
        product[:, : (job.cols - 1) // 256 * 256] = 0
    return projected(job, g, xhat, rstd, mean_gx=job.average(product))


plant(
    "rows_share_mean",
    "F",
    "four short rows packed in one block share one mean",
    like="ml-explore/mlx#3792",
    mean=_shared_by(4),
)
plant(
    "row_zero_statistics",
    "F",
    "all rows use the variance of row 0",
    variance=lambda job, x, m: np.broadcast_to(kernel.variance(job, x, m)[:1], m.shape).copy(),
)
plant("neighbour_statistics", "F", "from row 8 on every second row uses its neighbour's rstd", rstd=_neighbour)
plant(
    "merged_without_means",
    "F",
    "chunk variances merged without the spread of the chunk means",
    variance=_no_between_term,
)
plant(
    "merged_by_equal_weights",
    "F",
    "a short last chunk weighs as much as a full one in the mean",
    like="tenstorrent/tt-metal#35291",
    mean=_equal_weights,
)
plant("merged_with_wrong_factor", "F", "the spread of the chunk means divided by their number", variance=_wrong_merge)
plant(
    "partial_sums_as_means",
    "F",
    "partial sums of several devices treated as means",
    like="tenstorrent/tt-mlir#8798",
    variance=_sums_as_means,
)
plant("mean_g_twice", "F", "mean(dy gamma) subtracted twice", like="tenstorrent/tt-metal#53204", dx=_dx_twice_mean)
plant(
    "last_block_only",
    "F",
    "wide rows: only the last block of 256 enters mean(dy gamma xhat)",
    like="tenstorrent/tt-metal#53215",
    dx=_last_block,
)
plant(
    "tile_mean",
    "F",
    "mean(dy gamma xhat) over the whole tile instead of per row",
    like="flagos-ai/FlagGems#59",
    dx=_dx_tile_mean,
)
