"""Other right ways to write single steps of a layer normalization; `correct` puts them together.

Each function replaces the step of the same shape in `kernel.Steps`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from lnbench.selftest import kernel, sums
from lnbench.selftest.kernel import Array, Job, edited, scaled


def welford(job: Job, x: Array) -> tuple[Array, Array]:
    """Welford's update, one element after the other."""
    mean, squares = x[:, :1].copy(), np.zeros_like(x[:, :1])
    for k in range(1, x.shape[1]):
        d = x[:, k : k + 1] - mean
        mean += d / job.number(k + 1)
        squares += d * (x[:, k : k + 1] - mean)
    return mean, squares / job.number(x.shape[1])


def merged_welford(job: Job, x: Array, chunk: int = 64) -> tuple[Array, Array]:
    """Welford over chunks; neighbours merged (Chan) until one is left."""
    parts: list[tuple[int, Array, Array]] = []
    for start in range(0, x.shape[1], chunk):
        piece = x[:, start : start + chunk]
        mean, variance = welford(job, piece)
        parts.append((piece.shape[1], mean, variance * job.number(piece.shape[1])))
    while len(parts) > 1:
        merged = [_merge(job, a, b) for a, b in zip(parts[::2], parts[1::2], strict=False)]
        parts = merged + parts[len(merged) * 2 :]
    n, mean, squares = parts[0]
    return mean, squares / job.number(n)


def _merge(job: Job, a: tuple[int, Array, Array], b: tuple[int, Array, Array]) -> tuple[int, Array, Array]:
    (na, ma, sa), (nb, mb, sb) = a, b
    n, share = na + nb, job.number(nb / (na + nb))
    d = mb - ma
    return n, ma + d * share, sa + sb + d * d * (job.number(na) * share)


def corrected(job: Job, x: Array) -> tuple[Array, Array]:
    """Two passes; what rounding left in the mean is taken out of mean and variance."""
    mean = job.average(x)
    left = job.average(x - mean)
    mean = mean + left
    d = x - mean
    return mean, job.average(d * d)


def fused_add(a: Array, b: Array, c: Array) -> Array:
    """a * b + c with one rounding: the product is exact in the wider type."""
    broad = np.longdouble if a.dtype == np.float64 else np.float64
    exact: Array = a.astype(broad) * b.astype(broad) + c.astype(broad)
    return exact.astype(a.dtype)


def _fused_variance(job: Job, x: Array, mean: Array) -> Array:
    d = x - mean
    return sums.multiply_add(d, d) / job.number(x.shape[1])


def _fused_output(job: Job, x: Array, mean: Array, rstd: Array, gamma: Array | None, beta: Array | None) -> Array:
    xhat = (x - mean) * rstd
    if gamma is None or beta is None:
        return kernel.affine(xhat, gamma, beta)
    return fused_add(xhat, gamma, beta)


def _fused_dgamma(job: Job, dy: Array, x: Array, mean: Array, rstd: Array) -> Array:
    return sums.multiply_add(dy.T, ((x - mean) * rstd).T).T


FUSED = edited(variance=_fused_variance, output=_fused_output, dgamma=_fused_dgamma)


def newton(job: Job, variance: Array) -> Array:
    """The reciprocal root: exponent halved by a bit trick, then Newton's iteration to the last bit."""
    value = variance + job.number(job.epsilon)
    fraction, exponent = np.frexp(value)
    odd = exponent % 2 != 0
    fraction = np.where(odd, fraction * 2, fraction).astype(job.work)
    exponent = np.where(odd, exponent - 1, exponent)
    double = job.work == np.float64
    magic, bits = (0x5FE6EB50C7B537A9, np.int64) if double else (0x5F3759DF, np.int32)
    pattern: Any = fraction.view(bits)
    r: Array = (bits(magic) - (pattern >> 1)).view(job.work)
    for _ in range(5 if double else 4):
        r = r * (job.number(1.5) - (job.number(0.5) * fraction * r) * r)
    good = np.isfinite(value) & (value > 0)
    return np.where(good, np.ldexp(r, -exponent // 2), 1 / np.sqrt(value)).astype(job.work)


def divided(job: Job, x: Array, mean: Array, rstd: Array, gamma: Array | None, beta: Array | None) -> Array:
    """(x - m) / s, with s from the reciprocal that is returned."""
    return kernel.affine((x - mean) / (1 / rstd), gamma, beta)


def row_affine(job: Job, x: Array, mean: Array, rstd: Array, gamma: Array | None, beta: Array | None) -> Array:
    return kernel.affine(x * rstd + (-mean * rstd), gamma, beta)


def gamma_first(job: Job, x: Array, mean: Array, rstd: Array, gamma: Array | None, beta: Array | None) -> Array:
    scale = rstd if gamma is None else rstd * gamma
    return kernel.affine((x - mean) * scale, None, beta)


def folded(job: Job, x: Array, mean: Array, rstd: Array, gamma: Array | None, beta: Array | None) -> Array:
    scale = rstd if gamma is None else rstd * gamma
    shift = -mean * scale if beta is None else beta - mean * scale
    return x * scale + shift


def early_cast(job: Job, x: Array, mean: Array, rstd: Array, gamma: Array | None, beta: Array | None) -> Array:
    xhat = ((x - mean) * rstd).astype(job.storage).astype(job.work)
    return kernel.affine(xhat, gamma, beta)


def affine_gradient(job: Job, dy: Array, x: Array, mean: Array, rstd: Array, gamma: Array | None) -> Array:
    """Caffe2's LayerNormGradient with exact statistics: dx = g r + x b + c."""
    g, n = scaled(dy, gamma), job.number(x.shape[1])
    ds, db = job.total(g * x), job.total(g)
    b = (db * mean - ds) * rstd * rstd * rstd / n
    return g * rstd + x * b + (-b * mean - db * rstd / n)


def fused_gradient(job: Job, dy: Array, x: Array, mean: Array, rstd: Array, gamma: Array | None) -> Array:
    g, d = scaled(dy, gamma), x - mean
    return rstd * (g - job.average(g) - d * (rstd * rstd * job.average(g * d)))


WIDE = edited(total=lambda job, a: sums.wide(a), columns=lambda job, a: sums.wide(a.T).T)


def _split(job: Job) -> list[slice]:
    """Blocks of 16 rows, whatever the number of threads: bits must not depend on it."""
    return [slice(i, min(i + 16, job.rows)) for i in range(0, job.rows, 16)]


def _threaded_total(job: Job, a: Array) -> Array:
    out = np.empty((a.shape[0], 1), a.dtype)

    def one(part: slice) -> None:
        out[part] = sums.lanes(a[part])

    with ThreadPoolExecutor(job.threads) as pool:
        list(pool.map(one, _split(job)))
    return out


def _threaded_columns(job: Job, a: Array) -> Array:
    with ThreadPoolExecutor(job.threads) as pool:
        parts = list(pool.map(lambda part: sums.sequential(a[part].T), _split(job)))
    return sums.sequential(np.concatenate(parts, axis=1)).T


THREADED = edited(total=_threaded_total, columns=_threaded_columns)


def flushed(a: Array) -> Array:
    """Subnormal values as zero of the same sign."""
    tiny = np.finfo(a.dtype).tiny
    return np.where(np.abs(a) < tiny, np.copysign(np.zeros_like(a), a), a)


def _flushing_output(job: Job, x: Array, mean: Array, rstd: Array, gamma: Array | None, beta: Array | None) -> Array:
    xhat = flushed(flushed(x - mean) * rstd)
    y = xhat if gamma is None else flushed(xhat * gamma)
    return y if beta is None else flushed(y + beta)


FLUSHING = edited(
    read=lambda job, array, along, name: flushed(kernel.read(job, array, along, name)),
    mean=lambda job, x: flushed(kernel.mean(job, x)),
    variance=lambda job, x, mean: flushed(kernel.variance(job, flushed(x - mean), np.zeros_like(mean))),
    output=_flushing_output,
    dx=lambda job, dy, x, mean, rstd, gamma: flushed(kernel.dx(job, dy, x, mean, rstd, gamma)),
    dgamma=lambda job, dy, x, mean, rstd: flushed(kernel.dgamma(job, dy, x, mean, rstd)),
    dbeta=lambda job, dy: flushed(kernel.dbeta(job, dy)),
)
