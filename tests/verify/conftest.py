"""Plug-ins as users write them: one correct kernel in a file, and edits of it that are wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

CORRECT = """
import ctypes, os, time
import numpy as np
from lnbench import FunctionBackend

backend = FunctionBackend("mine", dtypes=["float32", "float64"]{facts})


def parts(x, gamma, axis, epsilon):
    axes = tuple(range(axis % x.ndim, x.ndim)) if isinstance(axis, int) else tuple(sorted(a % x.ndim for a in axis))
    shape = [x.shape[a] if a in axes else 1 for a in range(x.ndim)]
    eps = x.dtype.type(epsilon)
    mean = x.mean(axis=axes, keepdims=True, dtype=x.dtype)
    var = ((x - mean) ** 2).mean(axis=axes, keepdims=True, dtype=x.dtype)
    rstd = 1 / np.sqrt(var + eps)
    return axes, shape, mean, rstd


@backend.forward("layer_norm")
def forward(x, gamma, beta, *, axis, epsilon):
    axes, shape, mean, rstd = parts(x, gamma, axis, epsilon)
    y = (x - mean) * rstd
    y = y if gamma is None else y * gamma.reshape(shape)
    y = y if beta is None else y + beta.reshape(shape)
    return {{"y": y, "mean": mean, "rstd": rstd}}


@backend.backward("layer_norm")
def backward(dy, x, gamma, mean, rstd, *, axis, epsilon):
    axes, shape, _, _ = parts(x, gamma, axis, epsilon)
    others = tuple(a for a in range(x.ndim) if a not in axes)
    xhat = (x - mean) * rstd
    g = dy if gamma is None else dy * gamma.reshape(shape)
    dx = rstd * (g - g.mean(axis=axes, keepdims=True) - xhat * (g * xhat).mean(axis=axes, keepdims=True))
    wide = np.float64
    dgamma = (dy * xhat).sum(axis=others, dtype=wide).astype(x.dtype)
    dbeta = dy.sum(axis=others, dtype=wide).astype(x.dtype)
    return {{"dx": dx, "dgamma": dgamma, "dbeta": dbeta}}
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[..., str]:
    """Writes the correct plug-in with some text replaced; returns its path. The text to replace must occur."""

    def write(*edits: tuple[str, str], facts: str = "", name: str = "mine.py") -> str:
        text = CORRECT.format(facts=f", facts={facts}" if facts else "")
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write
