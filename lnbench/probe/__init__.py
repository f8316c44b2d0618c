"""The core's small C helper, opened through ctypes: address of a crash, raw clock, bandwidth ceilings.

Everything works without it, less precisely: `library()` is None where it was not built.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from importlib.resources import as_file, files

FILE = "liblnbench_probe.dylib" if sys.platform == "darwin" else "liblnbench_probe.so"


@cache
def library() -> ctypes.CDLL | None:
    """The helper library, or None where it was not built or cannot be loaded."""
    resource = files(__name__) / FILE
    if not resource.is_file():
        return None
    with as_file(resource) as path:
        try:
            loaded = ctypes.CDLL(str(path))
        except OSError:
            return None  # built for another machine: the same as not built
    loaded.lnb_probe_install.argtypes = [ctypes.c_void_p]
    loaded.lnb_probe_now.argtypes = []
    loaded.lnb_probe_now.restype = ctypes.c_int64
    return loaded


def install(page: int) -> bool:
    """Makes fatal signals store what and where into the shared page at address `page`. False without the helper."""
    loaded = library()
    return loaded is not None and loaded.lnb_probe_install(page) == 0
