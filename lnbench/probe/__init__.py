"""The core's small C helper, opened through ctypes: address of a crash, raw clock, bandwidth ceilings.

Everything works without it, less precisely: `library()` is None where it was not built.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from importlib.resources import as_file, files

FILE = "liblnbench_probe.dylib" if sys.platform == "darwin" else "liblnbench_probe.so"

# Loops of ceilings.h and how many addresses each takes, before (bytes of each array, threads, style, repeats); they
# return seconds of one repeat, negative when they could not run. `style` is a sum of the two that follow.
LOOPS = {"lnb_probe_copy": 2, "lnb_probe_triad": 3, "lnb_probe_read": 2}
STREAM, PREFETCH = 1, 2


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
    for name, arrays in LOOPS.items():
        loop = getattr(loaded, name)
        loop.argtypes = [ctypes.c_void_p] * arrays + [ctypes.c_int64, ctypes.c_int, ctypes.c_int, ctypes.c_int]
        loop.restype = ctypes.c_double
    return loaded


def install(page: int) -> bool:
    """Makes fatal signals store what and where into the shared page at address `page`. False without the helper."""
    loaded = library()
    return loaded is not None and loaded.lnb_probe_install(page) == 0
