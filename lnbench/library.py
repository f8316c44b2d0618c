"""`LibraryBackend`: a shared library that follows the C contract (lnbench.h) as a backend, through ctypes.

Owns the struct, the folding of arrays to rows with one stride, and the return codes. Runs inside a worker only.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lnbench import memory
from lnbench.backend import FACTS, Call, Tensors
from lnbench.case import Case
from lnbench.errors import BackendBroken, Unavailable, Unsupported
from lnbench.operators import registry as operators
from lnbench.operators.schema import Fold

ABI_VERSION = 1
DTYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 3}
KINDS = {"rstd": 0, "std": 1, "var": 2}
OK, UNSUPPORTED = 0, 1
_CODES = {2: "LNB_INVALID", 3: "LNB_NO_MEMORY", 4: "LNB_NO_THREADS"}


class LayerNorm(ctypes.Structure):
    """`lnb_layer_norm` of lnbench.h, field by field."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        *((name, ctypes.c_int32) for name in ("dtype", "affine_dtype", "stat_dtype", "stat_kind", "threads")),
        ("epsilon", ctypes.c_double),
        *((name, ctypes.c_int64) for name in ("rows", "cols")),
        *((f"{name}_row_stride", ctypes.c_int64) for name in ("x", "y", "dy", "dx")),
        *((name, ctypes.c_void_p) for name in ("x", "gamma", "beta", "dy", "y", "mean", "stat", "dx")),
        *((name, ctypes.c_void_p) for name in ("dgamma", "dbeta", "workspace")),
    )


@dataclass(frozen=True, slots=True)
class Binding:
    """How one operator is called: its struct, and which tensors are rows with a stride or plain vectors."""

    struct: type[ctypes.Structure]
    rows: tuple[str, ...]
    vectors: tuple[str, ...]


# One entry per operator that the contract knows; the symbols are lnb_<operator>_forward, _backward and _workspace.
BINDINGS = {
    "layer_norm": Binding(LayerNorm, ("x", "y", "dy", "dx"), ("gamma", "beta", "mean", "stat", "dgamma", "dbeta")),
}


class LibraryBackend:
    """A shared library with the C contract. `path` is opened when the backend is first asked something.

    Raises Unavailable when the library cannot be loaded, BackendBroken when it does not follow the contract.
    """

    def __init__(self, path: str | Path, name: str = ""):
        self.path = Path(path)
        self.name = name or self.path.stem  # until the library says its own
        self._is_named = bool(name)
        self._library: ctypes.CDLL | None = None

    @property
    def library(self) -> ctypes.CDLL:
        """The opened library."""
        if self._library is None:
            self._library = _open(self.path)
            if not self._is_named:
                self.name = self.describe().get("name", self.name)
        return self._library

    def describe(self) -> Mapping[str, str]:
        """What `lnb_describe` says: "key=value;key=value"."""
        text = self.library.lnb_describe()
        if text is None:
            raise BackendBroken(f"lnb_describe of {self.path} returned NULL: {self.reason()}")
        pairs = [part.partition("=") for part in text.decode(errors="replace").split(";") if part.strip()]
        bad = next((key for key, equals, _ in pairs if not equals), None)
        if bad is not None:
            raise BackendBroken(f"lnb_describe of {self.path} holds {bad!r}; write key=value;key=value")
        return {key.strip(): value.strip() for key, _, value in pairs}

    def supports(self, case: Case) -> str | None:
        if case.op not in BINDINGS:
            return f"the C contract has no {case.op}"
        if all(self.function(case.op, pass_) is None for pass_ in case.pass_names):
            return f"{self.path.name} exports no {' or '.join(f'lnb_{case.op}_{p}' for p in case.pass_names)}"
        return None

    def function(self, op: str, what: str) -> Callable[..., int] | None:
        """The symbol lnb_<op>_<what>, or None when the library does not export it."""
        return getattr(self.library, f"lnb_{op}_{what}", None)

    def prepare(self, case: Case, pass_: str, tensors: Tensors, threads: int) -> Call:
        """Packs the struct. Raises Unsupported where the contract cannot express the arrays."""
        binding = BINDINGS.get(case.op)
        function = self.function(case.op, pass_)
        if binding is None or function is None:
            raise Unsupported(f"{self.path.name} has no {pass_} function for {case.op}")
        struct, keep = self._pack(binding, case, tensors, threads)
        keep.append(self._workspace(case, pass_, struct))
        return _LibraryCall(self, function, struct, tensors, keep)

    def _pack(self, binding: Binding, case: Case, tensors: Tensors, threads: int) -> tuple[ctypes.Structure, list[Any]]:
        kind = self.describe().get("statistics", FACTS["statistics"][0])
        arrays = {**tensors.inputs, **tensors.out}
        if kind in arrays:
            arrays["stat"] = arrays[kind]
        fold = operators.get(case.op).fold(case)
        fields: dict[str, Any] = {
            "size": ctypes.sizeof(binding.struct),
            "dtype": DTYPES[case.dtype],
            "affine_dtype": DTYPES[case.affine_dtype],
            "stat_dtype": _statistics_dtype(case, arrays, self.describe()),
            "stat_kind": KINDS.get(kind, 0),
            "threads": threads,
            "epsilon": case.epsilon,
            "rows": fold.rows,
            "cols": fold.cols,
        }
        for name in binding.rows:
            fields[f"{name}_row_stride"] = row_stride(arrays[name], fold, name) if name in arrays else fold.cols
            fields[name] = _pointer(arrays.get(name))
        for name in binding.vectors:
            array = arrays.get(name)
            if array is not None and not array.flags.c_contiguous:
                raise Unsupported(f"the C contract cannot express a strided {name}; its elements must be contiguous")
            fields[name] = _pointer(array)
        return binding.struct(**fields), [arrays]

    def _workspace(self, case: Case, pass_: str, struct: ctypes.Structure) -> memory.Guarded | None:
        """Scratch memory of the size the library asks for, between inaccessible pages."""
        ask = self.function(case.op, "workspace")
        if ask is None:
            return None
        nbytes = ask(ctypes.byref(struct), int(pass_ == "backward"))
        if nbytes < 0:
            raise Unsupported(self.reason() or f"{self.path.name} does not support this case")
        workspace = memory.Guarded("workspace", nbytes)
        struct.workspace = workspace.address
        return workspace

    def reason(self) -> str:
        """Why the last call was not LNB_OK, in the library's words; empty when it says nothing."""
        ask = getattr(self.library, "lnb_reason", None)
        if ask is None:
            return ""
        ask.restype = ctypes.c_char_p
        text: bytes | None = ask()
        return text.decode(errors="replace") if text else ""


class _LibraryCall:
    def __init__(
        self,
        backend: LibraryBackend,
        function: Callable[[Any], int],
        struct: ctypes.Structure,
        tensors: Tensors,
        keep: list[Any],
    ):
        self._backend, self._struct, self._out, self._keep = backend, struct, tensors.out, keep
        pointer = ctypes.byref(struct)

        # A closure over two locals is the cheapest call that Python has.
        def run() -> None:
            code = function(pointer)
            if code:
                self._fail(code)

        self.run = run

    def _fail(self, code: int) -> None:
        reason = self._backend.reason()
        if code == UNSUPPORTED:
            raise Unsupported(reason or f"{self._backend.path.name} does not support this case")
        raise RuntimeError(f"returned {_CODES.get(code, code)}{f': {reason}' if reason else ''}")

    def outputs(self) -> Mapping[str, np.ndarray]:
        return dict(self._out)


def _open(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path.resolve()))
    except OSError as error:
        raise Unavailable(f"{path} could not be loaded: {error}; build it for this machine") from error
    for symbol in ("lnb_abi_version", "lnb_describe"):
        if not hasattr(library, symbol):
            raise BackendBroken(f"{path} does not export {symbol}; a backend library exports what lnbench.h declares")
    library.lnb_abi_version.restype = ctypes.c_uint32
    library.lnb_describe.restype = ctypes.c_char_p
    version = library.lnb_abi_version()
    if version != ABI_VERSION:
        raise BackendBroken(
            f"{path} has ABI version {version}, lnbench speaks {ABI_VERSION}; rebuild it with this lnbench.h"
        )
    for op in BINDINGS:
        workspace = getattr(library, f"lnb_{op}_workspace", None)
        if workspace is not None:
            workspace.restype = ctypes.c_int64
    return library


def _pointer(array: np.ndarray | None) -> int | None:
    return None if array is None else int(array.__array_interface__["data"][0])


def _statistics_dtype(case: Case, arrays: Mapping[str, np.ndarray], described: Mapping[str, str]) -> int:
    for name in ("mean", "stat"):
        if name in arrays:
            return DTYPES[arrays[name].dtype.name]
    if described.get("statistics_dtype") == "storage":
        return DTYPES[case.dtype]
    return DTYPES["float64" if case.dtype == "float64" else "float32"]


def row_stride(array: np.ndarray, fold: Fold, name: str) -> int:
    """Elements from one row of the folded (rows, cols) problem to the next. Raises Unsupported where there is none.

    Columns must be contiguous in C order; the kept axes must collapse to one stride.
    """
    columns = _collapse(array, fold.reduced)
    if columns is None or (fold.cols > 1 and columns != array.itemsize):
        raise Unsupported(f"the C contract needs the columns of {name} side by side in memory; here they are not")
    rows = _collapse(array, fold.kept)
    if rows is None or rows < 0 or rows % array.itemsize:
        raise Unsupported(f"the C contract needs one stride between the rows of {name}; its leading axes have several")
    return fold.cols if fold.rows <= 1 else rows // array.itemsize


def _collapse(array: np.ndarray, axes: tuple[int, ...]) -> int | None:
    """The stride in bytes of `axes` seen as one axis in C order, or None; axes of extent 1 are free."""
    real = [(array.shape[a], array.strides[a]) for a in axes if array.shape[a] != 1]
    if not real or math.prod(n for n, _ in real) == 0:
        return int(array.itemsize)
    for (_, outer), (n, inner) in pairwise(real):
        if outer != n * inner:
            return None
    return int(real[-1][1])
