"""Inside the worker process: resolves the backend and serves one request after the other.

Owns the requests, the timed loop, and that whatever a backend raises becomes an answer. The arrays of a call are
`lnbench.prepared`'s; the parent's side is `lnbench.pool`; starting and stopping the process is `lnbench.process`'s.
"""

from __future__ import annotations

# Bound before any backend is imported, so that patching the modules later changes nothing.
import contextlib
import gc
import mmap
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice, repeat
from resource import RUSAGE_SELF, getrusage
from time import perf_counter_ns, process_time_ns
from typing import Any

import numpy as np

from lnbench import memory, places, probe, protocol, registry
from lnbench.backend import Backend
from lnbench.case import Case
from lnbench.errors import LnbenchError, Unsupported
from lnbench.postmortem import explain, text_of
from lnbench.prepared import Prepared
from lnbench.protocol import Plan

Answer = dict[str, Any]


class Server:
    """Answers requests; knows nothing of how they arrive."""

    def __init__(self, fd: int, control: memory.Control, is_local: bool = False):
        self._fd, self._control, self._is_local = fd, control, is_local
        self._segments: dict[int, memory.Segment] = {}
        self._prepared: dict[int, Prepared] = {}
        self._backend: Backend | None = None

    def answer(self, verb: str, fields: Mapping[str, Any]) -> Answer:
        """One answer; whatever the backend raises becomes one too."""
        try:
            answer: Answer = getattr(self, f"do_{verb}")(**fields)
        except Unsupported as reason:
            return {"status": "SKIPPED", "reason": text_of(reason) or "not supported"}
        except LnbenchError as error:
            return {"status": "ERROR", "error": type(error).__name__, "reason": text_of(error)}
        except SystemExit as leave:
            status = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
            return {"status": "CRASHED", "reason": f"exited with status {status} while {self._control.phase}"}
        except BaseException as error:
            if self._is_local and isinstance(error, KeyboardInterrupt):
                raise
            return {"status": "ERROR", "reason": explain(error)}
        answer.setdefault("status", "OK")
        return answer

    @property
    def backend(self) -> Backend:
        assert self._backend is not None
        return self._backend

    def do_hello(self, spec: str, processors: Sequence[int] | None) -> Answer:
        """Resolves the backend and describes it, on the processors given: libraries look how many there are."""
        if processors is not None:
            places.move(processors)
        self._control.phase = "being imported"
        self._backend = registry.resolve(spec)
        self._control.phase = "describing itself"
        described = {str(k): str(v) for k, v in self._backend.describe().items()}
        gc.collect()
        gc.freeze()
        return {
            "name": str(self._backend.name),
            "described": described,
            "closes": hasattr(self._backend, "close"),
        }

    def do_names(self, spec: str) -> Answer:
        """All backends that a spec may mean."""
        self._control.phase = "being imported"
        return {"specs": registry.candidates(spec)}

    def do_supports(self, case: Case) -> Answer:
        self._control.phase = "describing itself"
        reason = self.backend.supports(case)
        return {"reason": None if reason is None else str(reason)}

    def do_prepare(
        self, handle: int, case: Case, pass_: str, threads: int, plan: Plan, dropped: tuple[int, ...]
    ) -> Answer:
        """Maps and protects the plan's memory, then lets the backend prepare its call."""
        for number in dropped:
            self._segments.pop(number, None)
        segment = self._map(*plan.segment)
        segment.protect(plan.start, plan.length, memory.NONE)
        for offset, length, is_writable in plan.open:
            segment.protect(offset, length, memory.WRITE if is_writable or plan.private else memory.READ)
        self._control.phase = "preparing"
        reason = self.backend.supports(case)
        if reason is not None:
            return {"status": "SKIPPED", "reason": str(reason)}
        self._prepared[handle] = Prepared(self.backend, case, pass_, threads, plan, segment)
        self._control.put_guarded()
        return {}

    def _map(self, number: int, offset: int, length: int) -> memory.Segment:
        if number not in self._segments:
            self._segments[number] = segment = memory.Segment(self._fd, number, offset, length)
            self._control.put_address(number, segment.address)
        return self._segments[number]

    def do_load(self, handle: int) -> Answer:
        """Lets the call fetch the present content of its inputs; outputs keep what the last call left."""
        prepared = self._prepared[handle]
        self._control.phase = "loading"
        prepared.refresh(prepared.plan.inputs)
        if prepared.load is not None:
            prepared.load()
        return {}

    def do_refresh(self, handle: int) -> Answer:
        """Brings private twins up to what the parent wrote."""
        self._prepared[handle].refresh()
        return {}

    def do_run(self, handle: int, is_fresh: bool = False) -> Answer:
        """Runs once and collects. is_fresh: private twins are brought up to date first."""
        prepared = self._prepared[handle]
        if is_fresh:
            prepared.refresh()
        self._control.phase = "running"
        start = perf_counter_ns()
        prepared.run()
        elapsed = perf_counter_ns() - start
        return {"run_ns": elapsed, **self.do_collect(handle)}

    def do_collect(self, handle: int) -> Answer:
        """What the last run left."""
        self._control.phase = "giving its outputs"
        return self._prepared[handle].collect()

    def do_once(self, handle: int, **fields: Any) -> Answer:
        """Prepares, loads, runs, collects and releases."""
        try:
            answer = self.do_prepare(handle, **fields)
            if "status" in answer:
                return answer
            prepared = self._prepared[handle]
            if prepared.load is not None:
                self._control.phase = "loading"
                prepared.load()
            return self.do_run(handle)
        finally:
            self._prepared.pop(handle, None)

    def do_release(self, handle: int) -> Answer:
        self._prepared.pop(handle, None)
        return {}

    def do_sample(self, handles: list[int], inner: int, untimed: int) -> Answer:
        """Times `inner` calls that take turns over `handles`."""
        runs = [self._prepared[h].run for h in handles]
        self._control.phase = "running"
        raw = _raw_clock()
        for run in runs * untimed:
            run()
        turns = repeat(runs[0], inner) if len(runs) == 1 else islice(cycle(runs), inner)
        was_enabled = gc.isenabled()
        gc.disable()
        switches, cpu, outer = getrusage(RUSAGE_SELF).ru_nivcsw, process_time_ns(), raw()
        start = perf_counter_ns()
        for run in turns:
            run()
        wall = perf_counter_ns() - start
        outer = raw() - outer
        cpu = process_time_ns() - cpu
        switches = getrusage(RUSAGE_SELF).ru_nivcsw - switches
        if was_enabled:
            gc.enable()
        return {"wall_ns": wall, "cpu_ns": cpu, "switches": switches, "inner": inner, "raw_ns": outer}

    def do_close(self) -> Answer:
        self._control.phase = "closing"
        self._prepared.clear()
        close = getattr(self._backend, "close", None)
        if close is not None:
            close()
        return {}


def _raw_clock() -> Callable[[], int]:
    loaded = probe.library()
    return (lambda: 0) if loaded is None else loaded.lnb_probe_now


def main(arguments: list[str]) -> None:
    """Serves the parent over inherited descriptors: connection, shared file, lifeline; then the limit in bytes or 0."""
    from lnbench.process import settle

    connection_fd, arena_fd, lifeline_fd, limit = map(int, arguments)
    settle(lifeline_fd, limit)
    connection = socket.socket(fileno=connection_fd)
    page = mmap.mmap(arena_fd, memory.PAGE)
    control = memory.Control(page)
    probe.install(np.frombuffer(page, np.uint8).ctypes.data)
    with contextlib.suppress(OSError):  # the backend closed the connection: nothing can be answered any more
        _serve(connection, Server(arena_fd, control))
        os._exit(0)  # no finalizers of the backend's modules: they could hang or print
    os._exit(protocol.LOST_CONNECTION)


def _serve(connection: socket.socket, server: Server) -> None:
    owner = os.getpid()
    while (request := protocol.serve_one(connection)) is not None:
        answer = protocol.pack_answer(server.answer(*request))
        if os.getpid() != owner:
            os._exit(0)  # a child that the backend forked; only the worker itself answers
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)
        connection.sendall(answer)
        if request[0] == "close":
            return


def _flush(stream: Any) -> None:
    try:
        stream.flush()
    except Exception:  # a backend may have closed or replaced it; what it printed is lost, nothing else
        return
