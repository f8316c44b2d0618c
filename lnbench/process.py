"""The operating system's side of a worker: environment, start, death, clocks, signals.

Owns the process group of one worker. What is said to it is `lnbench.pool`'s.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from lnbench.protocol import LOST_CONNECTION, AnswerReader, Died

_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); import lnbench.worker; del sys.path[0]; "
    "lnbench.worker.main(sys.argv[2:])"
)
_LOG_BYTES = 1 << 16
_POLL_SECONDS = 0.05  # where the system cannot announce a death
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)
# Idle threads sleep instead of spinning: a neighbour is measured meanwhile.
_PASSIVE = {
    "OMP_WAIT_POLICY": "passive",
    "OMP_DYNAMIC": "false",
    "KMP_BLOCKTIME": "0",
    "GOMP_SPINCOUNT": "0",
    "OPENBLAS_THREAD_TIMEOUT": "4",
    "TF_NUM_INTEROP_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
}
# Freed memory stays with the process, so that allocating an output does not mean page faults in every call.
_KEEP = {"MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(64 << 20), "MALLOC_MMAP_MAX_": "0"}


def environment(threads: int, allocator: str, extra: Mapping[str, str]) -> dict[str, str]:
    """Variables for a worker that may use `threads` threads; `extra` wins over ours, ours over the caller's."""
    found = {**os.environ, **dict.fromkeys(_THREADS, str(threads)), **_PASSIVE}
    if allocator == "keep":
        found |= _KEEP
    return {**found, **extra}


class Process:
    """One worker process and its descendants: a session and process group of their own."""

    def __init__(self, arena_fd: int, environ: Mapping[str, str], limit: int = 0):
        ours, theirs = socket.socketpair()
        read_log, write_log = os.pipe()
        life_read, self._life = os.pipe()
        passed = (theirs.fileno(), arena_fd, life_read)
        root = str(Path(__file__).resolve().parents[1])
        command = [sys.executable, "-P", "-c", _BOOT, root, *map(str, passed), str(limit)]
        try:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=write_log,
                stderr=write_log,
                pass_fds=passed,
                env=dict(environ),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            os.close(read_log)
            os.close(self._life)
            raise
        finally:
            theirs.close()
            os.close(write_log)
            os.close(life_read)
        self.pid = self._popen.pid
        self._connection, self._log_fd = ours, read_log
        os.set_blocking(read_log, False)
        ours.setblocking(False)
        self._log = bytearray()
        self._is_frozen = False
        self._pidfd = _pidfd(self.pid)
        self._poll = select.poll()
        for fd in (ours.fileno(), read_log, self._pidfd):
            if fd >= 0:
                self._poll.register(fd, select.POLLIN)

    def exchange(self, request: bytes, seconds: float) -> dict[str, object]:
        """Sends a request and waits for its answer. Raises Died (after `seconds`: TIMEOUT) and BackendBroken."""
        self.thaw()
        self._log.clear()
        deadline = time.monotonic() + seconds
        self._send(request, deadline, seconds)
        reader = AnswerReader()
        while True:
            for fd in self._wait(deadline, seconds):
                if fd == self._log_fd:
                    self._drain()
                elif fd == self._connection.fileno():
                    part = self._receive()
                    if not part:
                        raise self._death()
                    answer = reader.feed(part)
                    if answer is not None:
                        self._drain()
                        return answer
                elif fd == self._pidfd:
                    # An answer may still lie in the socket; after it the socket now reports its end, even when a
                    # forked child of the backend holds the other side open.
                    self._poll.unregister(self._pidfd)
                    self._connection.shutdown(socket.SHUT_RDWR)

    def _send(self, request: bytes, deadline: float, seconds: float) -> None:
        view = memoryview(request)
        while view:
            try:
                view = view[self._connection.send(view) :]
            except BlockingIOError:
                writable = select.poll()
                writable.register(self._connection, select.POLLOUT)
                writable.poll(_POLL_SECONDS * 1000)
                self._drain()
                if time.monotonic() > deadline:
                    raise Died("TIMEOUT", f"did not answer within {seconds:g} s") from None
            except OSError:
                raise self._death() from None

    def _wait(self, deadline: float, seconds: float) -> list[int]:
        left = deadline - time.monotonic()
        if left <= 0:
            raise Died("TIMEOUT", f"did not finish within {seconds:g} s")
        limit = left if self._pidfd >= 0 else min(left, _POLL_SECONDS)
        ready = [fd for fd, _ in self._poll.poll(limit * 1000)]
        if not ready and self._pidfd < 0 and self._status() is not None:
            self._connection.shutdown(socket.SHUT_RDWR)
        return ready

    def _receive(self) -> bytes:
        try:
            return self._connection.recv(1 << 20)
        except OSError:
            return b""

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._log_fd, _LOG_BYTES):
                self._log += part
                del self._log[: max(0, len(self._log) - _LOG_BYTES)]

    @property
    def log(self) -> str:
        """What the worker printed since the last request."""
        return self._log.decode(errors="replace")

    def _status(self) -> int | None:
        """The exit status, negative for a signal, without reaping: the process id stays ours."""
        if not hasattr(os, "waitid"):
            return self._popen.poll()
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if found is None:
            return None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status

    def _death(self) -> Died:
        """Why the connection ended."""
        deadline = time.monotonic() + 1
        while (status := self._status()) is None and time.monotonic() < deadline:
            time.sleep(0.002)
        with contextlib.suppress(OSError):
            self._drain()
        if status is None or status == LOST_CONNECTION:
            return Died("CRASHED", "closed its connection to lnbench")
        if status >= 0:
            return Died("CRASHED", f"exited with status {status}")
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        hint = " (perhaps by the system, out of memory)" if -status == signal.SIGKILL else ""
        return Died("CRASHED", f"was killed by {name}{hint}")

    def cpu_seconds(self) -> float:
        """Processor time of the worker, all threads, from outside."""
        if sys.platform == "linux":
            return time.clock_gettime((~self.pid << 3) | 2)  # what clock_getcpuclockid(3) computes
        import psutil

        used = psutil.Process(self.pid).cpu_times()
        return float(used.user + used.system)

    def threads_now(self) -> int:
        """How many threads the worker has, counted from outside."""
        if sys.platform == "linux":
            return len(os.listdir(f"/proc/{self.pid}/task"))
        import psutil

        return int(psutil.Process(self.pid).num_threads())

    def freeze(self) -> None:
        """Stops the process group."""
        os.killpg(self.pid, signal.SIGSTOP)
        self._is_frozen = True

    def thaw(self) -> None:
        """Lets a frozen process group go on."""
        if self._is_frozen:
            os.killpg(self.pid, signal.SIGCONT)
            self._is_frozen = False

    def __del__(self) -> None:
        if hasattr(self, "_poll"):  # else it never started
            self.kill()

    def kill(self) -> None:
        """Ends the whole process group at once and forgets it."""
        if self._life < 0:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # Before reaping: until then nobody else can have this group's number.
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()
        self._connection.close()
        for fd in (self._log_fd, self._life, self._pidfd):
            if fd >= 0:
                os.close(fd)
        self._life = -1


def _pidfd(pid: int) -> int:
    """A descriptor that becomes readable when the process ends; -1 where the system has none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1


def settle(lifeline: int, limit: int) -> None:
    """Run by the worker before anything else: dies with its parent, is the first to go when memory is short."""
    import faulthandler
    import resource

    if hasattr(fcntl, "F_SETSIG") or sys.platform == "linux":
        # When the parent is gone the pipe closes, and the system kills this whole process group, busy or not.
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, getattr(fcntl, "F_SETSIG", 10), signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("700")
    faulthandler.enable(all_threads=False)
