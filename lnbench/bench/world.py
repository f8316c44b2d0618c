"""What bench needs of the outside: workers, a clock, sleep, and somebody who knows what is right.

Everything that takes real time comes through here, so that tests put scripted sessions and clocks in its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from lnbench import laws, places
from lnbench.backend import Facts
from lnbench.case import Case
from lnbench.protocol import Description, Reply, Request, Sample

Arrays = Mapping[str, np.ndarray]


class HandleLike(Protocol):
    """One prepared call that stays open in its worker."""

    def load(self, inputs: Arrays) -> Reply | None:
        """New content at the same addresses; a reply when that failed."""
        ...

    def run(self) -> Reply: ...

    def collect(self) -> Reply:
        """The outputs of the last call, without running again."""
        ...

    def sample(self, inner: int, untimed: int = 1) -> Sample | Reply: ...

    def close(self) -> None: ...


class SessionLike(Protocol):
    """One worker process with one backend."""

    @property
    def description(self) -> Description: ...

    @property
    def pid(self) -> int | None: ...

    def supports(self, case: Case) -> str | None: ...

    def run(self, request: Request) -> Reply: ...

    def open(self, request: Request) -> HandleLike | Reply: ...

    def sample(self, handles: Sequence[HandleLike], inner: int, untimed: int = 1) -> Sample | Reply: ...

    def cpu_seconds(self) -> float: ...

    def threads_now(self) -> int: ...

    def freeze(self) -> None: ...

    def thaw(self) -> None: ...

    def close(self) -> None: ...


class Truth(Protocol):
    """The "was it right" function: bench knows no correctness of its own."""

    def is_right(self, case: Case, pass_: str, inputs: Arrays, outputs: Arrays, facts: Facts) -> str | None:
        """None when the outputs are right, else the reason, a sentence."""
        ...

    def statistics(self, case: Case, inputs: Arrays, facts: Facts) -> Arrays:
        """mean and statistic that backward is given when a backend's own forward returns none."""
        ...


def open_session(
    spec: str,
    *,
    threads: int,
    timeout: float,
    environment: Mapping[str, str],
    allocator: str,
    processors: Sequence[int] | None = None,
) -> SessionLike:
    """A worker process for the backend `spec`."""
    from lnbench.pool import Session

    session = Session(
        spec, threads=threads, timeout=timeout, environment=environment, allocator=allocator, processors=processors
    )
    return cast(SessionLike, session)  # its sample() takes its own handles only


def is_runnable(pid: int | None) -> bool:
    """Whether a thread of the process runs or waits for a processor; False where the system does not tell."""
    folder = Path(f"/proc/{pid}/task")
    try:
        states = [(task / "stat").read_bytes().rpartition(b")")[2].split()[0] for task in folder.iterdir()]
    except OSError:  # no /proc, or the process ended meanwhile
        return False
    return b"R" in states


@dataclass(frozen=True, slots=True)
class World:
    """The outside. now: a monotonic clock in seconds. machine: what disturbs at this moment (load, pressure).

    place: draws processors for a number of threads, or None.

    kept_bytes: memory for inputs that are kept from epoch to epoch; drawing large ones again costs seconds.
    """

    truth: Truth
    open_session: Callable[..., SessionLike] = open_session
    draw: Callable[..., Arrays] = laws.draw
    now: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep
    is_runnable: Callable[[int | None], bool] = is_runnable
    machine: Callable[[], Mapping[str, float]] = field(default=dict)
    kept_bytes: int = 1 << 30
    place: Callable[[int, np.random.Generator], tuple[int, ...] | None] = places.draw
