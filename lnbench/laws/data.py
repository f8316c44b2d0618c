"""The laws for x, many of which suit dy too. Values stay inside the dtype's range unless the law says otherwise.

The families follow the bugs they provoke: cancelling variance, narrow accumulators, epsilon in the
wrong place, row tails and padding, rows mixed with their neighbours, special values.
"""

from __future__ import annotations

import numpy as np

from lnbench.laws.schema import Array, Block, coprime, law, log_uniform, standardized

SPIKE = 300.0


@law("x", "dy", "affine", "state", reveals="Mistakes in the formula on ordinary data.", unsystematic=True)
def normal(b: Block) -> Array:
    return b.normal()


@law(
    "x",
    "dy",
    "affine",
    reveals="Positive data with a mean of half its range: padding lanes that count as zeros.",
    unsystematic=True,
)
def uniform(b: Block) -> Array:
    return b.uniform()


@law(
    "x",
    reveals="One-pass variance, a narrow mean: rows lie 10 to 10,000 deviations from zero (half types less).",
    unsystematic=True,
)
def offset(b: Block) -> Array:
    spread = b.scale_per_row(0.125, 8.0)
    distance = b.scale_per_row(10.0, b.limits.offset) * spread * b.sign_per_row()
    out = b.normal()
    out *= spread
    out += distance
    return out


@law(
    "x",
    "dy",
    reveals="Rows that share a shift, a scale or a sum: scales span four decades, and one row is 1e8 times larger.",
)
def decades(b: Block) -> Array:
    low, high, factor = b.limits.decades
    scale = b.scale_per_row(low, high)
    mean = b.per_row(-30.0, 30.0)
    big = b.row == b.total // 2
    if b.total > 1:
        # The big row keeps a small mean so that it stays inside float16.
        scale = np.where(big, b.work(low * factor), scale)
        mean = np.where(big, b.work(0.5), mean)
    out = b.normal()
    out += mean
    out *= scale
    return np.clip(out, -b.limits.largest, b.limits.largest)


@law("x", reveals="Epsilon outside the root, forgotten or wrong: each row's variance is 0.25 to 4 times epsilon.")
def near_epsilon(b: Block) -> Array:
    epsilon = b.epsilon if b.epsilon > 0 else 1e-5
    spread = b.floats(np.sqrt(epsilon * log_uniform(b.rng, 0.25, 4.0, (b.rows, 1))))
    out = b.normal()
    if b.cols > 1:
        out = b.floats(standardized(out))
    out += b.per_row(-3.0, 3.0)
    out *= spread
    return out


@law(
    "x",
    reveals="Folded scale and shift, negative variance, zero division: each row repeats one small integer.",
)
def constant_rows(b: Block) -> Array:
    value = b.rng.integers(-16, 17, (b.rows, 1))
    value = np.where(b.row % 8 == 0, 14, value)
    value = np.where(b.row % 8 == 1, 0, value)
    value = np.where(b.row % 8 == 2, 1234, value)
    return b.floats(np.repeat(value, b.cols, axis=1))


@law("x", "dy", "affine", reveals="NaN from rows of nothing but zeros; results added to what was there before.")
def zero(b: Block) -> Array:
    return np.zeros(b.shape, b.work)


@law(
    "x",
    reveals="A shift taken from the first element, lost elements: one outlier of 300 per row, first, last or anywhere.",
)
def one_spike(b: Block) -> Array:
    out = b.normal()
    place = b.rng.integers(0, max(b.cols, 1), b.rows)
    kind = b.row[:, 0] % 4
    place = np.where(kind == 0, 0, np.where(kind == 1, b.cols - 1, place))
    out[np.arange(b.rows), place] = SPIKE * np.where(place % 2, -1, 1)
    return out


@law(
    "x",
    "dy",
    reveals="A dropped or doubled tail: the outlier sits among the last 17 elements, and the mean is not zero.",
)
def tail_spike(b: Block) -> Array:
    out = b.normal()
    out -= b.work(2.25)
    place = b.cols - 1 - b.row[:, 0] % min(b.cols, 17)
    out[np.arange(b.rows), place] = SPIKE
    return out


@law(
    "x", "dy", reveals="Any element that is dropped, doubled or read from a neighbour: one large entry in every column."
)
def impulses(b: Block) -> Array:
    out = b.normal()
    out *= b.work(2.0**-6)
    # Column c has its entry in row (c * step + first) % total, so all rows share them about evenly.
    rng = b.shared()
    step, first = coprime(rng, b.total), int(rng.integers(0, 1 << 20))
    size = log_uniform(rng, 8.0, 1024.0, (b.cols,)) * rng.choice([-1.0, 1.0], b.cols)
    owner = (np.arange(b.cols) * step + first) % b.total
    mine = np.flatnonzero((owner >= b.start) & (owner < b.start + b.rows))
    out[owner[mine] - b.start, mine] = size[mine]
    # A row that owns no column gets one entry at a random place.
    bare = np.setdiff1d(np.arange(b.rows), owner[mine] - b.start)
    out[bare, b.rng.integers(0, b.cols, bare.size)] = log_uniform(b.rng, 8.0, 1024.0, (bare.size,))
    return out


@law(
    "x",
    "dy",
    reveals="Partial statistics merged wrongly: each stretch of 64 to 257 elements has its own mean and scale.",
)
def chunks(b: Block) -> Array:
    width = max(1, min(int(b.shared().integers(64, 258)), b.cols // 3))
    count = -(-b.cols // width)
    mean = b.rng.standard_normal((b.rows, count), dtype=b.work) * b.work(100)
    scale = b.floats(log_uniform(b.rng, 0.01, 10.0, (b.rows, count)))
    out = b.normal()
    out *= np.repeat(scale, width, axis=1)[:, : b.cols]
    out += np.repeat(mean, width, axis=1)[:, : b.cols]
    return out


@law("x", "dy", reveals="Squares that underflow, epsilon in a short type: variances many decades below epsilon.")
def tiny(b: Block) -> Array:
    out = b.normal()
    out += b.per_row(-3.0, 3.0)
    out *= b.scale_per_row(b.limits.tiny, b.limits.tiny * 100)
    return out


@law(
    "x",
    reveals="Squares or sums that overflow a type narrower than the arithmetic: as large as the sum of squares allows.",
)
def huge(b: Block) -> Array:
    scale = min((b.limits.sum_of_squares / max(b.cols, 1)) ** 0.5, b.limits.largest / 4)
    out = b.normal()
    out += b.per_row(-1.0, 1.0)
    out *= b.scale_per_row(scale / 64, scale)
    return np.clip(out, -b.limits.largest, b.limits.largest)


@law("x", "dy", reveals="Flushed subnormals: every number is a small multiple of the dtype's smallest one.")
def subnormal(b: Block) -> Array:
    most = 1 << min(b.limits.significant_bits - 1, 20)
    steps = b.rng.integers(-most, most + 1, b.shape)
    return b.floats(steps * b.limits.subnormal)


@law("x", reveals="Half precision inside a wider kernel: squares beyond 65504 in even rows, below 6e-8 in odd rows.")
def half_range(b: Block) -> Array:
    large = b.scale_per_row(300.0, 15000.0)
    small = b.scale_per_row(2.0**-13, 2.0**-10)
    out = b.normal()
    out *= np.where(b.row % 2 == 0, large, small)
    return np.clip(out, -60000.0, 60000.0)


def _with_special(b: Block, row: int, value: float) -> Array:
    out = b.normal()
    place = int(b.shared().integers(0, b.cols))
    if b.start <= row < b.start + b.rows:
        out[row - b.start, place] = value
    return out


@law("x", "dy", reveals="A NaN that is swallowed, or that spreads to other rows: one NaN in the middle row.")
def nan_row(b: Block) -> Array:
    return _with_special(b, b.total // 2, float("nan"))


@law("x", "dy", reveals="An infinity that is swallowed, or that spreads to other rows: one in the middle row.")
def inf_row(b: Block) -> Array:
    return _with_special(b, b.total // 2, float("inf"))


@law("x", "dy", reveals="Any inexact step where the sums are exact: integers from -8 to 8.")
def integers(b: Block) -> Array:
    return b.floats(b.rng.integers(-8, 9, b.shape))


@law("x", reveals="Sums that stop growing: rows of consecutive integers, 0, 1, 2, ... plus the row number.")
def ramp(b: Block) -> Array:
    # A power of two keeps the largest value inside float16 for long rows.
    step = 1.0
    while b.dtype == "float16" and step * b.cols > 16384.0:
        step /= 2
    return b.floats(b.col * step + b.row % 1024)


@law("x", reveals="Rows mixed with their neighbours, a scale-dependent formula: the same row at scales 2^-8 to 2^7.")
def scale_steps(b: Block) -> Array:
    base = b.shared().standard_normal((1, b.cols), dtype=b.work)
    return b.floats(np.ldexp(base, (b.row % 16 - 8).astype(np.int32)))


@law(
    "x",
    reveals="A way chosen by the first of some rows: every third row lies 8 deviations from zero, the others around it.",
)
def unlike_rows(b: Block) -> Array:
    out = b.normal()
    out += np.where(b.row % 3 == 1, b.work(8.0), b.work(0.0))
    return out


# (base, step): rows reported to defeat one-pass variance, such as 40000, 40001, 40002, 40003.
_STEPS = ((40000.0, 1.0), (1449.0, 1.0), (100.0, 1e-3), (2000.0, 0.5), (10000.0, 2.0), (50.0, 0.25))


@law("x", reveals="One-pass variance that turns negative: four neighbouring numbers far from zero, 40000 to 40003.")
def steps(b: Block) -> Array:
    base = np.array([s[0] for s in _STEPS])[b.row % len(_STEPS)]
    step = np.array([s[1] for s in _STEPS])[b.row % len(_STEPS)]
    # The step may not be finer than the dtype can tell apart at the base.
    finest = np.exp2(np.floor(np.log2(base)) + 1 - b.limits.significant_bits)
    return b.floats(base + np.maximum(step, finest) * (b.col % 4))


@law(
    "x", reveals="Behaviour beyond the domain: in every fourth row the squares overflow; the other rows must be right."
)
def overflow(b: Block) -> Array:
    out = b.normal()
    out *= np.where((b.row % 4 == 3) | (b.total < 4), b.work(b.limits.overflow / 4), b.work(1))
    return np.clip(out, -b.limits.overflow, b.limits.overflow)


@law("x", reveals="Behaviour on transformer activations: rows of different scale, a few columns 50 times larger.")
def activations(b: Block) -> Array:
    shared = b.shared()
    columns = np.where(shared.random((1, b.cols)) < 1 / 128, 50.0, 1.0).astype(b.work)
    mean = (0.25 * shared.standard_normal((1, b.cols))).astype(b.work)
    out = b.normal()
    out += mean
    out *= columns
    out *= b.scale_per_row(0.25, 4.0)
    return out


@law("x", reveals="Behaviour after a rectifier: half of the numbers are exactly zero, none is negative.")
def relu(b: Block) -> Array:
    return b.floats(np.maximum(b.normal(), 0))


@law("x", reveals="NaN and infinite scales on padding: the last quarter of the rows is zero, as in padded batches.")
def padded(b: Block) -> Array:
    out = b.normal()
    out[b.row[:, 0] >= b.total - b.total // 4] = 0
    return out
