"""A whole benchmark: epochs until every row is decided or the time is up, then a second look at what seems slower.

Owns the loop, the budget and what an interruption leaves. Measuring is `epoch.py`'s, deciding `verdicts.py`'s and
`stopping.py`'s; nothing is printed here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lnbench.bench import schedule, stopping, verdicts
from lnbench.bench.budget import Budget, Key, Need
from lnbench.bench.crew import Circumstances, Crew, Memory
from lnbench.bench.ending import Ending, gentle
from lnbench.bench.epoch import ItemRun, Measured
from lnbench.bench.outcome import Listener, Outcome, Progress
from lnbench.bench.record import RETEST, SCREEN, Block, Contender, Fault, Item, Row
from lnbench.bench.verdicts import Evidence, Rules
from lnbench.bench.world import World

TWIN = "(copy of the baseline)"
PILOT_SHARE = 0.55  # share of the budget for the pilot when a gate may have to measure suspects again
SAMPLES_SHARE = 0.25  # share of the budget for samples, while costs are not known yet
CRASHES_ALLOWED = 3
TELL_SECONDS = 5.0  # between two reports of all rows within one epoch


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
    UnknownBackend before anything is measured. Ctrl-C ends the run early, after the present round, with the rows of
    what was finished.
    """
    everyone = list(contenders)
    if null_control:
        base = next(c for c in contenders if c.name == rules.baseline)
        everyone.append(Contender(TWIN, base.spec, base.environment, base.more_rows, hidden=True))
    course = Course(list(items), everyone, rules, how, world, listener or Listener())
    course.resume(done)
    with gentle() as course.ending:
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
    ending: Ending = field(default_factory=Ending)
    evidence: Evidence = field(default_factory=Evidence)
    memory: Memory = field(init=False)
    budget: Budget = field(init=False)
    _epochs: dict[int, int] = field(default_factory=lambda: {SCREEN: 0, RETEST: 0})
    _promised: dict[Key, int] = field(default_factory=dict)  # epochs that items are still to get, as planned last
    _rounds: dict[Key, tuple[int, int]] = field(default_factory=dict)  # least and wanted
    _too_long: set[Key] = field(default_factory=set)  # items that the time does not allow any more
    _crashes: dict[str, int] = field(default_factory=dict)
    _wanted: dict[Key, int] = field(default_factory=dict)
    _told: float = -math.inf
    _progress: Progress = field(default_factory=lambda: Progress("", 0, 0, 0, math.inf))

    def __post_init__(self) -> None:
        self.memory = Memory(self.world)
        self.budget = Budget(self.rules.plan.budget, self.world.now())

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
        outcome.rows = self._judged()
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
        keeps_time = self.rules.gate and self.rules.plan.budget is not None
        while True:
            missing = {i.key: n for i in self.items if (n := self._missing(i)) > 0}
            self.budget.limit = self.budget.full - (self._reserved(missing) if keeps_time else 0.0)
            if self._epoch(missing, SCREEN):
                continue
            if not keeps_time or self._suspects():
                break
            keeps_time = False  # nothing to be measured again: the time kept back is free
            self._too_long.clear()
        for item in self.items:
            self.evidence.first_seconds[item.key] = self._cost(item)

    def _reserved(self, missing: Mapping[Key, int]) -> float:
        """Seconds kept back for measuring suspects again."""
        if any(self._done(i) < self.rules.plan.pilot for i in self.items if i.key in missing):
            return (1 - PILOT_SHARE) * self.budget.full
        again = sum(max(r.epochs, 1) * self.evidence.epoch_seconds.get(r.item.key, 0.0) for r in self._suspects())
        return again + self.rules.plan.pilot * self.budget.start * bool(again)

    def _suspects(self) -> list[Row]:
        return verdicts.suspects(self.items, self.contenders, self.evidence, self.rules) if self.rules.gate else []

    def _retest(self) -> None:
        """Fresh epochs, as many as the first stage had, for the items that look slower."""
        self.budget.limit, slow = self.budget.full, self._suspects()
        self._too_long.clear()
        wanted = {row.item.key: max(row.epochs, self.rules.plan.pilot) for row in slow}
        names = {row.backend for row in slow} | {self.rules.baseline}
        while True:
            owed = {i.key: wanted.get(i.key, 0) - self._done(i, RETEST) for i in self.items if self._alive(i)}
            if not self._epoch({key: n for key, n in owed.items() if n > 0}, RETEST, names):
                return

    def _done(self, item: Item, stage: int = SCREEN) -> int:
        return len(self.evidence.of(item, stage))

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
        return max(self._spreads(item), default=0.0)

    # One epoch

    def _epoch(self, owed: Mapping[Key, int], stage: int, names: set[str] | None = None) -> bool:
        """One set of fresh workers for each thread count; False when nothing is owed or the time is up.

        owed: epochs that items still want, by key.
        """
        number = self._epochs[stage]
        rng = schedule.generator(self.how.seed, stage, number)
        todo = self._chosen(owed, stage)
        before = {i.key: self._done(i, stage) for i in todo}
        for threads in sorted({i.case.threads for i in todo}):
            mine = [i for i in todo if i.case.threads == threads]
            order = [mine[k] for k in schedule.shuffled(len(mine), rng)]
            if not all(self.budget.is_known(i.key) for i in order):
                order.sort(key=lambda i: i.case.bytes)  # costs of small items foretell those of large ones
            who = [c for c in self.contenders if names is None or c.name in names]
            who = [c for c in who if any((i.key, c.name) not in self.evidence.faults for i in mine)]
            if min(self._cost(i) for i in order) + self.budget.start <= self._left():
                self._crew(order, who, threads, stage, number)
        self._epochs[stage] = number + 1
        self._too_long |= {i.key for i in todo if self._done(i, stage) == before[i.key]}
        if todo:
            self._tell()
        return bool(todo)

    def _chosen(self, owed: Mapping[Key, int], stage: int) -> list[Item]:
        """The items of the next epoch: in the pilot those that the time allows, afterwards the most uncertain ones."""
        owing = [i for i in self.items if i.key in owed and i.key not in self._too_long]
        first = [i for i in owing if stage == RETEST or self._done(i) < self.rules.plan.pilot]
        found = self.budget.choose([self._need(i, owed[i.key]) for i in first], self._left())
        if not found:
            rest = sorted((i for i in owing if i not in first), key=self._pressing, reverse=True)
            found = self.budget.in_order([self._need(i, owed[i.key]) for i in rest], self._left())
        self._promised = {need.key: need.epochs for need in found}
        return [i for i in owing if i.key in self._promised]

    def _crew(self, order: list[Item], who: list[Contender], threads: int, stage: int, number: int) -> None:
        rng = schedule.generator(self.how.seed, stage, number, threads)
        start = self.world.now()
        with Crew.start(who, threads, rng, self.memory, self.how) as crew:
            began = self.world.now() - start
            self.budget.note_start(began)
            for item in order:
                for name, fault in crew.broken.items():
                    self.evidence.faults.setdefault((item.key, name), fault)
                if self.budget.fits(item.key, item.case.bytes, self.budget.promised(self._needs()), self._left()):
                    self._progress = self._where(item, number)
                    self._tick()
                    self._item(item, crew, stage, number, rng.spawn(1)[0], began / len(order))

    def _item(self, item: Item, crew: Crew, stage: int, number: int, rng: np.random.Generator, share: float) -> None:
        names = [c.name for c in self.contenders if c.name in crew.lanes]
        names = [n for n in names if (item.key, n) not in self.evidence.faults]
        start = self.world.now()
        part = ItemRun(item, crew, self.memory, self.how, rng, self.budget.deadline, self._tick)
        found = part.measure(names, stage, number, lambda lanes: self._how_many(item, lanes, share))
        self.budget.note(item.key, item.case.bytes, found.spent)
        self._promised[item.key] -= 1
        self.evidence.epoch_seconds[item.key] = self.world.now() - start + share
        self._learn(item, found)
        self._tell(TELL_SECONDS)

    def _learn(self, item: Item, found: Measured) -> None:
        for name, fault in found.faults.items():
            self.evidence.faults[item.key, name] = fault
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

    def _how_many(self, item: Item, lanes: int, share: float) -> int:
        """Rounds of this epoch: a few at first, then what costs and spreads ask for, and what the time allows."""
        plan, blocks, base = self.rules.plan, self.evidence.of(item, SCREEN), self.rules.baseline
        cost = self.budget.round(item.key, self.memory.round_seconds.get(item.key, 0.0))
        before = self.budget.fixed(item.key) + share
        least, wanted = stopping.rounds_for(blocks, base, self._spreads(item), lanes, plan, before, cost)
        self._rounds[item.key] = least, wanted
        if self.budget.is_known(item.key) or plan.rounds is not None:
            return self.budget.rounds(self._need(item, 1), self._needs(), self._left(), lanes)
        share = SAMPLES_SHARE / (len(self.items) * plan.pilot)
        return self.budget.first_rounds(wanted, cost, share, lanes)

    # Time

    def _left(self) -> float:
        return self.budget.left(self.world.now())

    def _cost(self, item: Item) -> float:
        return self.budget.longest(item.key, item.case.bytes)

    def _need(self, item: Item, epochs: int) -> Need:
        least, wanted = self._rounds.get(item.key, (1, 1))
        return Need(item.key, item.case.bytes, epochs, self._done(item), least, wanted)

    def _needs(self) -> list[Need]:
        """What is still promised."""
        return [self._need(i, n) for i in self.items if (n := self._promised.get(i.key, 0)) > 0]

    def _where(self, item: Item, number: int) -> Progress:
        missing = {i.key: max(0, self._missing(i)) for i in self.items}
        done = sum(self._done(i) for i in self.items)
        left = sum(n * self.evidence.epoch_seconds.get(k, 0.0) for k, n in missing.items())
        return Progress(item.label, number, done, done + sum(missing.values()), min(left, max(0.0, self._left())))

    def _tick(self) -> None:
        self.ending.check()
        self.listener.on_progress(self._progress)

    def _judged(self) -> list[Row]:
        return verdicts.judge(self.items, self.contenders, self.evidence, self.rules)

    def _tell(self, patience: float = 0.0) -> None:
        """Hands out the rows as they stand, unless that was done less than `patience` seconds ago."""
        if self.world.now() - self._told >= patience:
            self._told = self.world.now()
            self.listener.on_rows(self._judged())
