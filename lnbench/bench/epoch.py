"""One epoch: fresh workers in random order and circumstances, then item after item, round after round.

Only one worker works at a time. Leaves how many epochs there are to `runner.py`, and what samples say to `verdicts.py`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import TracebackType

import numpy as np

from lnbench.bench import quiet, schedule
from lnbench.bench.audit import audit
from lnbench.bench.calls import Checker, Failed, Inputs, Lane, TimedCall
from lnbench.bench.record import Block, Contender, Fault, Item, Timing
from lnbench.bench.world import World
from lnbench.errors import BackendBroken

BIG_LOAD = 16 << 20  # bytes of x above which inputs are changed before some samples only
RECHECKS = 16  # one timed call in so many is checked again, and one per backend and item at least


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What holds for every epoch of a run. audit: look for timings that are not honest, once per item and backend."""

    seed: int = 0
    timeout: float = 60.0
    freeze: bool = False
    audit: bool = True
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


@dataclass(slots=True)
class Crew:
    """The workers of one epoch with one thread count. A context manager that ends them all.

    broken: why a contender has no worker.
    """

    lanes: dict[str, Lane] = field(default_factory=dict)
    broken: dict[str, Fault] = field(default_factory=dict)

    @classmethod
    def start(
        cls, contenders: Sequence[Contender], threads: int, rng: np.random.Generator, memory: Memory, how: Circumstances
    ) -> Crew:
        """Starts all workers in random order. Raises Unavailable or UnknownBackend; a broken one is noted."""
        crew = cls()
        for number in schedule.shuffled(len(contenders), rng):
            contender = contenders[number]
            variables = {**how.environment, **dict(contender.environment), **schedule.random_environment(rng)}
            session = memory.world.open_session(
                contender.spec, threads=threads, timeout=how.timeout, environment=variables, allocator=how.allocator
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


@dataclass(slots=True)
class Measured:
    """What became of one item in one epoch."""

    block: Block | None = None
    faults: dict[str, Fault] = field(default_factory=dict)
    suspicions: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class ItemRun:
    """The measurement of one item in one epoch.

    deadline: on the world's clock; past it no further Latin square is begun. tick: called between rounds.
    """

    item: Item
    crew: Crew
    memory: Memory
    how: Circumstances
    rng: np.random.Generator
    deadline: float = math.inf
    tick: Callable[[], None] = lambda: None
    _calls: dict[str, TimedCall] = field(default_factory=dict)
    _found: Measured = field(default_factory=Measured)
    _last: TimedCall | None = None

    def measure(self, names: Iterable[str], stage: int, epoch: int, rounds: Callable[[int], int]) -> Measured:
        """Prepares, checks, audits and times the backends `names`; `rounds(lanes)` says how often."""
        started = self.memory.world.now()
        try:
            self._prepare(names)
            self._audit()
            if self._calls:
                timings, done = self._rounds(rounds(len(self._calls)))
                self._last_checks()
                self._found.block = self._block(stage, epoch, done, timings, started)
        finally:
            for call in self._calls.values():
                call.close()
        return self._found

    def _block(self, stage: int, epoch: int, done: int, timings: list[Timing], started: float) -> Block | None:
        world, names = self.memory.world, tuple(self._calls)
        kept = tuple(t for t in timings if t.backend in names and t.round < done)
        seconds = world.now() - started
        block = Block(self.item, stage, epoch, done, names, kept, seconds, dict(world.machine()))
        return block if done and block.is_complete else None

    def _guard(self, name: str, action: Callable[[], None]) -> bool:
        """Runs `action`; a failure ends this backend on this item."""
        try:
            action()
        except Failed as failed:
            self._drop(name, failed.fault)
            return False
        return True

    def _drop(self, name: str, fault: Fault) -> None:
        self._found.faults[name] = fault
        call = self._calls.pop(name, None)
        if call is not None:
            if self._last is call:
                self._last = None
            call.close()

    def _prepare(self, names: Iterable[str]) -> None:
        wanted = [n for n in names if n in self.crew.lanes]
        for number in schedule.shuffled(len(wanted), self.rng):
            lane = self.crew.lanes[wanted[number]]

            def prepare(lane: Lane = lane) -> None:
                seed = int(self.rng.integers(1 << 31))
                self._calls[lane.contender.name] = lane.prepare(self.item, seed, self.how.cold_bytes)

            self._guard(lane.contender.name, prepare)
            quiet.settle(lane, lane.world)

    def _audit(self) -> None:
        key, inner = self.item.key, self._inner()
        if not self.how.audit:
            return
        for name, call in list(self._calls.items()):
            if (key, name) in self.memory.audited:
                continue

            def look(name: str = name, call: TimedCall = call) -> None:
                reason = audit(call, inner)
                if reason is not None:
                    self._found.suspicions[name] = reason

            if self._guard(name, look):
                self.memory.audited.add((key, name))
            quiet.settle(call.lane, call.lane.world)

    def _inner(self) -> int:
        """The number of calls in a sample, found when the item is met first."""
        key = self.item.key
        if key not in self.memory.inner and self._calls:
            count = schedule.InnerCount(self.how.floor_ns, self.how.ceiling_ns)
            schedule.find_inner(self._walls, count)
            self.memory.inner[key] = count.inner
        return self.memory.inner.get(key, 1)

    def _walls(self, inner: int) -> list[int]:
        walls = []
        for name in list(self._calls):

            def sample(name: str = name) -> None:
                self._rest()
                walls.append(self._sample(self._calls[name], inner, 0, 0).wall_ns)

            self._guard(name, sample)
        self.memory.round_seconds[self.item.key] = sum(walls) * (1 + 1 / inner) * 1e-9
        return walls or [self.how.floor_ns]

    def _rounds(self, rounds: int) -> tuple[list[Timing], int]:
        """All samples, and how many rounds were finished: whole Latin squares until the deadline."""
        lanes, timings, done = list(self._calls), list[Timing](), 0
        inner = self._inner()
        order = schedule.latin_rounds(len(lanes), rounds, self.rng)
        for number, slots in enumerate(order):
            if number % len(lanes) == 0 and number and self.memory.world.now() > self.deadline:
                break
            for slot, lane in enumerate(slots):
                self._slot(lanes[lane], inner, number, slot, timings)
            done = number + 1
            self.tick()
        self._rest(timings)
        return timings, done

    def _slot(self, name: str, inner: int, number: int, slot: int, timings: list[Timing]) -> None:
        call = self._calls.get(name)
        if call is None:
            return
        self._rest(timings)

        def take() -> None:
            big = call.item.case.bytes > BIG_LOAD
            if number == 0 or not big or self.rng.random() < BIG_LOAD / call.item.case.bytes:
                call.change()
            timings.append(self._sample(call, inner, number, slot))
            if self.rng.random() * RECHECKS < 1:
                call.recheck()

        self._guard(name, take)

    def _sample(self, call: TimedCall, inner: int, number: int, slot: int) -> Timing:
        call.lane.session.thaw()
        self._last = call
        sample = call.sample(inner)
        ended = round(1e9 * call.lane.session.cpu_seconds())
        return Timing(
            backend=call.lane.contender.name,
            round=number,
            slot=slot,
            inner=inner,
            wall_ns=sample.wall_ns,
            cpu_ns=sample.cpu_ns,
            switches=sample.switches,
            elapsed_ns=sample.parent_ns,
            idle_ns=-ended,  # completed by `_rest` once the worker has come to rest
        )

    def _rest(self, timings: list[Timing] | None = None) -> None:
        """Waits until the worker that was timed last is at rest, and notes what it used until then."""
        if self._last is None:
            return
        lane = self._last.lane
        quiet.settle(lane, lane.world)
        if timings and timings[-1].idle_ns < 0 and timings[-1].backend == lane.contender.name:
            used = round(1e9 * lane.session.cpu_seconds()) + timings[-1].idle_ns
            timings[-1] = replace(timings[-1], idle_ns=max(0, used))

    def _last_checks(self) -> None:
        """One more look at what a timed call left behind, for every backend."""
        for name, call in list(self._calls.items()):

            def look(call: TimedCall = call) -> None:
                call.sample(1)
                call.recheck()

            self._guard(name, look)
