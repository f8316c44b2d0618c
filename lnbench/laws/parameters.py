"""The laws for gamma and beta, for gradients, and for running statistics.

The defaults live here as well: ordinary, but such that no term of a formula can be left out unseen.
"""

from __future__ import annotations

import numpy as np

from lnbench.laws.schema import Array, Block, coprime, law, log_uniform, standardized

# By tensor name; an operator's `default_laws` come first, "normal" last.
DEFAULTS = {"gamma": "signed", "dy": "mixed"}


@law(
    "affine",
    reveals="Gamma left out, or applied twice or too late: magnitudes 0.25 to 2, one in four negative.",
    unsystematic=True,
)
def signed(b: Block) -> Array:
    # Not half of them negative: mean(gamma * dy) has to stay of order 1 in long rows.
    return b.floats(b.uniform(0.25, 2.0) * b.signs(b.shape, negative=0.25))


@law(
    "x",
    "affine",
    "dy",
    reveals="For gamma the neutral choice, which hides its absence; for x sums that stop growing in a short type.",
)
def ones(b: Block) -> Array:
    return np.ones(b.shape, b.work)


@law(
    "affine",
    reveals="The normalized value recovered from y: a third of the entries is zero, others are tiny or negative.",
)
def zeros_and_signs(b: Block) -> Array:
    choice = b.rng.integers(0, 6, b.shape)
    out = b.uniform(-2.0, 2.0)
    out[choice < 2] = 0
    out[choice == 2] *= b.work(2.0**-10)
    return out


@law(
    "affine",
    reveals="The normalized value recovered from y, an addition in a short type: beta far larger than the rest.",
)
def large_beta(b: Block) -> Array:
    return b.floats(b.uniform(500.0, 2000.0) * b.signs(b.shape))


@law("affine", reveals="A residue of the mean that a large gamma magnifies: magnitudes from 1e2 to 1e4, both signs.")
def large(b: Block) -> Array:
    return b.floats(log_uniform(b.rng, 1e2, 1e4, b.shape) * b.signs(b.shape))


@law(
    "dy",
    reveals="Either reduction term of dx left out: each row is a constant plus the normalized x plus noise.",
    unsystematic=True,
)
def mixed(b: Block) -> Array:
    # Noise on 256 levels is cheap, and the xhat term fills the mantissa.
    noise = b.rng.integers(-128, 128, b.shape, np.int8)
    constant = b.per_row(0.5, 1.5) * b.signs((b.rows, 1), negative=0.25)
    along = b.per_row(0.5, 1.5) * b.signs((b.rows, 1), negative=0.25)
    out = _xhat(b)
    out *= along
    out += constant
    out += noise * b.work(0.75 / 128)
    return out


def _xhat(b: Block) -> Array:
    assert b.x is not None, "a law for dy needs x"
    return standardized(b.x, b.epsilon).astype(b.work, copy=False)


@law("dy", reveals="A wrong projection: dy runs along the normalized x, so that dx is nearly zero.")
def along_xhat(b: Block) -> Array:
    return b.floats(b.per_row(0.5, 2.0) * _xhat(b))


@law("dy", reveals="A wrong projection: dy is constant in every row, so that dx is zero where gamma is constant.")
def constant(b: Block) -> Array:
    return b.floats(np.repeat(b.per_row(0.5, 2.0) * b.sign_per_row(), b.cols, axis=1))


@law("dy", reveals="Exchanged or shifted columns and rows: one entry per row is 1, all others are 0.")
def one_hot(b: Block) -> Array:
    step = coprime(b.shared(), b.cols)
    out = np.zeros(b.shape, b.work)
    out[np.arange(b.rows), (b.row[:, 0] * step) % b.cols] = 1
    return out


@law("state", reveals="A running variance that is used as a deviation: values from 0.25 to 4.")
def positive(b: Block) -> Array:
    return b.floats(log_uniform(b.rng, 0.25, 4.0, b.shape))


@law("state", reveals="Epsilon forgotten beside the running variance: values from 0.25 to 4 times epsilon.")
def positive_near_epsilon(b: Block) -> Array:
    epsilon = b.epsilon if b.epsilon > 0 else 1e-5
    return b.floats(epsilon * log_uniform(b.rng, 0.25, 4.0, b.shape))
