"""Keeps the workers of one verification: one session per backend and thread setting, and the tally of its crashes.

Leaves starting and talking to a worker to `lnbench.pool`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType

from lnbench.pool import Description, Session

HANGS_ALLOWED = 2
CRASHES_ALLOWED = 3


@dataclass(slots=True)
class Tally:
    """How often a backend died; after two hangs or three crashes the rest of its cases is not run."""

    hangs: int = 0
    crashes: int = 0

    def count(self, status: str) -> None:
        self.hangs += status == "TIMEOUT"
        self.crashes += status == "CRASHED"

    def replaced_by(self, other: Tally | None) -> Tally:
        """Takes over the counts of `other`, when there is one; returns a copy of them."""
        if other is not None:
            self.hangs, self.crashes = other.hangs, other.crashes
        return Tally(self.hangs, self.crashes)

    def since(self, before: Tally) -> Tally:
        """What was counted after `before`."""
        return Tally(self.hangs - before.hangs, self.crashes - before.crashes)

    @property
    def reason(self) -> str | None:
        """Why nothing more is run on this backend, or None."""
        if self.hangs >= HANGS_ALLOWED:
            return f"not run: the backend hung {self.hangs} times before"
        if self.crashes >= CRASHES_ALLOWED:
            return f"not run: the backend crashed {self.crashes} times before"
        return None


@dataclass(slots=True)
class Sessions:
    """Sessions by backend and, for backends whose threads are fixed for a process, by thread count. A context manager.

    timeout: seconds that one request may take before the worker is killed.
    """

    timeout: float
    in_process: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    _open: dict[tuple[str, int], Session] = field(default_factory=dict)
    _tallies: dict[str, Tally] = field(default_factory=dict)

    def get(self, backend: str, threads: int) -> Session:
        """The session that runs `backend` with `threads` threads."""
        first = self._open.get((backend, 0))
        if first is None:
            first = self._start(backend, 0, threads)
        if first.description.facts.threads != "process" or first.threads == threads:
            return first
        return self._open.get((backend, threads)) or self._start(backend, threads, threads)

    def describe(self, backend: str, threads: int = 1) -> Description:
        """What the backend says of itself. Raises Unavailable, UnknownBackend or BackendBroken."""
        return self.get(backend, threads).description

    def tally(self, backend: str) -> Tally:
        return self._tallies.setdefault(backend, Tally())

    def _start(self, backend: str, slot: int, threads: int) -> Session:
        session = Session(
            backend,
            threads=threads,
            timeout=self.timeout,
            in_process=self.in_process,
            environment=self.environment,
        )
        self._open[backend, slot] = session
        return session

    def close(self) -> None:
        for session in self._open.values():
            session.close()
        self._open.clear()

    def __enter__(self) -> Sessions:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
