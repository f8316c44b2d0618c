"""A whole benchmark: epochs until every row is decided or the time is up, then a second look at what seems slower.

Owns the loop, the budget and what an interruption leaves. Measuring is `epoch.py`'s, deciding `verdicts.py`'s and
`stopping.py`'s; nothing is printed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lnbench.bench import schedule, stopping, verdicts
from lnbench.bench.epoch import Circumstances, Crew, ItemRun, Measured, Memory
from lnbench.bench.outcome import Listener, Outcome, Progress
from lnbench.bench.record import RETEST, SCREEN, Block, Contender, Fault, Item, Row
from lnbench.bench.verdicts import Evidence, Rules
from lnbench.bench.world import World

TWIN = "(copy of the baseline)"
PILOT_SHARE = 0.55  # share of the budget for the pilot when a gate may have to measure suspects again
CRASHES_ALLOWED = 3


def run(
    items: Sequence[Item],
    contenders: Sequence[Contender],
    rules: Rules,
    how: Circumstances,
    world: World,
    *,
    null_control: bool = False,
    listener: Listener | None = None,
    done: Iterable[Block] = (),
) -> Outcome:
    """Measures every item on every contender and judges the rows.

    done: finished blocks of an earlier run of the same plan; they are not measured again. Raises Unavailable or
    UnknownBackend before anything is measured. Ctrl-C ends the run early with the rows of what was finished.
    """
    everyone = list(contenders)
    if null_control:
        base = next(c for c in contenders if c.name == rules.baseline)
        everyone.append(Contender(TWIN, base.spec, base.environment, base.more_rows, hidden=True))
    course = Course(list(items), everyone, rules, how, world, listener or Listener())
    course.resume(done)
    return course.go()


@dataclass(slots=True)
class Course:
    """The state of one run."""

    items: list[Item]
    contenders: list[Contender]
    rules: Rules
    how: Circumstances
    world: World
    listener: Listener
    evidence: Evidence = field(default_factory=Evidence)
    memory: Memory = field(init=False)
    budget: stopping.Budget = field(init=False)
    _epochs: dict[int, int] = field(default_factory=lambda: {SCREEN: 0, RETEST: 0})
    _rate: float = 0.0  # seconds per byte, the slowest item seen: what unknown items are expected to cost
    _limit: float = math.inf
    _crashes: dict[str, int] = field(default_factory=dict)
    _wanted: dict[tuple[str, str, str], int] = field(default_factory=dict)
    _progress: Progress = field(default_factory=lambda: Progress("", 0, 0, 0, math.inf))

    def __post_init__(self) -> None:
        self.memory = Memory(self.world)
        self.budget = stopping.Budget(self.rules.plan.budget, self.world.now())

    def resume(self, blocks: Iterable[Block]) -> None:
        """Takes in blocks of an earlier run."""
        for block in blocks:
            self.evidence.add(block)
            self._epochs[block.stage] = max(self._epochs[block.stage], block.epoch + 1)
            self.memory.inner[block.item.key] = block.timings[0].inner

    def go(self) -> Outcome:
        """Runs to the end of the plan or of the time."""
        outcome = Outcome()
        try:
            self._screen()
            if self.rules.gate:
                self._retest()
        except KeyboardInterrupt:
            outcome.is_interrupted = True
        outcome.rows = verdicts.judge(self.items, self.contenders, self.evidence, self.rules)
        twin = next((c.name for c in self.contenders if c.hidden), None)
        if twin is not None:
            outcome.unfit = verdicts.unfit(self.items, twin, self.evidence, self.rules)
            if outcome.unfit:
                outcome.rows = verdicts.without_slower(outcome.rows, outcome.unfit)
        outcome.seconds = self.world.now() - self.budget.started
        return outcome

    # What is still to be done

    def _screen(self) -> None:
        """The pilot's epochs for all items, then more for those whose spread asks for it."""
        pilot = self.rules.plan.pilot
        while missing := [i for i in self.items if self._missing(i) > 0]:
            first = [i for i in missing if self._done(i) < pilot]
            self._limit = self._full - self._reserved(bool(first))
            if self._epoch(first or missing, SCREEN, self._pressing):
                continue
            if self._limit == self._full or self._suspects():
                break
            self._limit = self._full
            if not self._epoch(first or missing, SCREEN, self._pressing):
                break

    @property
    def _full(self) -> float:
        return math.inf if self.rules.plan.budget is None else self.rules.plan.budget

    def _reserved(self, in_pilot: bool) -> float:
        """Seconds kept back for measuring suspects again, where a gate asks for it."""
        if not self.rules.gate or self.rules.plan.budget is None:
            return 0.0
        if in_pilot:
            return (1 - PILOT_SHARE) * self.rules.plan.budget
        again = sum(max(r.epochs, 1) * self._cost(r.item) for r in self._suspects())
        return again + self.rules.plan.pilot * self.budget.cost("start") * bool(again)

    def _suspects(self) -> list[Row]:
        if not self.rules.gate:
            return []
        return verdicts.suspects(self.items, self.contenders, self.evidence, self.rules)

    def _retest(self) -> None:
        """Fresh epochs, as many as the first stage had, for the items that look slower."""
        self._limit, slow = self._full, self._suspects()
        wanted = {row.item.key: max(row.epochs, self.rules.plan.pilot) for row in slow}
        names = {row.backend for row in slow} | {self.rules.baseline}
        while True:
            todo = [i for i in self.items if len(self.evidence.of(i, RETEST)) < wanted.get(i.key, 0) and self._alive(i)]
            if not todo or not self._epoch(todo, RETEST, lambda item: 0.0, names):
                return

    def _done(self, item: Item) -> int:
        return len(self.evidence.of(item, SCREEN))

    def _missing(self, item: Item) -> int:
        """Epochs that an item still wants: the pilot's, then what Stein's rule found in the pilot's spread."""
        plan, done = self.rules.plan, self._done(item)
        if not self._alive(item):
            return 0
        if done < plan.pilot:
            return plan.pilot - done
        if item.key not in self._wanted:  # the pilot alone decides, so this is decided once
            self._wanted[item.key] = min(stopping.epochs_wanted(self._spreads(item), plan), plan.most_epochs)
        return self._wanted[item.key] - done

    def _spreads(self, item: Item) -> list[float]:
        return verdicts.spreads(item, [c.name for c in self.contenders], self.evidence, self.rules)

    def _alive(self, item: Item) -> bool:
        """Whether there is still somebody to measure, and somebody to compare with where there are several."""
        fit = [c.name for c in self.contenders if (item.key, c.name) not in self.evidence.faults]
        return bool(fit) and (len(fit) > 1 or self._done(item) < 2 or len(self.contenders) == 1)

    def _pressing(self, item: Item) -> float:
        """How far an item is from being decided; those farthest are measured first when time is short."""
        if self._done(item) < self.rules.plan.pilot:
            return 1e9 - self._done(item)
        return max(self._spreads(item), default=0.0)

    # One epoch

    def _epoch(
        self, todo: list[Item], stage: int, pressing: Callable[[Item], float], names: set[str] | None = None
    ) -> bool:
        """One set of fresh workers for each thread count; False when the time is up."""
        number = self._epochs[stage]
        rng = schedule.generator(self.how.seed, stage, number)
        before = sum(len(b) for b in self.evidence.blocks.values())
        for threads in sorted({i.case.threads for i in todo}):
            mine = [i for i in todo if i.case.threads == threads]
            order = [mine[k] for k in schedule.shuffled(len(mine), rng)]
            if number == 0:
                order.sort(key=lambda i: i.case.bytes)  # costs of small items foretell those of large ones
            elif not self._fits_all(order):
                order.sort(key=pressing, reverse=True)
            who = [c for c in self.contenders if names is None or c.name in names]
            who = [c for c in who if any((i.key, c.name) not in self.evidence.faults for i in mine)]
            if order and self._fits("start", min(self._cost(i) for i in order)):
                self._crew(order, who, threads, stage, number)
        self._epochs[stage] = number + 1
        return sum(len(b) for b in self.evidence.blocks.values()) > before

    def _crew(self, order: list[Item], who: list[Contender], threads: int, stage: int, number: int) -> None:
        rng = schedule.generator(self.how.seed, stage, number, threads)
        start = self.world.now()
        with Crew.start(who, threads, rng, self.memory, self.how) as crew:
            began = self.world.now() - start
            self.budget.note("start", began)
            for item in order:
                for name, fault in crew.broken.items():
                    self.evidence.faults.setdefault((item.key, name), fault)
                if self._cost(item) > self._left():
                    continue
                self._progress = self._where(item, number)
                self._tick()
                self._item(item, crew, stage, number, rng.spawn(1)[0], began / len(order))

    def _item(self, item: Item, crew: Crew, stage: int, number: int, rng: np.random.Generator, share: float) -> None:
        names = [c.name for c in self.contenders if c.name in crew.lanes]
        names = [n for n in names if (item.key, n) not in self.evidence.faults]
        start = self.world.now()
        deadline = math.inf if self.budget.seconds is None else self.budget.started + self._limit
        part = ItemRun(item, crew, self.memory, self.how, rng, deadline, self._tick)
        found = part.measure(names, stage, number, lambda lanes: self._rounds(item, lanes, share))
        seconds = self.world.now() - start
        self.budget.note(item.key, seconds)
        self._rate = max(self._rate, seconds / max(item.case.bytes, 1 << 16))
        self.evidence.epoch_seconds[item.key] = seconds + share
        self._learn(item, found)

    def _learn(self, item: Item, found: Measured) -> None:
        for name, fault in found.faults.items():
            self.evidence.faults[item.key, name] = _settled(fault)
            self._crashes[name] = self._crashes.get(name, 0) + fault.crashed
            if self._crashes[name] >= CRASHES_ALLOWED:
                for other in self.items:
                    again = Fault(f"not run: the backend died or hung {CRASHES_ALLOWED} times before", crashed=True)
                    self.evidence.faults.setdefault((other.key, name), again)
        for name, reason in found.suspicions.items():
            self.evidence.suspicions[item.key, name] = reason
        if found.block is not None:
            self.evidence.add(found.block)
            self.listener.on_block(found.block)
        for contender in self.contenders:
            if not contender.hidden:
                self.listener.on_row(verdicts.row_of(item, contender.name, self.evidence, self.rules))

    def _rounds(self, item: Item, lanes: int, share: float) -> int:
        """Rounds of this epoch: a few at first, then what costs and spreads ask for, never beyond the time."""
        plan, blocks = self.rules.plan, self.evidence.of(item, SCREEN)
        cost = self.memory.round_seconds.get(item.key, 0.0)
        rest = sum(max(0, plan.pilot - self._done(i)) * self._cost(i) for i in self.items)
        if blocks and rest > self._left():
            return lanes
        if len(blocks) < stopping.LEARNED or plan.rounds is not None:
            return stopping.first_rounds(lanes, plan, cost)
        return stopping.rounds_for(blocks, self.rules.baseline, self._spreads(item), lanes, plan, share, cost)

    # Time

    def _left(self) -> float:
        if self.budget.seconds is None:
            return math.inf
        return self._limit - (self.world.now() - self.budget.started)

    def _cost(self, item: Item) -> float:
        return self.budget.cost(item.key, self._rate * max(item.case.bytes, 1 << 16))

    def _fits(self, what: object, more: float) -> bool:
        return self.budget.cost(what) + more <= self._left()

    def _fits_all(self, order: list[Item]) -> bool:
        return self._fits("start", sum(self._cost(i) for i in order))

    def _where(self, item: Item, number: int) -> Progress:
        missing = {i.key: max(0, self._missing(i)) for i in self.items}
        done = sum(self._done(i) for i in self.items)
        left = sum(n * self.evidence.epoch_seconds.get(k, 0.0) for k, n in missing.items())
        return Progress(item.label, number, done, done + sum(missing.values()), min(left, max(0.0, self._left())))

    def _tick(self) -> None:
        self.listener.on_progress(self._progress)


def _settled(fault: Fault) -> Fault:
    """A fault as tables show it: never without words."""
    return fault if fault.reason else Fault("no reason was given", fault.crashed, fault.skipped)
