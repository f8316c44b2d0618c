"""One item in one epoch: its calls prepared, checked and audited, then round after round of samples.

Only one worker works at a time. Leaves the workers to `crew.py`, how many epochs and rounds there are to `runner.py`,
and what samples say to `verdicts.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from lnbench.bench import quiet, schedule
from lnbench.bench.audit import audit
from lnbench.bench.budget import Spent
from lnbench.bench.calls import Failed, Lane, TimedCall
from lnbench.bench.crew import Circumstances, Crew, Memory
from lnbench.bench.record import Block, Fault, Item, Timing

T = TypeVar("T")

BIG_LOAD = 16 << 20  # bytes of x above which inputs are changed before some samples only
RECHECKS = 16  # one timed call in so many is checked again, and one per backend and item at least


@dataclass(slots=True)
class Measured:
    """What became of one item in one epoch, and what it cost."""

    block: Block | None = None
    spent: Spent = field(default_factory=Spent)
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
        started, judged = self._now(), self.memory.judged
        once = sampling = 0.0
        done = lanes = 0
        try:
            self._prepare(names)
            _, once = self._clocked(self._audit)
            lanes = len(self._calls)
            if self._calls:
                wanted = rounds(lanes)
                (timings, done), sampling = self._clocked(lambda: self._rounds(wanted))
                self._last_checks()
                self._found.block = self._block(stage, epoch, done, timings, started)
        finally:
            for call in self._calls.values():
                call.close()
        judged = self.memory.judged - judged
        fixed = self._now() - started - once - sampling - judged
        self._found.spent = Spent(once, judged, max(0.0, fixed), sampling, done, max(1, lanes))
        return self._found

    def _now(self) -> float:
        return self.memory.world.now()

    def _clocked(self, action: Callable[[], T]) -> tuple[T, float]:
        """What `action` returns, and the seconds that it takes beside judging."""
        before, judged = self._now(), self.memory.judged
        result = action()
        return result, self._now() - before - (self.memory.judged - judged)

    def _block(self, stage: int, epoch: int, done: int, timings: list[Timing], started: float) -> Block | None:
        names = tuple(self._calls)
        kept = tuple(t for t in timings if t.backend in names and t.round < done)
        machine = dict(self.memory.world.machine())
        block = Block(self.item, stage, epoch, done, names, kept, self._now() - started, machine, self.crew.processors)
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
        for call in self._calls.values():
            self.memory.inputs.forget(call.item.case)

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
