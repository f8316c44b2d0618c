"""The parent's side of isolation: `Session` runs calls of one backend in a worker process and survives all it does.

Owns what is asked and how an answer, a crash or a hang becomes a `Reply`. The process is `lnbench.process`'s, the
memory `lnbench.buffers`'s, the worker's side `lnbench.worker`'s.
"""

from __future__ import annotations

import atexit
import contextlib
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from lnbench import errors, protocol, registry
from lnbench.backend import Facts
from lnbench.handle import Handle
from lnbench.memory import Arena
from lnbench.postmortem import autopsy, last_words, startup_error
from lnbench.process import Process, environment
from lnbench.protocol import Description, Died, Reply, Request, Sample, Violation

__all__ = ["Description", "Handle", "Reply", "Request", "Sample", "Session", "Violation", "expand"]

_START_SECONDS = 60.0  # at least: importing a large framework is slow on a busy machine
_CLOSE_SECONDS = 1.0  # at most: for a backend that has a `close`
_live: weakref.WeakSet[Session] = weakref.WeakSet()


class Session:
    """One backend in one worker process, started on first use and again after a crash. Not for several threads at once.

    spec: how the backend is named. threads: for the worker's thread pools. timeout: seconds that one request may take.
    in_process: no worker, no timeout and no protection, for debuggers and sanitizers.
    environment: variables on top of the worker's own. allocator: "keep" (freed memory stays) or "system".
    memory_limit: bytes of private memory the worker may have, 0 for no limit. processors: the only ones that the worker
    may run on, None for all.
    Every method that talks to the backend raises UnknownBackend, Unavailable or BackendBroken when it cannot start.
    """

    def __init__(
        self,
        spec: str,
        *,
        threads: int = 1,
        timeout: float = 60.0,
        in_process: bool = False,
        environment: Mapping[str, str] = {},
        allocator: str = "keep",
        memory_limit: int = 0,
        processors: Sequence[int] | None = None,
    ):
        if allocator not in ("keep", "system"):
            raise errors.UsageError(f"unknown allocator {allocator!r}; allowed: keep, system")
        self.spec, self.threads, self.timeout, self.in_process = spec, threads, timeout, in_process
        self._environment, self._allocator, self._limit = dict(environment), allocator, memory_limit
        self._processors = processors
        self._arena: Arena | None = None
        self._process: Process | None = None
        self._local: Any = None
        self._description: Description | None = None
        self._last_log = ""
        self._closes = False
        self._handles: dict[int, Handle] = {}
        self._last: Handle | None = None
        self._dropped: list[int] = []
        self._numbers = 0
        self.generation = 0
        _live.add(self)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What the backend is

    @property
    def description(self) -> Description:
        """Name, facts and all that the backend says of itself."""
        self._start()
        assert self._description is not None
        return self._description

    def supports(self, case: Any) -> str | None:
        """None when the backend takes the case, else its reason."""
        self._start()
        try:
            answer = self._ask("supports", {"case": case})
        except Died as death:
            raise errors.BackendBroken(f"backend {self.spec!r} {death.reason} when asked what it supports") from death
        if answer["status"] != "OK":
            raise errors.BackendBroken(f"backend {self.spec!r} failed when asked what it supports: {answer['reason']}")
        reason = answer.get("reason")
        return None if reason is None else str(reason)

    # Running

    def run(self, request: Request) -> Reply:
        """Prepares, loads, runs once, collects and releases."""
        self.retire()
        self._last = Handle(self, request)
        return self._last.once()

    def open(self, request: Request) -> Handle | Reply:
        """A prepared call that can be run and timed many times, or the reply that says why not."""
        self.retire()
        handle = Handle(self, request)
        reply = handle.prepare()
        if reply.is_ok:
            return handle
        handle.close()
        return reply

    def sample(self, handles: Sequence[Handle], inner: int, untimed: int = 1) -> Sample | Reply:
        """One timing of `inner` calls that take turns over `handles`, after `untimed` calls of each."""
        for handle in handles:
            reply = handle.prepare()
            if not reply.is_ok:
                return reply
        fields = {"handles": [h.number for h in handles], "inner": inner, "untimed": untimed}
        start = time.perf_counter_ns()
        answer = self._try("sample", fields)
        elapsed = time.perf_counter_ns() - start
        if isinstance(answer, Reply):
            return answer
        values = {k: int(answer[k]) for k in ("wall_ns", "cpu_ns", "switches", "inner", "raw_ns")}
        return Sample(**values, parent_ns=elapsed)

    # The worker from outside

    @property
    def pid(self) -> int | None:
        """The worker's process id, None when there is none."""
        return self._process.pid if self._process else None

    def cpu_seconds(self) -> float:
        """Processor time of the worker so far, all its threads; 0 without a worker."""
        return self._process.cpu_seconds() if self._process else 0.0

    def threads_now(self) -> int:
        """Threads of the worker at this moment, counted from outside; 0 without a worker."""
        return self._process.threads_now() if self._process else 0

    def freeze(self) -> None:
        """Stops the worker; the next request lets it go on."""
        if self._process:
            self._process.freeze()

    def thaw(self) -> None:
        """Lets a frozen worker go on."""
        if self._process:
            self._process.thaw()

    def restart(self) -> None:
        """A fresh worker process; open handles prepare themselves again when they are used."""
        self._stop()
        self._start()

    def close(self) -> None:
        """Lets the backend close, then ends the worker and everything it started."""
        if self._process is not None and self._closes:
            with contextlib.suppress(Died):
                self._ask("close", {}, _CLOSE_SECONDS)
        self._stop()
        for handle in list(self._handles.values()):
            handle.close()
        self._last = None
        if self._arena is not None:
            self._arena.close()
            self._arena = None

    # Inside

    def retire(self) -> None:
        """Gives back the memory of the last `run`, which its caller could read until now."""
        if self._last is not None:
            self._last.close()
            self._last = None

    def _register(self, handle: Handle) -> int:
        self._numbers += 1
        self._handles[self._numbers] = handle
        return self._numbers

    def _unregister(self, handle: Handle, is_prepared: bool) -> None:
        if self._handles.pop(handle.number, None) is not None and is_prepared and self._is_running:
            self._try("release", {"handle": handle.number})

    @property
    def _is_running(self) -> bool:
        return self._process is not None or self._local is not None

    def _spawn(self) -> None:
        registry.check(self.spec)
        if self._arena is None:
            self._arena = Arena()
        self._arena.control.clear()
        self.generation += 1
        if self.in_process:
            from lnbench.worker import Server

            self._local = Server(self._arena.fd, self._arena.control, is_local=True)
        else:
            variables = environment(self.threads, self._allocator, self._environment)
            self._process = Process(self._arena.fd, variables, self._limit)

    def _start(self) -> None:
        if self._is_running:
            return
        self._spawn()
        answer = self._introduce("hello", processors=self._processors)
        described = {str(k): str(v) for k, v in dict(answer["described"]).items()}
        try:
            facts = Facts.of(described)
        except errors.UsageError as error:
            self._stop()
            raise errors.UsageError(f"backend {self.spec!r}: {error}") from error
        self._closes = bool(answer.get("closes"))
        self._description = Description(str(answer["name"]), facts, described)

    def _introduce(self, verb: str, **more: Any) -> dict[str, Any]:
        """The first exchange with a new worker, which imports the backend."""
        try:
            answer = self._ask(verb, {"spec": self.spec, **more}, max(self.timeout, _START_SECONDS))
        except Died as death:
            words = self._obituary(death)
            raise errors.BackendBroken(f"backend {self.spec!r} {words.reason}{last_words(words.log)}") from death
        if answer["status"] == "OK":
            return answer
        log = self._log()
        self._stop()
        raise startup_error(self.spec, answer, log)

    def _stop(self) -> None:
        if self._local is not None:
            self._local.answer("close", {})
            self._local = None
        if self._process is not None:
            self._last_log = self._process.log
            self._process.kill()
            self._process = None

    def _ask(self, verb: str, fields: Mapping[str, Any], seconds: float | None = None) -> dict[str, Any]:
        """One exchange. Raises Died; whatever interrupts it (Ctrl-C too) ends the worker, which is out of step then."""
        if self._local is not None:
            answer: dict[str, Any] = self._local.answer(verb, fields)
            return answer
        assert self._process is not None
        try:
            answer = self._process.exchange(protocol.pack(verb, fields), self.timeout if seconds is None else seconds)
            if answer.get("status") not in protocol.STATUSES:
                raise errors.BackendBroken(protocol.NONSENSE)
        except errors.BackendBroken as error:
            self._stop()
            raise Died("CRASHED", str(error)) from error
        except BaseException:
            self._stop()
            raise
        return answer

    def _try(self, verb: str, fields: Mapping[str, Any]) -> dict[str, Any] | Reply:
        """One exchange about a call; everything but OK comes back as a Reply."""
        try:
            answer = self._ask(verb, fields)
        except Died as death:
            return self._obituary(death)
        if answer["status"] == "OK":
            return answer
        log = self._log()
        if answer["status"] == "CRASHED":
            self._stop()
        return Reply(answer["status"], str(answer.get("reason", "")), log=log)

    def _log(self) -> str:
        return self._process.log if self._process else self._last_log

    def _obituary(self, death: Died) -> Reply:
        """What a dead worker left behind, as a reply."""
        assert self._arena is not None
        return autopsy(death, self._arena.control, [h.arrangement for h in self._handles.values()], self._last_log)


def expand(spec: str, timeout: float = _START_SECONDS) -> list[str]:
    """All backends that `spec` stands for: a file may hold several (`path.py` -> `path.py:a`, `path.py:b`).

    Raises as `Session` does.
    """
    registry.check(spec)
    kind, _, attribute = registry.split(spec)
    if kind != "file" or attribute:
        return [spec]
    with Session(spec, timeout=timeout) as session:
        session._spawn()
        return [str(found) for found in session._introduce("names")["specs"]]


@atexit.register
def _close_all() -> None:
    for session in list(_live):
        session.close()
