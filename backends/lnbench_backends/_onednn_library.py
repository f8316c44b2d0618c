"""oneDNN's C library (version 3 and later) through ctypes: finding it, its constants, errors, handles and threads.

Names and numbers follow dnnl_types.h and dnnl_common_types.h. Knows layer normalization's calls, not lnbench's cases.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_int64, c_size_t, c_uint, c_void_p
from ctypes.util import find_library
from functools import cache, partial
from pathlib import Path
from typing import Any

from lnbench.errors import Unavailable

INSTALL = "install it with: pip install 'lnbench[onednn]'"
CPU, IN_ORDER = 1, 1
UNIMPLEMENTED = 3
STATUS = {
    1: "out of memory",
    2: "invalid arguments",
    3: "not implemented",
    4: "last implementation",
    5: "runtime error",
}
TYPES = {"float16": 1, "bfloat16": 2, "float32": 3}
FORWARD_TRAINING, BACKWARD, BACKWARD_DATA = 64, 128, 160
USE_SCALE, USE_SHIFT = 2, 4
# Which argument of a primitive each of our tensors is.
ARGUMENTS = {
    "x": 1, "y": 17, "mean": 49, "var": 50, "gamma": 51, "beta": 52, "dx": 129, "dy": 145, "dgamma": 255, "dbeta": 256,
}  # fmt: skip
SYCL = 512
RUNTIMES = {1: "sequential", 2: "OpenMP", 4: "TBB", 8: "threadpool", SYCL: "SYCL"}


class Version(ctypes.Structure):
    """dnnl_version_t."""

    _fields_ = (
        ("major", c_int), ("minor", c_int), ("patch", c_int), ("hash", c_char_p),
        ("cpu_runtime", c_uint), ("gpu_runtime", c_uint),
    )  # fmt: skip


class Argument(ctypes.Structure):
    """dnnl_exec_arg_t."""

    _fields_ = (("arg", c_int), ("memory", c_void_p))


class NotImplementedByOneDnn(Exception):
    """dnnl_unimplemented: the library has no implementation for what was asked."""


class Library:
    """One loaded library with its CPU engine and stream; they live as long as the process."""

    def __init__(self, handle: ctypes.CDLL):
        self.c, self.version = handle, handle.dnnl_version().contents
        self.engine, self.stream = c_void_p(), c_void_p()
        self.call("dnnl_engine_create", byref(self.engine), c_int(CPU), c_size_t(0))
        self.call("dnnl_stream_create", byref(self.stream), self.engine, c_uint(IN_ORDER))

    @property
    def runtime(self) -> str:
        return RUNTIMES.get(self.version.cpu_runtime, str(self.version.cpu_runtime))

    def call(self, name: str, *arguments: Any) -> None:
        """Calls a function that returns dnnl_status_t."""
        status = getattr(self.c, name)(*arguments)
        if status == UNIMPLEMENTED:
            raise NotImplementedByOneDnn(name)
        if status:
            raise RuntimeError(f"{name} returned {status} ({STATUS.get(status, 'unknown')})")

    def execution(self, primitive: c_void_p, count: c_int, arguments: Any) -> Callable[[], None]:
        """Executes a primitive and waits for it: names and arguments are looked up once, not in every call."""
        execute = partial(self.c.dnnl_primitive_execute, primitive, self.stream, count, arguments)
        wait = partial(self.c.dnnl_stream_wait, self.stream)

        def run() -> None:
            status = execute() or wait()
            if status:
                raise RuntimeError(f"dnnl_primitive_execute returned {status} ({STATUS.get(status, 'unknown')})")

        return run

    def use_threads(self, threads: int) -> None:
        """Sets the OpenMP thread count of this thread."""
        if self.runtime == "OpenMP":
            # Looking a name up in the library also searches what it is linked with, and so finds its own OpenMP.
            self.c.omp_set_num_threads(c_int(threads))

    def layout(self, shape: tuple[int, ...], strides: tuple[int, ...], dtype: str) -> c_void_p:
        """A memory descriptor; strides in elements."""
        dims = c_int64 * 12
        made = c_void_p()
        self.call(
            "dnnl_memory_desc_create_with_strides",
            byref(made), c_int(len(shape)), dims(*shape), c_int(TYPES[dtype]), dims(*strides),
        )  # fmt: skip
        return made

    def memory(self, layout: c_void_p, address: int) -> c_void_p:
        """A memory object over `address`."""
        made = c_void_p()
        self.call("dnnl_memory_create", byref(made), layout, self.engine, c_void_p(address))
        return made

    def forward(self, x: c_void_p, y: c_void_p, stat: c_void_p, epsilon: float, flags: int) -> c_void_p:
        """The descriptor of a forward_training primitive with float32 scale and shift."""
        made = c_void_p()
        self.call(
            "dnnl_layer_normalization_forward_primitive_desc_create",
            byref(made), self.engine, c_int(FORWARD_TRAINING), x, y, stat, c_float(epsilon), c_uint(flags), None,
        )  # fmt: skip
        return made

    def backward(
        self, dx: c_void_p, dy: c_void_p, x: c_void_p, stat: c_void_p, epsilon: float, flags: int, hint: c_void_p
    ) -> c_void_p:
        """The descriptor of a backward primitive; `hint` is the forward's."""
        made = c_void_p()
        kind = c_int(BACKWARD if flags else BACKWARD_DATA)
        self.call(
            "dnnl_layer_normalization_backward_primitive_desc_create",
            byref(made), self.engine, kind, dx, dy, x, stat, c_float(epsilon), c_uint(flags), hint, None,
        )  # fmt: skip
        return made

    def primitive(self, descriptor: c_void_p) -> c_void_p:
        made = c_void_p()
        self.call("dnnl_primitive_create", byref(made), descriptor)
        return made


@cache
def library() -> Library:
    """The first oneDNN that loads. Raises Unavailable when there is none, or only an older one."""
    tried = []
    for path in _candidates():
        try:
            handle = ctypes.CDLL(path)
        except OSError as error:
            tried.append(str(error))
            continue
        if not hasattr(handle, "dnnl_memory_desc_create_with_strides"):
            tried.append(f"{path} is older than version 3")
            continue
        handle.dnnl_version.restype = POINTER(Version)
        if handle.dnnl_version().contents.cpu_runtime == SYCL:
            tried.append(f"{path} is built for SYCL, whose processor its C interface cannot open")
            continue
        return Library(handle)
    why = f" ({tried[0]})" if tried else ""
    raise Unavailable(f"oneDNN's library libdnnl.so.3 was not found{why}; {INSTALL}")


def _candidates() -> Iterator[str]:
    """Beside this Python, where the packages put it, then what the system's loader knows."""
    for prefix in dict.fromkeys((sys.prefix, sys.base_prefix)):
        yield from sorted(str(p) for p in (Path(prefix) / "lib").glob("libdnnl.so*"))
    found = find_library("dnnl")
    if found:
        yield found
    yield "libdnnl.so.3"
