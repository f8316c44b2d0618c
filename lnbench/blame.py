"""Which buffer a fatal signal's address belongs to, and on which side of it."""

from __future__ import annotations

from collections.abc import Iterable

from lnbench.buffers import Arrangement, Buffer
from lnbench.memory import Control
from lnbench.protocol import Violation, beyond

_VERBS = {0: "touched memory", 1: "read", 2: "wrote", 3: "executed code"}


def blame(arrangements: Iterable[Arrangement], control: Control, access: int, address: int) -> Violation | None:
    """Which buffer a fault at `address` of the worker belongs to; None when it is far from all of them.

    control: knows where the worker mapped each segment. access: 0 unknown, 1 read, 2 write, 3 execute.
    """
    for arrangement in arrangements:
        lease = arrangement.lease
        base = control.address(lease.segment.number)
        at = address - base
        if not base or not lease.start <= at < lease.start + lease.length:
            continue
        nearest = min(arrangement.buffers, key=lambda b: _distance(b, at))
        return _sentence(nearest, access, at)
    return None


def blame_guarded(control: Control, access: int, address: int) -> Violation | None:
    """The same for memory that the worker guards itself, such as the workspace of a C library."""
    found = control.guarded(address)
    if found is None:
        return None
    name, nbytes, at = found
    side, distance = ("before", -at) if at < 0 else ("after", at - nbytes)
    kind = "write outside" if access == 2 else "read outside"
    return Violation(kind, name, side, f"{_VERBS.get(access, _VERBS[0])} {beyond(distance, side)} the {name}")


def _distance(buffer: Buffer, at: int) -> int:
    if at < buffer.first:
        return buffer.first - at
    return max(0, at - (buffer.first + buffer.form.span) + 1)


def _sentence(buffer: Buffer, access: int, at: int) -> Violation:
    name, verb = buffer.tensor.name, _VERBS.get(access, _VERBS[0])
    kind = "write outside" if access == 2 else "read outside"
    end = buffer.first + buffer.form.span
    if at >= end:
        return Violation(kind, name, "after", f"{verb} {beyond(at - end, 'after')} {name}")
    if at < buffer.first:
        return Violation(kind, name, "before", f"{verb} {beyond(buffer.first - at, 'before')} {name}")
    if any(i.low <= at < i.high for i in buffer.islands):
        return Violation(
            "read-only written", name, "inside", f"wrote to the input {name}, {at - buffer.first} bytes from its start"
        )
    row = max((n for n, i in enumerate(buffer.islands) if i.end <= at), default=0)
    return Violation(kind, name, "padding", f"{verb} between rows {row} and {row + 1} of {name}")
