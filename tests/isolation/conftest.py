"""Requests with plain data, a float64 layer norm to compare with, and backends written to files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
import pytest

from lnbench import layouts
from lnbench.case import Case
from lnbench.numerics import dtypes
from lnbench.operators import registry as operators
from lnbench.pool import Request, Session

HEADER = """
import numpy as np
from lnbench.backend import FunctionBackend

def normalize(x, gamma, beta, axis, epsilon):
    axes = tuple(range(axis, 0)) if isinstance(axis, int) else axis
    wide = x.astype(np.float64)
    mean = wide.mean(axes, keepdims=True)
    rstd = 1 / np.sqrt(wide.var(axes, keepdims=True) + epsilon)
    y = (wide - mean) * rstd
    y = y if gamma is None else y * gamma.astype(np.float64)
    y = y if beta is None else y + beta.astype(np.float64)
    kind = np.float64 if x.dtype == np.float64 else np.float32
    return {"y": y.astype(x.dtype), "mean": mean.astype(kind), "rstd": rstd.astype(kind)}
"""


def make_request(case: Case, pass_: str = "forward", **changes: Any) -> Request:
    """A request with normal data for layer_norm; statistics for backward are exact ones."""
    operator = operators.get(case.op)
    tensors = operator.tensors(case)
    draw = np.random.default_rng(case.seed)
    inputs = {}
    for name in ("x", "gamma", "beta") if pass_ == "forward" else ("dy", "x", "gamma", "mean", "rstd"):
        if name in tensors:
            tensor = tensors[name]
            inputs[name] = draw.standard_normal(tensor.shape).astype(dtypes.numpy(tensor.dtype))
    names = ["rstd" if n == "stat" else n for n in operator.outputs(case, pass_)]
    outputs = {n: tensors[n] for n in names}
    return Request(case, pass_, inputs, outputs, **changes)


def layer_norm(request: Request) -> np.ndarray:
    """Expected y in float64, from what the backend sees."""
    case, x = request.case, request.inputs["x"].astype(np.float64)
    x = layouts.as_seen(case.layout, x)
    axes = operators.get(case.op).fold(case).reduced
    y = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + case.epsilon)
    for name, combine in (("gamma", np.multiply), ("beta", np.add)):
        if name in request.inputs:
            y = combine(y, request.inputs[name].astype(np.float64))
    return np.asarray(y)


def is_right(got: np.ndarray, request: Request) -> bool:
    """Whether `got` is y up to a generous rounding error."""
    tolerance = {"float16": 1e-2, "bfloat16": 6e-2, "float32": 1e-4, "float64": 1e-10}[request.case.dtype]
    return bool(np.allclose(got.astype(np.float64), layer_norm(request), rtol=tolerance, atol=tolerance))


Write = Callable[..., str]


@pytest.fixture(scope="session")
def write_to() -> Write:
    """Writes a backend file; `body` is what the forward function does before (or instead of) the right thing."""

    def put(folder: Path, body: str = "pass", *, top: str = "", facts: str = "{}", name: str = "mine") -> str:
        text = f"""{HEADER}
{top}
backend = FunctionBackend("{name}", facts={facts})

@backend.forward("layer_norm")
def layer_norm(x, gamma, beta, *, axis, epsilon, out, case, threads):
{indent(body, "    ")}
    return normalize(x, gamma, beta, axis, epsilon)
"""
        path = folder / f"{name}.py"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return put


@pytest.fixture
def write(tmp_path: Path, write_to: Write) -> Write:
    """The same into this test's folder."""
    return partial(write_to, tmp_path)


@pytest.fixture
def session(write: Write) -> Iterator[Callable[..., Session]]:
    """Makes sessions on files and closes them."""
    made: list[Session] = []

    def start(
        body: str = "pass", *, top: str = "", facts: str = "{}", timeout: float = 20.0, **options: Any
    ) -> Session:
        made.append(Session(write(body, top=top, facts=facts), timeout=timeout, **options))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.fixture
def request_of() -> Callable[..., Request]:
    return make_request


@pytest.fixture
def right() -> Callable[[np.ndarray, Request], bool]:
    return is_right
