"""Orders of summation in the type of the argument: what makes one correct kernel differ from another.

Every function sums the last axis of an (m, n) array, n > 0, and returns (m, 1) of the same dtype.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.floating[Any]]]


def sequential(a: Array) -> Array:
    """From the first to the last element, one rounding each."""
    return np.add.accumulate(a, axis=1)[:, -1:]


def reversed_(a: Array) -> Array:
    """From the last to the first element."""
    return sequential(a[:, ::-1])


def tree(a: Array) -> Array:
    """A binary tree over neighbours, as a warp or a work-group reduces."""
    while a.shape[1] > 1:
        n = a.shape[1]
        pairs = a[:, : n - n % 2 : 2] + a[:, 1::2]
        a = np.concatenate([pairs, a[:, -1:]], axis=1) if n % 2 else pairs
    return a


def lanes(a: Array, width: int = 16) -> Array:
    """`width` vector lanes from left to right, then a tree over them, then the tail element by element."""
    n = a.shape[1]
    whole = n - n % width
    if whole == 0:
        return sequential(a)
    across = a[:, :whole].reshape(a.shape[0], whole // width, width)
    acc = tree(np.add.accumulate(across, axis=1)[:, -1, :])
    return sequential(np.concatenate([acc, a[:, whole:]], axis=1))


def blocks(a: Array, size: int = 32) -> Array:
    """Fixed blocks summed on their own, their sums added in order."""
    parts = [sequential(a[:, i : i + size]) for i in range(0, a.shape[1], size)]
    return sequential(np.concatenate(parts, axis=1))


def compensated(a: Array) -> Array:
    """Kahan and Babuska's running compensation (Neumaier's form)."""
    total = a[:, :1].copy()
    lost = np.zeros_like(total)
    for j in range(1, a.shape[1]):
        term = a[:, j : j + 1]
        new = total + term
        big = np.abs(total) >= np.abs(term)
        lost += np.where(big, (total - new) + term, (term - new) + total)
        total = new
    # The compensation of an infinite or NaN sum is NaN and says nothing.
    return np.where(np.isfinite(lost), total + lost, total)


def wide(a: Array) -> Array:
    """In the next wider type, rounded once."""
    broad = np.longdouble if a.dtype == np.float64 else np.float64
    return sequential(a.astype(broad)).astype(a.dtype)


def multiply_add(a: Array, b: Array) -> Array:
    """Sum of a * b with every product exact and one rounding per step (a chain of fused multiply-adds)."""
    broad = np.longdouble if a.dtype == np.float64 else np.float64
    total = np.zeros((a.shape[0], 1), a.dtype)
    for j in range(a.shape[1]):
        product = a[:, j : j + 1].astype(broad) * b[:, j : j + 1].astype(broad)
        total = (product + total.astype(broad)).astype(a.dtype)
    return total


def numpy_(a: Array) -> Array:
    """NumPy's own: pairwise over blocks of 128."""
    total: Array = np.ascontiguousarray(a).sum(axis=1, keepdims=True, dtype=a.dtype)
    return total
