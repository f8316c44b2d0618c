"""One benchmark at a time on a machine: two runs would measure each other."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lnbench.errors import EnvironmentUnfit

FILE = "lnbench-bench.lock"


@contextmanager
def machine_lock(folder: Path | None = None) -> Iterator[None]:
    """Holds the machine's lock meanwhile. Raises EnvironmentUnfit when another run has it.

    Where locks or the folder for temporary files are missing, nothing is locked.
    """
    try:
        import fcntl

        path = (folder or Path(tempfile.gettempdir())) / FILE
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except (ImportError, OSError):
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise EnvironmentUnfit(
                "another lnbench is measuring on this machine, and the two would measure each other; "
                "wait until it ends, or give --no-lock"
            ) from None
        yield
    finally:
        os.close(descriptor)
