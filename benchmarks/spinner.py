"""A backend with a bad habit, for `spinning_neighbour.py`: after each call a thread of it spins for some milliseconds."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import numpy as np

from lnbench import FunctionBackend

SPIN_SECONDS = float(os.environ.get("SPIN_SECONDS", "0.003"))

backend = FunctionBackend("spinner", facts={"threads": "ignored"})
_until = 0.0
_called = threading.Event()


def _spin() -> None:
    while _called.wait():
        _called.clear()
        while time.perf_counter() < _until:
            pass


threading.Thread(target=_spin, daemon=True).start()


@backend.forward("layer_norm")
def layer_norm(x: Any, gamma: Any, beta: Any, *, axis: int, epsilon: float) -> dict[str, Any]:
    """Correct, and followed by a thread that wants a processor for nothing."""
    global _until
    mean = x.mean(axis=axis, keepdims=True)
    var = x.var(axis=axis, keepdims=True)
    rstd = (1 / np.sqrt(var + x.dtype.type(epsilon))).astype(x.dtype)
    y = (x - mean) * rstd * gamma + beta
    _until = time.perf_counter() + SPIN_SECONDS
    _called.set()
    return {"y": y, "mean": mean, "rstd": rstd}
