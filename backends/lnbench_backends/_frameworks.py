"""What the backends of frameworks share: imports that say how to install, axes, epsilon, contiguous copies.

Knows no framework. Everything here runs inside the worker of one backend.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lnbench.backend import Tensors
from lnbench.case import Case
from lnbench.errors import Unavailable, Unsupported

Array = np.ndarray[Any, Any]
HALF = ("float16", "bfloat16")


def require(module: str, extra: str) -> Any:
    """The imported module. Raises Unavailable with the command that installs it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # frameworks warn about each other while they are imported
            return importlib.import_module(module)
    except ImportError as error:
        raise Unavailable(
            f"{module} cannot be imported ({_first_line(error)}); install it with: pip install 'lnbench[{extra}]'"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def process_threads() -> int:
    """The thread count that this worker was started for, for frameworks that fix theirs when they start."""
    return int(os.environ.get("OMP_NUM_THREADS") or 0) or len(os.sched_getaffinity(0))


def check_process_threads(name: str, threads: int) -> None:
    """Raises Unsupported when a call asks for another count than the process was started with."""
    started = process_threads()
    if threads != started:
        raise Unsupported(f"{name} fixes its threads when it starts: this worker has {started}, not {threads}")


def normalized_axes(case: Case) -> tuple[int, ...]:
    """Sorted axes that are normalized; an int axis means "from it to the end"."""
    rank = len(case.shape)
    if isinstance(case.axis, tuple):
        return tuple(sorted(a % rank for a in case.axis))
    return tuple(range(case.axis % rank, rank))


class Compiled:
    """Compiled functions of a backend by what they compute, the latest ones: calls of one problem share theirs."""

    MOST = 64

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Any] = {}

    def get(self, case: Case, pass_: str, make: Callable[[], Any]) -> Any:
        """The function for one problem and pass, made when it is not known."""
        key = (
            pass_, case.op, case.shape, case.axis, case.epsilon, case.dtype, case.affine_dtype, case.gamma, case.beta,
            case.attributes,
        )  # fmt: skip
        if key not in self._known:
            while len(self._known) >= self.MOST:
                del self._known[next(iter(self._known))]
            self._known[key] = make()
        return self._known[key]


def batch_norm_attributes(case: Case) -> tuple[bool, float]:
    """(training, momentum) of a batch_norm case, with the operator's defaults where the case leaves them out."""
    return bool(getattr(case, "training", True)), float(getattr(case, "momentum", 0.1))


def trailing_count(case: Case) -> int | None:
    """How many axes are normalized when they are the last ones; None when they are others."""
    axes, rank = normalized_axes(case), len(case.shape)
    return len(axes) if axes == tuple(range(rank - len(axes), rank)) else None


def needs_trailing_axes(case: Case, who: str) -> str | None:
    """The reason why `who` cannot normalize the case's axes, or None."""
    if trailing_count(case) is None:
        return f"{who} normalizes the last axes only, not {list(normalized_axes(case))} of {len(case.shape)}"
    return None


def needs_affine_dtype(case: Case, who: str, *, mixed: tuple[str, ...] = ()) -> str | None:
    """The reason why `who` refuses the case's dtypes, or None. mixed: affine dtypes allowed beside half types."""
    if not (case.gamma or case.beta) or case.affine_dtype == case.dtype:
        return None
    if case.dtype in HALF and case.affine_dtype in mixed:
        return None
    return f"{who} does not take {case.affine_dtype} parameters beside {case.dtype} data"


def float32_epsilon(case: Case, who: str) -> str | None:
    """The reason why `who`, whose epsilon is a float32, would solve another problem in float64, or None."""
    if case.dtype == "float64" and float(np.float32(case.epsilon)) != case.epsilon:
        return f"{who} keeps epsilon as float32, which cannot hold {case.epsilon!r} to the precision of float64"
    return None


def fold(array: Array, case: Case) -> Array:
    """A tensor of the case's shape as (rows, cols), the last axes normalized: a view where NumPy can make one."""
    kept = len(case.shape) - len(normalized_axes(case))
    rows = int(np.prod(case.shape[:kept], dtype=np.int64))
    cols = int(np.prod(case.shape[kept:], dtype=np.int64))
    return array.reshape(rows, cols)


class Staged:
    """Contiguous copies of inputs in memory of our own, for frameworks that read nothing else.

    `arrays` stay at one address for the life of the call; `load` fetches the present content. Arrays that are
    contiguous already are used in place.
    """

    def __init__(self, inputs: Mapping[str, Array]):
        self._sources = dict(inputs)
        self.arrays = {n: a if a.flags.c_contiguous else np.empty(a.shape, a.dtype) for n, a in inputs.items()}
        self.load()

    def load(self) -> None:
        for name, source in self._sources.items():
            if self.arrays[name] is not source:
                np.copyto(self.arrays[name], source)


def contiguous_out(tensors: Tensors, name: str) -> Array:
    """The preallocated output where it is contiguous, otherwise an array of our own of its shape and dtype."""
    wanted = tensors.out[name]
    return wanted if wanted.flags.c_contiguous else np.empty(wanted.shape, wanted.dtype)
