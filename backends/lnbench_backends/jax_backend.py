"""JAX: the formulas of `_jax_formulas`, jitted; gradients through `vjp` of the same formulas, jitted as well.

Backward recomputes the statistics instead of reading those it is given, because `vjp` of a formula does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from lnbench.backend import Call, Tensors
from lnbench.case import Case
from lnbench_backends._frameworks import Array, Compiled, check_process_threads, process_threads, require
from lnbench_backends._jax_formulas import formula, gradient

OPERATORS = ("layer_norm", "rms_norm", "batch_norm")
# XLA's CPU code runs with subnormal numbers set to zero.
FACTS = {"statistics": "rstd", "subnormals": "flush", "threads": "process"}


class JaxBackend:
    """XLA on JAX's default device."""

    name = "jax"

    def __init__(self) -> None:
        self._compiled = Compiled()

    def describe(self) -> Mapping[str, str]:
        jax = import_jax()
        return {
            "version": jax.__version__,
            "device": str(jax.devices()[0]),
            "call": "jax.jit of the formula, jax.vjp of it for backward",
            "casts": "half types are computed in float32; statistics are float32",
            **FACTS,
        }

    def supports(self, case: Case) -> str | None:
        return None if case.op in OPERATORS else f"the jax backend has no {case.op}"

    def prepare(self, case: Case, pass_: str, tensors: Tensors, threads: int) -> Call:
        jax = import_jax()
        check_process_threads(self.name, threads)
        forward = formula(jax, case)
        arrays = {n: a for n, a in tensors.inputs.items() if n not in ("mean", "rstd")}
        if "dbeta" in tensors.out:
            # dbeta does not depend on beta, which backward is not given.
            arrays["beta"] = np.zeros(tensors.out["dbeta"].shape, tensors.out["dbeta"].dtype)
        function = forward if pass_ == "forward" else partial(gradient, jax, forward)
        return JaxCall(jax, self._compiled.get(case, pass_, lambda: jax.jit(function)), arrays)


def import_jax() -> Any:
    """JAX with float64, and with the threads of this worker: XLA sizes its pool once, from NPROC if it is there."""
    os.environ["NPROC"] = str(process_threads())
    jax = require("jax", "jax")
    jax.config.update("jax_enable_x64", True)
    with suppress(AttributeError):  # a flag of later versions
        # Every run waits for its result: handing it to another thread first only costs, half of a small call.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    return jax


class JaxCall:
    """A jitted function of a dictionary of arrays; also what Keras runs on this engine."""

    def __init__(self, jax: Any, function: Callable[[Mapping[str, Any]], dict[str, Any]], arrays: Mapping[str, Array]):
        self._jax, self._function, self._sources = jax, function, dict(arrays)
        self._arguments: dict[str, Any] = {}
        self._returned: dict[str, Any] = {}
        self.load()
        self.run()  # compiles

    def load(self) -> None:
        """Copies: JAX may otherwise read the arrays themselves, whose content changes between loads."""
        self._arguments = {n: self._jax.numpy.array(a, copy=True) for n, a in self._sources.items()}

    def run(self) -> None:
        self._returned = self._jax.block_until_ready(self._function(self._arguments))

    def outputs(self) -> Mapping[str, Array]:
        return {n: np.asarray(v) for n, v in self._returned.items()}
