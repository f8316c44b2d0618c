"""PyTorch through `torch.compile`: inductor's own kernels for the same calls that the eager backend makes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lnbench.case import Case
from lnbench.errors import Unavailable
from lnbench_backends._frameworks import Compiled
from lnbench_backends._torch_operators import Function
from lnbench_backends.torch_backend import TorchBackend

# Every case is another specialisation of the same few functions; without this dynamo gives up after eight.
MOST_SPECIALISATIONS = 1 << 20


class TorchCompileBackend(TorchBackend):
    """`torch.compile(fullgraph=True, dynamic=False)` on the CPU. Compilation happens while a call is prepared."""

    name = "torch-compile"

    def describe(self) -> Mapping[str, str]:
        return {**super().describe(), "call": "torch.compile of native_layer_norm and its backward (inductor)"}

    def __init__(self) -> None:
        super().__init__()
        self._compiled = Compiled()

    def compiled(self, function: Function, case: Case, pass_: str) -> Function:
        compile_ = self._torch().compile
        made: Function = self._compiled.get(case, pass_, lambda: compile_(function, fullgraph=True, dynamic=False))
        return made

    def _torch(self) -> Any:
        if not (os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")):
            raise Unavailable("torch.compile needs a C++ compiler; install g++ or clang++, or name one in CXX")
        # Compile in this process: helper processes would outlive a call and count as its threads.
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
        # A worker may be killed while it compiles: what it leaves half written is not to be loaded by a later run.
        cache = Path(tempfile.gettempdir()) / f"lnbench-inductor-{os.getuid()}-{os.getppid()}"
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
        torch = super()._torch()
        config = torch._dynamo.config
        for limit in (
            "recompile_limit",
            "accumulated_recompile_limit",
            "cache_size_limit",
            "accumulated_cache_size_limit",
        ):
            if hasattr(config, limit):
                setattr(config, limit, MOST_SPECIALISATIONS)
        return torch
