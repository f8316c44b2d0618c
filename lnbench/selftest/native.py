"""Bugs that only compiled code has: `kernel.c` built once right and once per macro, each a library of its own.

Compiled with the system's C compiler when they are asked for; without one they are left out, with the reason.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lnbench.errors import EnvironmentUnfit

SOURCE = Path(__file__).with_name("kernel.c")


@dataclass(frozen=True, slots=True)
class Planted:
    """A macro of kernel.c and what it plants: name, family, sentence, passes, a public report of the same mistake."""

    name: str
    family: str
    sentence: str
    passes: tuple[str, ...]
    like: str = ""

    @property
    def macro(self) -> str:
        return f"MUTANT_{self.name.removeprefix('c_').upper()}"


_F, _B, _FB = ("forward",), ("backward",), ("forward", "backward")

PLANTED = (
    Planted("c_missing_tail", "E", "elements behind the last whole vector are lost", _F, "tile-ai/tilelang-ascend#890"),
    Planted("c_reads_past_row", "I", "whole vectors only: reads past the row, masks after the load", _F,
            "microsoft/onnxruntime#17943"),
    Planted("c_writes_rounded_up", "I", "rows of y rounded up to whole vectors", _F, "ROCm/aiter#5290"),
    Planted("c_gamma_rounded_up", "I", "reads gamma up to the next whole vector", _F),
    Planted("c_writes_before", "I", "writes one element before y", _F),
    Planted("c_writes_after_statistics", "I", "writes one element behind the statistics", _F),
    Planted("c_writes_after_dgamma", "I", "writes one element behind dgamma", _B, "karpathy/llm.c#821"),
    Planted("c_x_is_scratch", "I", "changes the first element of x", _F, "microsoft/onnxruntime#20623"),
    Planted("c_narrow_offsets", "I", "row offsets in 32 bits", _FB, "vllm-project/vllm#44027"),
    Planted("c_y_stride_of_x", "H", "rows of y placed by the stride of x", _F, "pytorch/FBGEMM#4796"),
    Planted("c_dy_stride_of_x", "H", "rows of dy found by the stride of x", _B, "unslothai/unsloth#10617"),
    Planted("c_grid_limit", "G", "more than 65535 rows: nothing is done, success is returned", _F, "NVIDIA/apex#411"),
    Planted("c_empty_unwritten", "G", "without rows dgamma and dbeta are not written", _B, "flagos-ai/FlagGems#5474"),
    Planted("c_partition_floor", "G", "rows per thread rounded down, the remainder lost", _FB),
    Planted("c_partition_overlaps", "G", "the row between two threads is done by both", _B),
    Planted("c_scratch_too_small", "G", "workspace for one thread less than run", _B, "pytorch/pytorch#80930"),
    Planted("c_race_on_dgamma", "J", "threads add to one dgamma without a lock", _B, "tenstorrent/tt-metal#46799"),
    Planted("c_no_barrier", "J", "partial sums are used before all threads are done", _FB,
            "beehive-lab/GPULlama3.java#132"),
    Planted("c_shared_scratch", "J", "threads share one scratch row", _F, "flashinfer-ai/flashinfer#3607"),
    Planted("c_workspace_not_cleared", "J", "partial sums begin with what the workspace held", _B, "torch/nn#318"),
    Planted("c_adds_to_output", "J", "dgamma added to what its buffer held", _B, "paiml/trueno#178"),
)  # fmt: skip


def compiler() -> list[str]:
    """The command of the C compiler: $CC or cc. Raises EnvironmentUnfit when there is none."""
    command = shlex.split(os.environ.get("CC", "cc"))
    if not command or shutil.which(command[0]) is None:
        raise EnvironmentUnfit("there is no C compiler for the bugs that live in C; install gcc or clang, or set CC")
    return command


def build(folder: Path, macro: str = "", name: str = "c_correct") -> Path:
    """Compiles kernel.c into `folder` with one macro defined; returns the library. Raises EnvironmentUnfit."""
    library = folder / f"{name}.so"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-ffp-contract=off", "-fPIC", "-shared"]
    define = [f"-D{macro}"] if macro else []
    command = [*compiler(), *flags, *define, "-o", str(library), str(SOURCE), "-lm", "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise EnvironmentUnfit(f"the C compiler failed on {SOURCE.name}: {done.stderr.strip()}")
    return library
