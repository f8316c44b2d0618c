"""`native`: lnbench's own C library, driven like any other library with the C contract."""

from __future__ import annotations

import sys
from importlib.resources import as_file, files

from lnbench.backend import LibraryBackend
from lnbench.errors import Unavailable

FILE = "liblnbench_native.dylib" if sys.platform == "darwin" else "liblnbench_native.so"


class NativeBackend(LibraryBackend):
    """The packaged liblnbench_native. The environment variable LNBENCH_TARGET chooses its instruction set."""

    def __init__(self) -> None:
        resource = files("lnbench_backends") / FILE
        if not resource.is_file():
            raise Unavailable(
                f"{FILE} is not part of this installation; build it with: pip install --force-reinstall lnbench"
            )
        with as_file(resource) as path:
            super().__init__(path, name="native")
