"""Sentences about what went wrong inside a worker: an exception, a signal, a failed start.

`explain` runs in the worker, the rest in the parent from what a dead worker left behind.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from lnbench import errors
from lnbench.blame import blame, blame_guarded
from lnbench.buffers import Arrangement
from lnbench.memory import Control
from lnbench.protocol import Died, Reply

_TOO_LONG = 2000
_CORE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def text_of(error: BaseException) -> str:
    """The error's own words, however badly it behaves."""
    try:
        return str(error)[:_TOO_LONG]
    except Exception as second:
        return f"(its text raised {type(second).__name__})"


def explain(error: BaseException) -> str:
    """Type, message and the backend's own file and line."""
    text = text_of(error)
    return f"{type(error).__name__}{f': {text}' if text else ''}{_place(error.__traceback__)}"


def _place(trace: TracebackType | None) -> str:
    """The innermost line of the backend: not of lnbench, and not of an installed package where there is another."""
    lines = []
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith((_CORE, "<frozen")):
            lines.append((file, trace.tb_lineno))
        trace = trace.tb_next
    return _innermost(lines[::-1])


def _innermost(lines: list[tuple[str, int]]) -> str:
    """The first of `lines` that is not in an installed package, else the first."""
    installed = tuple({os.path.dirname(os.__file__), *(p for p in sys.path if p.endswith("-packages"))})
    own = [at for at in lines if "lnbench_backends" in at[0] or not at[0].startswith(installed)]
    return next((f" ({file}:{line})" for file, line in own or lines), "")


def autopsy(death: Died, control: Control, arrangements: Iterable[Arrangement | None], log: str) -> Reply:
    """What a dead worker left behind, as a reply: signal, phase, buffer, and the backend's own line."""
    number, code, access, address = control.fault()
    reason, violation = death.reason + (f" while {control.phase}" if control.phase else ""), None
    if death.status == "CRASHED" and number in (signal.SIGSEGV, signal.SIGBUS):
        placed = [a for a in arrangements if a is not None]
        violation = blame(placed, control, access, address) or blame_guarded(control, access, address)
        reason += f": {violation.sentence if violation else where(code, access, address)}"
    return Reply(
        death.status, reason + crashed_line(log), violations=(violation,) if violation is not None else (), log=log
    )


def startup_error(spec: str, answer: Mapping[str, Any], log: str) -> errors.LnbenchError:
    """The error that the worker met, as itself when it is one of ours."""
    reason = str(answer.get("reason", ""))
    kind = {c.__name__: c for c in (errors.UnknownBackend, errors.Unavailable, errors.UsageError)}.get(
        str(answer.get("error", "")), errors.BackendBroken
    )
    if "error" in answer:
        return kind(reason)
    return errors.BackendBroken(f"backend {spec!r} could not be started: {reason}{last_words(log)}")


def last_words(log: str) -> str:
    """The last words of a worker, short."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return f"; it printed: {lines[-1][:200]}" if lines and not lines[-1].startswith("File ") else ""


def where(code: int, access: int, address: int) -> str:
    verb = {1: "read", 2: "wrote", 3: "jumped"}.get(access, "went")
    if address < 4096 and code > 0 and code != 128:
        return f"{verb} at address {address:#x}, a null pointer"
    if address == 0:
        return "at no address: an unaligned vector access or a wild pointer"
    return f"{verb} at address {address:#x}, far from every array"


def crashed_line(log: str) -> str:
    """The backend's own line in the traceback that a fatal signal leaves in the log."""
    found = re.findall(r'^  File "(.+)", line (\d+) in ', log, re.MULTILINE)
    return _innermost([(file, int(line)) for file, line in found if not file.startswith((_CORE, "<"))])
