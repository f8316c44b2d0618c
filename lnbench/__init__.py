"""The public names of lnbench, loaded when they are first used.

    import lnbench
    verdicts = lnbench.verify("path/to/mine.py", cases="smoke")

`lnbench.verify` and `lnbench.bench` are packages that can be called; `lnbench.api` documents the functions.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lnbench import testing as testing
    from lnbench.api import bench as bench
    from lnbench.api import load_cases as load_cases
    from lnbench.api import verify as verify
    from lnbench.backend import Backend as Backend
    from lnbench.backend import Call as Call
    from lnbench.backend import FunctionBackend as FunctionBackend
    from lnbench.backend import LibraryBackend as LibraryBackend
    from lnbench.backend import Tensors as Tensors
    from lnbench.case import Case as Case
    from lnbench.errors import LnbenchError as LnbenchError
    from lnbench.errors import Unavailable as Unavailable
    from lnbench.errors import Unsupported as Unsupported
    from lnbench.verify.verdict import Status as Status
    from lnbench.verify.verdict import Verdict as Verdict

    __version__: str

# Public name: the module that defines it; None for a module of that name.
_PUBLIC = {
    "Backend": "lnbench.backend",
    "Call": "lnbench.backend",
    "Case": "lnbench.case",
    "FunctionBackend": "lnbench.backend",
    "LibraryBackend": "lnbench.backend",
    "LnbenchError": "lnbench.errors",
    "Status": "lnbench.verify.verdict",
    "Tensors": "lnbench.backend",
    "Unavailable": "lnbench.errors",
    "Unsupported": "lnbench.errors",
    "Verdict": "lnbench.verify.verdict",
    "bench": None,
    "load_cases": "lnbench.api",
    "testing": None,
    "verify": None,
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("lnbench")
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _PUBLIC[name]
    value = import_module(f"lnbench.{name}") if home is None else getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
