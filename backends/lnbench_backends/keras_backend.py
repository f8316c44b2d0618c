"""Keras 3: its `LayerNormalization` and `RMSNormalization` layers on the installed engine: jax, torch or tensorflow.

Forward is the layer's own call, gradients are the engine's (`_keras_engines`). On torch, Keras calls
torch's own layer_norm, so that it is no second opinion there; the description names the engine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np

from lnbench.backend import Call, Tensors
from lnbench.case import Case
from lnbench.errors import Unavailable
from lnbench_backends import _keras_engines
from lnbench_backends._frameworks import (
    Compiled,
    check_process_threads,
    needs_affine_dtype,
    normalized_axes,
    require,
)

LAYERS = {"layer_norm": "LayerNormalization", "rms_norm": "RMSNormalization"}


class KerasBackend:
    """The layers of Keras with the case's dtypes as their policy: half data beside float32 parameters is "mixed"."""

    name = "keras"
    engines: ClassVar[tuple[str, ...]] = ("jax", "torch", "tensorflow")
    extra = "keras,jax"

    def __init__(self) -> None:
        self._compiled = Compiled()

    def describe(self) -> Mapping[str, str]:
        keras = self._keras()
        engine = keras.backend.backend()
        return {
            "version": f"{keras.__version__} on {engine}",
            "device": "cpu",
            "call": "the layer, jitted where the engine can; backward through the engine's own gradients",
            "casts": "computes in float32; a mixed policy rounds gamma and beta to the type of the data",
            "statistics": "none",
            "subnormals": "keep" if engine == "torch" else "flush",
            "threads": "process",
        }

    def supports(self, case: Case) -> str | None:
        if case.op not in LAYERS:
            return f"the keras backend has no {case.op}"
        if case.op == "rms_norm" and not case.gamma:
            return "Keras' RMSNormalization always has gamma"
        return needs_affine_dtype(case, "Keras", mixed=("float32",))

    def prepare(self, case: Case, pass_: str, tensors: Tensors, threads: int) -> Call:
        keras = self._keras()
        check_process_threads(self.name, threads)
        layer = _layer(keras, case)
        inputs = {n: a for n, a in tensors.inputs.items() if n in ("x", "gamma", "beta", "dy")}
        if "dbeta" in tensors.out:
            inputs.setdefault("beta", np.zeros(tensors.out["dbeta"].shape, tensors.out["dbeta"].dtype))
        if keras.backend.backend() == "jax":
            function = self._compiled.get(case, pass_, lambda: _keras_engines.jax_function(layer, pass_))
            return _keras_engines.jax_call(function, inputs)
        return _keras_engines.CALLS[keras.backend.backend()](layer, pass_, inputs)

    def _keras(self) -> Any:
        asked = os.environ.get("KERAS_BACKEND")
        engine = asked if asked in self.engines else next((e for e in self.engines if find_spec(e)), None)
        if engine is None:
            wanted = " or ".join(self.engines)
            raise Unavailable(f"{self.name} needs {wanted}; install it with: pip install 'lnbench[{self.extra}]'")
        os.environ["KERAS_BACKEND"] = engine
        _keras_engines.start(engine)
        return require("keras", self.extra)


def _layer(keras: Any, case: Case) -> Any:
    """The layer, built for the case's shape, with variables of the case's affine dtype."""
    policy = case.dtype if case.affine_dtype == case.dtype else f"mixed_{case.dtype}"
    axes = list(normalized_axes(case))
    kind = getattr(keras.layers, LAYERS[case.op])
    if case.op == "rms_norm":
        layer = kind(axis=axes, epsilon=case.epsilon, dtype=policy)
    else:
        layer = kind(axis=axes, epsilon=case.epsilon, center=case.beta, scale=case.gamma, dtype=policy)
    layer.build(case.shape)
    return layer
