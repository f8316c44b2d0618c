"""Family E: what is lost or counted twice at the end of a row, padding, lanes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lnbench.selftest import kernel
from lnbench.selftest.kernel import Array, Job, scaled
from lnbench.selftest.mutants._plant import plant


def _padded_variance(multiple: Callable[[int], int]) -> Callable[[Job, Array, Array], Array]:
    """Lanes past the end hold 0 - mean and are counted."""

    def variance(job: Job, x: Array, mean: Array) -> Array:
        d = x - mean
        extra = multiple(job.cols) - job.cols
        return (job.total(d * d) + job.number(extra) * mean * mean) / job.number(job.cols)

    return variance


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _up_to(step: int) -> Callable[[int], int]:
    return lambda n: -(-n // step) * step


def _kept(a: Array, keep: int) -> Array:
    """The first `keep` columns, the others zero."""
    return np.concatenate([a[:, :keep], np.zeros_like(a[:, keep:])], axis=1)


def _whole(job: Job, width: int) -> int:
    """How many columns whole vectors cover; all where there is no whole vector."""
    return job.cols - job.cols % width or job.cols


def _mean_without_tail(job: Job, x: Array) -> Array:
    return job.average(_kept(x, _whole(job, 4)))


def _variance_of(keep: Callable[[Job], int]) -> Callable[[Job, Array, Array], Array]:
    def variance(job: Job, x: Array, mean: Array) -> Array:
        d = x - mean
        return job.average(_kept(d * d, keep(job)))

    return variance


def _doubled_last(job: Job, x: Array) -> Array:
    sum_ = job.total(x)
    return (sum_ + x[:, -1:] if job.cols % 2 else sum_) / job.number(job.cols)


def _unwritten_tail(job: Job, x: Array, mean: Array, rstd: Array, gamma: Array | None, beta: Array | None) -> Array:
    y = kernel.output(job, x, mean, rstd, gamma, beta)
    if job.cols > 512:
        y[:, _whole(job, 16) :] = 0
    return y


def _copied_tail(job: Job, x: Array, mean: Array, rstd: Array, gamma: Array | None, beta: Array | None) -> Array:
    y = kernel.output(job, x, mean, rstd, gamma, beta)
    if job.cols > 8 and job.cols % 8 == 1:
        y[:, -1] = y[:, -2]
    return y


def _gamma_of_lane(job: Job, x: Array, mean: Array, rstd: Array, gamma: Array | None, beta: Array | None) -> Array:
    if gamma is not None and job.cols % 8 > 1:
        gamma = gamma.copy()
        gamma[:, _whole(job, 8) :] = gamma[:, -1:]
    return kernel.output(job, x, mean, rstd, gamma, beta)


def _dgamma_tail(job: Job, dy: Array, x: Array, mean: Array, rstd: Array) -> Array:
    return _kept(kernel.dgamma(job, dy, x, mean, rstd), _whole(job, 8))


def _dgamma_half(job: Job, a: Array) -> Array:
    sums = kernel.columns(job, a)
    return _kept(sums, 32 * (job.cols // 64) + 32) if job.cols > 32 else sums


def projected(
    job: Job, g: Array, xhat: Array, rstd: Array, mean_g: Array | None = None, mean_gx: Array | None = None
) -> Array:
    """dx from the gradient at xhat, with either row mean replaced."""
    a = job.average(g) if mean_g is None else mean_g
    b = job.average(g * xhat) if mean_gx is None else mean_gx
    return rstd * (g - a - xhat * b)


def _dx_first_sum_short(job: Job, dy: Array, x: Array, mean: Array, rstd: Array, gamma: Array | None) -> Array:
    g, xhat = scaled(dy, gamma), (x - mean) * rstd
    return projected(job, g, xhat, rstd, mean_g=job.average(_kept(g, _whole(job, 4))))


def _dx_second_sum_short(job: Job, dy: Array, x: Array, mean: Array, rstd: Array, gamma: Array | None) -> Array:
    g, xhat = scaled(dy, gamma), (x - mean) * rstd
    return projected(job, g, xhat, rstd, mean_gx=job.average(_kept(g * xhat, _whole(job, 4))))


def _dx_last_tile(job: Job, dy: Array, x: Array, mean: Array, rstd: Array, gamma: Array | None) -> Array:
    g, xhat = scaled(dy, gamma), (x - mean) * rstd
    start = (job.cols - 1) // 64 * 64
    last = g.copy()
    last[:, :start] = 0
    return projected(job, g, xhat, rstd, mean_g=job.average(last))


plant(
    "padding_to_power_of_two",
    "E",
    "padding lanes up to a power of two enter the variance as 0 - mean",
    like="triton-lang/triton#9838",
    variance=_padded_variance(_power_of_two),
)
plant(
    "padding_to_eight",
    "E",
    "padding lanes up to a multiple of 8 enter the variance",
    like="unslothai/unsloth#1867",
    variance=_padded_variance(_up_to(8)),
)
plant(
    "tail_not_in_mean",
    "E",
    "elements behind the last whole vector of 4 are missing in the mean",
    like="tile-ai/tilelang-ascend#890",
    mean=_mean_without_tail,
)
plant(
    "tail_not_in_variance",
    "E",
    "elements behind the last whole vector of 4 are missing in the variance",
    variance=_variance_of(lambda job: _whole(job, 4)),
)
plant(
    "last_not_in_variance",
    "E",
    "the last element is missing in the variance of rows over 4096",
    variance=_variance_of(lambda job: job.cols - (job.cols > 4096)),
)
plant(
    "second_block_lost",
    "E",
    "only the first 1024 columns enter the variance",
    like="tenstorrent/tt-metal#14222",
    variance=_variance_of(lambda job: min(job.cols, 1024)),
)
plant(
    "lane_group_lost",
    "E",
    "row lengths 32 k + 1: the first lane group only",
    like="ggml-org/llama.cpp#26708",
    variance=_variance_of(lambda job: job.cols - 1 if job.cols % 32 == 1 and job.cols > 1 else job.cols),
)
plant(
    "vector_branch_short",
    "E",
    "above 128 the vector branch (N a multiple of 4) loses its last vector",
    like="vosen/ZLUDA#208",
    variance=_variance_of(lambda job: job.cols - 4 if job.cols % 4 == 0 and job.cols > 128 else job.cols),
)
plant("last_counted_twice", "E", "the last element of odd rows is counted twice in the mean", mean=_doubled_last)
plant("wide_tail_zero", "E", "rows over 512: y behind the last whole vector stays 0", output=_unwritten_tail)
plant("last_lane_copied", "E", "row lengths 8 k + 1: the last element of y repeats its neighbour", output=_copied_tail)
plant("gamma_of_wrong_lane", "E", "tail elements use the last gamma", output=_gamma_of_lane)
plant("dgamma_tail_zero", "E", "dgamma behind the last whole vector of 8 is 0", dgamma=_dgamma_tail)
plant(
    "half_of_columns",
    "G",
    "warp size 64 assumed: half of the columns of a wide dgamma and dbeta dropped",
    like="pytorch/pytorch#183861",
    columns=_dgamma_half,
)
plant("tail_not_in_mean_g", "E", "the tail is missing in the mean of dy gamma", dx=_dx_first_sum_short)
plant("tail_not_in_mean_gx", "E", "the tail is missing in the mean of dy gamma xhat", dx=_dx_second_sum_short)
plant(
    "last_tile_only",
    "F",
    "only the last tile of 64 contributes to sum(dy gamma)",
    like="tenstorrent/tt-metal#34760",
    dx=_dx_last_tile,
)
