"""ONNX Runtime on the CPU: a model of one node, built in memory, bound to fixed buffers. Forward only.

ONNX requires a scale: where the case has no gamma, ones are bound (a product with 1 rounds nothing).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lnbench.backend import Call, Tensors
from lnbench.case import Case
from lnbench.errors import Unsupported
from lnbench_backends._frameworks import (
    Array,
    Staged,
    contiguous_out,
    float32_epsilon,
    needs_affine_dtype,
    needs_trailing_axes,
    normalized_axes,
    require,
)


@dataclass(frozen=True, slots=True)
class Node:
    """One ONNX operator: its version, and which of our tensors its inputs and outputs are."""

    operator: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


NODES = {
    "layer_norm": Node("LayerNormalization", 17, ("x", "gamma", "beta"), ("y", "mean", "rstd")),
    "rms_norm": Node("RMSNormalization", 23, ("x", "gamma"), ("y",)),
}


class OnnxRuntimeBackend:
    """CPUExecutionProvider with one intra-op pool per call. Statistics are returned for all but float64 data.

    For float64 the operator returns them in float32 (stash_type 1), which is another problem than the one asked.
    """

    name = "onnxruntime"

    def describe(self) -> Mapping[str, str]:
        runtime, onnx = self._modules()
        return {
            "version": f"{runtime.__version__}, onnx {onnx.__version__}",
            "device": "cpu",
            "call": "LayerNormalization-17 or RMSNormalization-23 through IO binding",
            "statistics": "rstd",
            "threads": "call",
        }

    def supports(self, case: Case) -> str | None:
        if case.op not in NODES:
            return f"the onnxruntime backend has no {case.op}"
        if case.passes == "backward":
            return "ONNX has no gradient operators"
        if case.elements == 0 and 0 in (case.shape[a] for a in normalized_axes(case)):
            return "ONNX Runtime refuses rows of no elements"
        who = f"ONNX {NODES[case.op].operator}"
        return needs_trailing_axes(case, who) or needs_affine_dtype(case, who) or float32_epsilon(case, who)

    def prepare(self, case: Case, pass_: str, tensors: Tensors, threads: int) -> Call:
        if pass_ == "backward":
            raise Unsupported("ONNX has no gradient operators")
        runtime, onnx = self._modules()
        node = NODES[case.op]
        inputs = {n: tensors.inputs[n] for n in node.inputs if n in tensors.inputs}
        if "gamma" not in inputs:
            shape = [case.shape[a] for a in normalized_axes(case)]
            inputs["gamma"] = np.ones(shape, tensors.inputs["x"].dtype)
        names = [n for n in node.outputs if n in tensors.out and (n == "y" or case.dtype != "float64")]
        outputs = {n: contiguous_out(tensors, n) for n in names}
        session = _session(runtime, _model(onnx, node, case, inputs, outputs), threads)
        return _Bound(runtime, onnx, session, node, Staged(inputs), outputs)

    def _modules(self) -> tuple[Any, Any]:
        return require("onnxruntime", "onnxruntime"), require("onnx", "onnxruntime")


def _model(onnx: Any, node: Node, case: Case, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> bytes:
    """The serialized model: outputs that are not wanted have an empty name, as ONNX asks for."""
    names = [n if n in outputs else "" for n in node.outputs]
    while names and not names[-1]:
        names.pop()
    attributes = {"axis": min(normalized_axes(case)), "epsilon": case.epsilon}
    made = onnx.helper.make_node(node.operator, [n for n in node.inputs if n in inputs], names, **attributes)

    def values(arrays: Mapping[str, Array]) -> list[Any]:
        return [onnx.helper.make_tensor_value_info(n, _element(onnx, a), a.shape) for n, a in arrays.items()]

    graph = onnx.helper.make_graph([made], "one_node", values(inputs), values(outputs))
    opset = onnx.helper.make_opsetid("", node.opset)
    # An older model format than the newest, so that a new onnx still suits an older runtime.
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    serialized: bytes = model.SerializeToString()
    return serialized


def _element(onnx: Any, array: Array) -> int:
    if array.dtype.name == "bfloat16":
        return int(onnx.TensorProto.BFLOAT16)
    return int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))


def _session(runtime: Any, model: bytes, threads: int) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if "NOT_IMPLEMENTED" in str(error):
            raise Unsupported(f"ONNX Runtime has no kernel for it: {error}") from error
        raise


class _Bound:
    def __init__(self, runtime: Any, onnx: Any, session: Any, node: Node, staged: Staged, outputs: Mapping[str, Array]):
        self._session, self._staged, self._outputs = session, staged, outputs
        self._binding = session.io_binding()
        for name in node.inputs:
            if name in staged.arrays:
                a = staged.arrays[name]
                self._binding.bind_input(name, "cpu", 0, _element(onnx, a), a.shape, a.ctypes.data)
        for name, a in outputs.items():
            self._binding.bind_output(name, "cpu", 0, _element(onnx, a), a.shape, a.ctypes.data)

    def load(self) -> None:
        self._staged.load()

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def outputs(self) -> Mapping[str, Array]:
        return self._outputs
