"""TensorFlow on the CPU: `tf.nn.moments` and the formula in a `tf.function`, gradients through `GradientTape`.

`TensorflowKerasBackend` is Keras' layer on the same engine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lnbench.backend import Call, Tensors
from lnbench.case import Case
from lnbench.errors import Unsupported
from lnbench_backends._frameworks import (
    Array,
    Compiled,
    check_process_threads,
    needs_affine_dtype,
    normalized_axes,
    process_threads,
    require,
    trailing_count,
)
from lnbench_backends.keras_backend import KerasBackend

# TensorFlow's threads run with subnormal numbers set to zero.
FACTS = {"statistics": "none", "subnormals": "flush", "threads": "process"}

# What the graph optimizer puts in place of the formula, also for a type that the operator does not have.
FUSED = "_MklLayerNorm"
NOT_FUSABLE = (
    f"TensorFlow's graph optimizer replaces the formula by {FUSED}, which has no float64; "
    "set TF_ENABLE_ONEDNN_OPTS=0 to run the formula itself"
)


class TensorflowBackend:
    """mean, variance = tf.nn.moments(x); y = (x - mean) / sqrt(variance + epsilon) * gamma + beta."""

    name = "tensorflow"

    def __init__(self) -> None:
        self._compiled = Compiled()

    def describe(self) -> Mapping[str, str]:
        tf = import_tensorflow()
        return {
            "version": tf.__version__,
            "device": "cpu",
            "call": "tf.function of tf.nn.moments, sqrt and divide; GradientTape for backward",
            "casts": "none: in half types every step rounds; tf.nn.moments computes in float32 and returns the half type",
            **FACTS,
        }

    def supports(self, case: Case) -> str | None:
        if case.op != "layer_norm":
            return f"the tensorflow backend has no {case.op}"
        return needs_affine_dtype(case, "TensorFlow's formula")

    def prepare(self, case: Case, pass_: str, tensors: Tensors, threads: int) -> Call:
        tf = import_tensorflow()
        check_process_threads(self.name, threads)
        inputs = {n: a for n, a in tensors.inputs.items() if n in ("x", "gamma", "beta", "dy")}
        if "dbeta" in tensors.out:
            inputs.setdefault("beta", np.zeros(tensors.out["dbeta"].shape, tensors.out["dbeta"].dtype))
        step = _forward(tf, case) if pass_ == "forward" else _backward(tf, case)
        try:
            return _TensorflowCall(tf, self._compiled.get(case, pass_, lambda: tf.function(step)), inputs)
        except tf.errors.InvalidArgumentError as error:
            if FUSED in str(error):
                raise Unsupported(NOT_FUSABLE) from error
            raise


class TensorflowKerasBackend(KerasBackend):
    """`tf.keras.layers.LayerNormalization`, which is Keras 3 on the TensorFlow engine."""

    name = "tensorflow-keras"
    engines = ("tensorflow",)
    extra = "tensorflow"


def import_tensorflow() -> Any:
    """TensorFlow with its two pools sized for this worker; both are fixed at its first operation."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    tf = require("tensorflow", "tensorflow")
    threading = tf.config.threading
    if threading.get_intra_op_parallelism_threads() != process_threads():
        threading.set_intra_op_parallelism_threads(process_threads())
        threading.set_inter_op_parallelism_threads(1)
    return tf


def _forward(tf: Any, case: Case) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    axes = list(normalized_axes(case))
    # Parameters broadcast from the right by themselves unless other axes than the last are normalized.
    shape = [n if a in axes else 1 for a, n in enumerate(case.shape)] if trailing_count(case) is None else None

    def placed(parameter: Any) -> Any:
        return parameter if shape is None else tf.reshape(parameter, shape)

    def layer_norm(t: Mapping[str, Any]) -> dict[str, Any]:
        mean, variance = tf.nn.moments(t["x"], axes, keepdims=True)
        y = (t["x"] - mean) / tf.sqrt(variance + case.epsilon)
        if "gamma" in t:
            y = y * placed(t["gamma"])
        return {"y": y + placed(t["beta"]) if "beta" in t else y}

    return layer_norm


def _backward(tf: Any, case: Case) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    forward = _forward(tf, case)

    def gradient(t: Mapping[str, Any]) -> dict[str, Any]:
        inputs = {n: v for n, v in t.items() if n != "dy"}
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y = forward(inputs)["y"]
        return {f"d{n}": v for n, v in tape.gradient(y, inputs, output_gradients=t["dy"]).items()}

    return gradient


class _TensorflowCall:
    def __init__(self, tf: Any, function: Any, arrays: Mapping[str, Array]):
        self._tf, self._sources = tf, dict(arrays)
        self._arguments: dict[str, Any] = {}
        self._returned: dict[str, Any] = {}
        self.load()
        # Traced once; a concrete function does not look at the types of its arguments in every call.
        self._function = function.get_concrete_function(self._arguments)
        self.run()

    def load(self) -> None:
        self._arguments = {n: self._tf.constant(np.ascontiguousarray(a)) for n, a in self._sources.items()}

    def run(self) -> None:
        self._returned = self._function(self._arguments)

    def outputs(self) -> Mapping[str, Array]:
        return {n: v.numpy() for n, v in self._returned.items()}
