"""PyTorch, eager: `native_layer_norm` and its backward, `rms_norm`, `batch_norm`, on the CPU or a CUDA device.

Arrays are handed over without a copy on the CPU. Where each operator keeps its statistics is written beside it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from lnbench.backend import Call, Tensors
from lnbench.case import Case
from lnbench.errors import Unavailable, Unsupported
from lnbench_backends import _torch_operators as operators
from lnbench_backends._frameworks import Array, require
from lnbench_backends._torch_operators import Function


class TorchBackend:
    """Eager PyTorch. `device` is "cpu" here; `TorchCudaBackend` runs on the first CUDA device."""

    name = "torch"
    device = "cpu"

    def __init__(self) -> None:
        self._threads = 0

    def describe(self) -> Mapping[str, str]:
        torch = self._torch()
        return {
            "version": torch.__version__,
            "device": self.device,
            "capability": torch.backends.cpu.get_cpu_capability(),
            "call": "torch.native_layer_norm, aten.native_layer_norm_backward",
            "casts": "half types are computed in float32; saved mean and rstd have the dtype of the parameters",
            **self._facts(),
        }

    def _facts(self) -> dict[str, str]:
        return {"statistics": "rstd", "statistics_dtype": "storage", "threads": "call"}

    def supports(self, case: Case) -> str | None:
        return operators.supports(case)

    def prepare(self, case: Case, pass_: str, tensors: Tensors, threads: int) -> Call:
        torch = self._torch()
        self.use_threads(threads)
        build = operators.STEPS.get((case.op, pass_))
        if build is None:
            raise Unsupported(f"{self.name} has no {pass_} of {case.op}")
        inputs = Inputs(torch, tensors.inputs, self.device)
        operators.match_statistics(torch, case, inputs.tensors)
        names, function, given = build(torch, inputs.tensors, case)
        return _TorchCall(self, threads, inputs, names, self.compiled(function, case, pass_), given, tensors.out)

    def compiled(self, function: Function, case: Case, pass_: str) -> Function:
        """What is run for the problem's function: the function itself."""
        return function

    def use_threads(self, threads: int) -> None:
        if threads != self._threads:
            self._torch().set_num_threads(threads)
            self._threads = threads

    def synchronize(self) -> None:
        """Waits for the device; nothing to wait for on the CPU."""

    def _torch(self) -> Any:
        torch = require("torch", "torch")
        torch.set_grad_enabled(False)
        return torch


class TorchCudaBackend(TorchBackend):
    """Eager PyTorch on a CUDA device: inputs are copied to it by `load`, and `run` waits until the device is done."""

    name = "torch-cuda"
    device = "cuda"

    def _facts(self) -> dict[str, str]:
        return {"statistics": "rstd", "statistics_dtype": "float32", "threads": "ignored"}

    def synchronize(self) -> None:
        self._torch().cuda.synchronize()

    def _torch(self) -> Any:
        torch = super()._torch()
        if not torch.cuda.is_available():
            raise Unavailable(
                "torch sees no CUDA device; install a CUDA build of torch on a machine with one, or use 'torch'"
            )
        return torch


@dataclass(slots=True)
class Inputs:
    """The inputs as tensors: views of the arrays on the CPU, copies on a device."""

    tensors: dict[str, Any]
    views: dict[str, Any]

    def __init__(self, torch: Any, arrays: Mapping[str, Array], device: str):
        self.views = {n: to_torch(torch, a) for n, a in arrays.items()}
        self.tensors = dict(self.views) if device == "cpu" else {n: v.to(device) for n, v in self.views.items()}

    def load(self) -> None:
        for name, tensor in self.tensors.items():
            if tensor is not self.views[name]:
                tensor.copy_(self.views[name])


class _TorchCall:
    def __init__(
        self,
        backend: TorchBackend,
        threads: int,
        inputs: Inputs,
        names: tuple[str, ...],
        function: Function,
        given: tuple[Any, ...],
        out: Mapping[str, Array],
    ):
        self._backend, self._threads, self._inputs = backend, threads, inputs
        self._names, self._function, self._given, self._out = names, function, given, out
        self._returned: tuple[Any, ...] = ()
        self.run()  # compiles, and warms the allocator

    def load(self) -> None:
        self._inputs.load()

    def run(self) -> None:
        self._backend.use_threads(self._threads)
        self._returned = self._function(*self._given)
        self._backend.synchronize()

    def outputs(self) -> Mapping[str, Array]:
        found = {n: t for n, t in zip(self._names, self._returned, strict=True) if t is not None and n in self._out}
        return {n: to_numpy(t, self._out[n].dtype) for n, t in found.items()}


def to_torch(torch: Any, array: Array) -> Any:
    """A tensor over the memory of `array`, any strides. torch has no read-only tensors: it is on us not to write."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)


def to_numpy(tensor: Any, dtype: np.dtype[Any] | None = None) -> Array:
    """The tensor as an array, rounded to `dtype` where it has another (statistics that torch keeps in float32)."""
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        torch = require("torch", "torch")
        found: Array = tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    else:
        found = tensor.numpy()
    return found if dtype is None else found.astype(dtype, copy=False)
