"""The workers of one epoch, started in random order and circumstances, and what epochs hand on to each other.

Leaves what the workers are asked to `epoch.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from lnbench.bench import schedule
from lnbench.bench.calls import Checker, Inputs, Lane
from lnbench.bench.record import Contender, Fault
from lnbench.bench.world import World
from lnbench.errors import BackendBroken


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What holds for every epoch of a run.

    audit: look for timings that are not honest, once per item and backend. is_placed: all workers of an epoch run on the
    same processors, as many as they have threads, drawn anew for each epoch. Otherwise the system puts each somewhere and
    leaves it there, and one that got the quieter processor looks faster for the whole epoch.
    """

    seed: int = 0
    timeout: float = 60.0
    freeze: bool = False
    audit: bool = True
    is_placed: bool = True
    allocator: str = "keep"
    cold_bytes: int = 3 * (32 << 20)
    floor_ns: int = schedule.FLOOR_NS
    ceiling_ns: int = schedule.CEILING_NS
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Memory:
    """What epochs hand on: inner counts and the cost of a round by item, what was audited, inputs and checked bits."""

    world: World
    inner: dict[tuple[str, str, str], int] = field(default_factory=dict)
    round_seconds: dict[tuple[str, str, str], float] = field(default_factory=dict)
    audited: set[tuple[tuple[str, str, str], str]] = field(default_factory=set)
    inputs: Inputs = field(init=False)
    checker: Checker = field(init=False)

    def __post_init__(self) -> None:
        self.inputs, self.checker = Inputs(self.world), Checker(self.world)

    @property
    def judged(self) -> float:
        """Seconds spent so far on drawing inputs and on judging outputs."""
        return self.inputs.seconds + self.checker.seconds


@dataclass(slots=True)
class Crew:
    """The workers of one epoch with one thread count. A context manager that ends them all.

    broken: why a contender has no worker. processors: those that all workers run on; empty for any.
    """

    lanes: dict[str, Lane] = field(default_factory=dict)
    broken: dict[str, Fault] = field(default_factory=dict)
    processors: tuple[int, ...] = ()

    @classmethod
    def start(
        cls, contenders: Sequence[Contender], threads: int, rng: np.random.Generator, memory: Memory, how: Circumstances
    ) -> Crew:
        """Starts all workers in random order. Raises Unavailable or UnknownBackend; a broken one is noted."""
        processors = memory.world.place(threads, rng) if how.is_placed else None
        crew = cls(processors=processors or ())
        for number in schedule.shuffled(len(contenders), rng):
            contender = contenders[number]
            variables = {**how.environment, **dict(contender.environment), **schedule.random_environment(rng)}
            session = memory.world.open_session(
                contender.spec,
                threads=threads,
                timeout=how.timeout,
                environment=variables,
                allocator=how.allocator,
                processors=processors,
            )
            crew.lanes[contender.name] = Lane(
                contender, session, memory.world, memory.inputs, memory.checker, restless=how.freeze
            )
        try:
            crew._wait()
        except BaseException:
            crew.close()
            raise
        return crew

    def _wait(self) -> None:
        """Lets all workers start, as many at once as there are processors: importing a framework takes seconds."""
        with ThreadPoolExecutor(max(1, min(len(self.lanes), os.cpu_count() or 1))) as pool:
            started = {name: pool.submit(_start, lane) for name, lane in self.lanes.items()}
        for name, result in started.items():
            try:
                result.result()
            except BackendBroken as error:
                self.lanes.pop(name).session.close()
                self.broken[name] = Fault(str(error), crashed=True)

    def close(self) -> None:
        for lane in self.lanes.values():
            lane.session.close()

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _start(lane: Lane) -> None:
    _ = lane.session.description
