"""What parent and worker say to each other, and what a caller of `lnbench.pool` gets: data only.

Requests travel as length-prefixed pickles, because the worker trusts its parent. Answers travel as length-prefixed
JSON, because the parent does not trust a worker that a backend shares. Arrays never travel: they lie in shared memory.
"""

from __future__ import annotations

import json
import pickle
import socket
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from lnbench.backend import Facts
from lnbench.case import Case
from lnbench.errors import BackendBroken
from lnbench.operators.schema import Tensor

PLACEMENTS = ("end", "begin", "private")
STATUSES = ("OK", "SKIPPED", "CRASHED", "TIMEOUT", "ERROR")
NONSENSE = "answered nonsense: the backend wrote to a file descriptor that is not its own"
LOST_CONNECTION = 113  # exit status of a worker that can no longer answer
_LENGTH = struct.Struct("=Q")
_MOST = 1 << 24  # bytes of one answer; more is not an answer


@dataclass(frozen=True, slots=True)
class Description:
    """A backend as its worker describes it: name, resolved facts, and everything that `describe()` said."""

    name: str
    facts: Facts
    described: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Violation:
    """One access where a backend has no business.

    kind: "read outside", "write outside", "read-only written", "canary overwritten" or "input modified".
    side: "before", "after", "padding" or "inside", as seen from `tensor`.
    """

    kind: str
    tensor: str
    side: str
    sentence: str


def beyond(distance: int, side: str) -> str:
    """ "4 bytes after the end of", "directly after the end of": where something happened beside a buffer."""
    edge = "after the end of" if side == "after" else "before the start of"
    return f"directly {edge}" if distance == 0 else f"{distance} bytes {edge}"


@dataclass(frozen=True, slots=True)
class Request:
    """One case and pass to be run.

    inputs: arrays in logical shape and exact dtype; their layout is the case's. For layout `broadcast` only the first
        row is stored (`layouts.as_seen` gives what the backend will see).
    outputs: what is wanted back, by name.
    placement: "end" (the last byte touches an inaccessible page), "begin" (the first byte does), or "private"
        (ordinary private memory, huge pages asked for, no guards: for timing).
    alias: "y=x" or "dx=dy": the output is the input's memory.
    seed: draws the offsets of private buffers, in multiples of 64 bytes.
    drawn: names of inputs so large that they exist only in shared memory: `draw(targets, known)` writes them there,
        targets and known being arrays by name, and `inputs` says no more of them than shape and dtype.
    """

    case: Case
    pass_: str
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, Tensor]
    threads: int = 1
    placement: str = "end"
    alias: str | None = None
    seed: int = 0
    drawn: Collection[str] = ()
    draw: Callable[[Mapping[str, np.ndarray], Mapping[str, np.ndarray]], None] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a request.

    status: one of `STATUSES`; `reason` is a sentence for all but OK.
    outputs: arrays in logical shape, read-only views of shared memory that stay valid until the next request to the
        same session (copy what must live longer). An output that the backend did not give is absent.
    inputs: the `drawn` inputs of the request, with the content that they had before the run; valid as long as `outputs`.
        One that an output was written over is absent.
    returned: names of outputs that the backend returned itself instead of filling the given arrays.
    wrong: outputs of a wrong dtype or shape, each with a sentence; they are not among `outputs`.
    seconds: duration of `run`; collect_seconds: of `outputs`, where a lazy backend does its work.
    log: what the backend printed meanwhile (the last 64 KiB).
    """

    status: str
    reason: str = ""
    outputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    returned: tuple[str, ...] = ()
    wrong: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[Violation, ...] = ()
    seconds: float = 0.0
    collect_seconds: float = 0.0
    log: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether there are outputs to judge."""
        return self.status == "OK"


class Died(Exception):
    """The worker is gone. `status` is CRASHED or TIMEOUT."""

    def __init__(self, status: str, reason: str):
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True, slots=True)
class Sample:
    """One timing of `inner` calls, after untimed ones.

    wall_ns: the worker's clock, bound before the backend was imported. raw_ns: the monotonic clock read in C around
    the same calls (0 without the C helper). parent_ns: the parent's clock around the whole exchange, untimed calls
    included: an upper bound that no backend can bend. cpu_ns: processor time of the worker, all its threads.
    switches: involuntary context switches.
    """

    wall_ns: int
    cpu_ns: int
    switches: int
    inner: int
    raw_ns: int = 0
    parent_ns: int = 0


class Lies(NamedTuple):  # a tuple pickles several times faster than a dataclass
    """Where one array lies: in a segment, or (private placement) in the worker's own block. Offsets in bytes."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    twin_offset: int = -1
    twin_strides: tuple[int, ...] = ()


class Plan(NamedTuple):
    """Everything a worker needs to build the arrays of one call.

    segment: (number, offset in the file, length). start, length: the part of it that this plan owns.
    open: (offset, length, is writable) of the pages that may be touched; all else of the plan is inaccessible.
    scratch: per wanted output, where a returned array is copied to.
    private: bytes of private memory for the twins; 0 for guarded placements.
    """

    segment: tuple[int, int, int]
    start: int
    length: int
    open: tuple[tuple[int, int, bool], ...]
    inputs: Mapping[str, Lies]
    out: Mapping[str, Lies]
    scratch: Mapping[str, Lies]
    alias: tuple[str, str] | None = None
    private: int = 0


def pack(verb: str, fields: Mapping[str, Any]) -> bytes:
    """A request as bytes."""
    body = pickle.dumps((verb, fields), pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


def serve_one(connection: socket.socket) -> tuple[str, dict[str, Any]] | None:
    """The next request, in the worker; None when the parent is gone."""
    head = _read(connection, _LENGTH.size)
    if head is None:
        return None
    body = _read(connection, _LENGTH.unpack(head)[0])
    if body is None:
        return None
    verb, fields = pickle.loads(body)
    return verb, fields


def _read(connection: socket.socket, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)


def pack_answer(answer: Mapping[str, Any]) -> bytes:
    """An answer as bytes."""
    body = json.dumps(answer, default=str).encode()
    return _LENGTH.pack(len(body)) + body


class AnswerReader:
    """Puts an answer together from what arrives, and believes nothing."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, part: bytes) -> dict[str, Any] | None:
        """The answer when it is complete, else None. Raises BackendBroken when the bytes are not one."""
        self._bytes += part
        if len(self._bytes) < _LENGTH.size:
            return None
        length = _LENGTH.unpack_from(self._bytes)[0]
        if length > _MOST:
            raise BackendBroken(NONSENSE)
        if len(self._bytes) < _LENGTH.size + length:
            return None
        try:
            answer = json.loads(self._bytes[_LENGTH.size :])
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise BackendBroken(NONSENSE)
        return answer
