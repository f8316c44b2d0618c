"""The tester tested: identical sides must come out equal, planted work must be found, intervals must hold the truth.

Planted work is honest: one side normalises (1 + delta) times the rows. Trials are whole runs with fresh workers.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lnbench.bench.crew import Circumstances
from lnbench.bench.outcome import Listener
from lnbench.bench.record import SCREEN, Contender, Fault, Item, Word
from lnbench.bench.runner import run
from lnbench.bench.statistics import binomial_interval
from lnbench.bench.stopping import Plan
from lnbench.bench.verdicts import Evidence, Rules, judge
from lnbench.bench.world import World
from lnbench.case import Case

# Small enough that a trial takes seconds, 1000 rows so that 1 % more is a whole number of them, and a quarter of a usual
# second cache: near its size, which pages a process happens to get decides about several percent.
CASE = Case(shape=(1000, 32), passes="forward", name="self-check")
PLAN = Plan(pilot=8, most_epochs=8, rounds=60)
DELTAS = (0.01, 0.03, 0.05)


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of one backend against itself with `delta` more work.

    measured: seconds timed on each side. seconds: of the whole run, shared with the trials that came from it as well.
    """

    delta: float
    seed: int
    ratio: float
    low: float
    high: float
    verdict: str
    measured: float
    seconds: float

    @property
    def is_different(self) -> bool:
        """Whether the interval excludes "no difference"."""
        return not self.low <= 1.0 <= self.high

    @property
    def is_slower(self) -> bool:
        """Whether the planted side is found to be slower (the interval lies above 1)."""
        return self.low > 1.0

    @property
    def is_covered(self) -> bool:
        """Whether the interval holds the truth."""
        return self.low <= 1.0 + self.delta <= self.high


@dataclass(frozen=True, slots=True)
class Rate:
    """A proportion with its exact 95 % interval."""

    hits: int
    trials: int

    @property
    def value(self) -> float:
        return self.hits / self.trials if self.trials else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        return binomial_interval(self.hits, self.trials) if self.trials else (0.0, 1.0)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.hits}/{self.trials} = {100 * self.value:.1f} % ({100 * low:.1f} to {100 * high:.1f} %)"


@dataclass(frozen=True, slots=True)
class Summary:
    """What many trials with one delta say.

    different: intervals that exclude 1 (false positives when delta is 0). claims: FASTER or SLOWER verdicts, beyond the
    margin. slower: intervals above 1 (power when delta is not 0). covered: intervals that hold the truth. bias: mean of
    ln(ratio) - ln(1 + delta). seconds: of a whole trial, mean. measured: timed seconds on a side, median.
    """

    delta: float
    different: Rate
    claims: Rate
    slower: Rate
    covered: Rate
    bias: float
    seconds: float
    measured: float


def trial(
    world: World, spec: str, delta: float, seed: int, *, case: Case = CASE, plan: Plan = PLAN, timeout: float = 60.0
) -> Trial:
    """One run of `spec` against itself; `delta` is the share of rows that the second side gets on top."""
    sides = [Contender("one", spec), Contender("other", spec, more_rows=delta)]
    return _pairs(world, sides, [("one", "other", delta)], seed, case, plan, timeout)[0]


def quartet(
    world: World, spec: str, delta: float, seed: int, *, case: Case = CASE, plan: Plan = PLAN, timeout: float = 60.0
) -> list[Trial]:
    """Four trials from one run of four sides, two of which get `delta` more: each side is in one trial of either kind.

    Two compare identical sides, two different ones; the two of a kind share no process.
    """
    sides = [Contender(n, spec) for n in ("one", "other")]
    sides += [Contender(n, spec, more_rows=delta) for n in ("more", "other more")]
    pairs = [("one", "other", 0.0), ("more", "other more", 0.0), ("one", "more", delta), ("other", "other more", delta)]
    return _pairs(world, sides, pairs, seed, case, plan, timeout)


def _pairs(
    world: World,
    sides: Sequence[Contender],
    pairs: Sequence[tuple[str, str, float]],
    seed: int,
    case: Case,
    plan: Plan,
    timeout: float,
) -> list[Trial]:
    """One run of all sides, judged for every pair (baseline, other, more rows of the other)."""
    evidence, item = Evidence(), Item(case, "forward")
    how = Circumstances(seed=seed, timeout=timeout, audit=False)
    rules = [Rules(plan=plan, baseline=base) for base, _, _ in pairs]
    outcome = run([item], sides, rules[0], how, world, listener=Listener(on_block=evidence.add))
    blocks = evidence.of(item, SCREEN)
    faults = {r.backend: Fault(r.reason) for r in outcome.rows if r.verdict is Word.INVALID}
    evidence.faults |= {(item.key, name): fault for name, fault in faults.items()}
    found = []
    for (base, other, delta), one in zip(pairs, rules, strict=True):
        row = judge([item], [Contender(base, ""), Contender(other, "")], evidence, one)[1]
        measured = sum(t.wall_ns for b in blocks for t in b.timings if t.backend == base) * 1e-9
        ratio, low, high = row.ratio, row.low, row.high
        if ratio is None or low is None or high is None:
            ratio, low, high = math.nan, 0.0, math.inf
        seconds = outcome.seconds / len(pairs)
        found.append(Trial(delta, seed, ratio, low, high, str(row.verdict), measured, seconds))
    return found


def run_aa(
    runs: int,
    *,
    world: World,
    spec: str = "native",
    seed: int = 0,
    case: Case = CASE,
    plan: Plan = PLAN,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> Summary:
    """`runs` independent runs of identical sides: how often they are called different."""
    return run_plant([0.0], runs, world=world, spec=spec, seed=seed, case=case, plan=plan, on_trial=on_trial)[0]


def run_plant(
    deltas: Sequence[float],
    runs: int,
    *,
    world: World,
    spec: str = "native",
    seed: int = 0,
    case: Case = CASE,
    plan: Plan = PLAN,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> list[Summary]:
    """`runs` runs for every delta, the deltas in turn: how often planted work is found, and how well it is measured."""
    trials: list[Trial] = []
    for number in range(runs):
        for delta in deltas:
            trials.append(trial(world, spec, delta, seed + number, case=case, plan=plan))
            on_trial(trials[-1])
    return [summarise(trials, delta) for delta in deltas]


def summarise(trials: Iterable[Trial], delta: float) -> Summary:
    """The rates of the trials with one delta; trials without a result count as found nothing."""
    mine = [t for t in trials if t.delta == delta]
    count = len(mine)
    errors = [math.log(t.ratio) - math.log1p(delta) for t in mine if t.ratio > 0]
    return Summary(
        delta=delta,
        different=Rate(sum(t.is_different for t in mine), count),
        claims=Rate(sum(t.verdict in ("FASTER", "SLOWER") for t in mine), count),
        slower=Rate(sum(t.is_slower for t in mine), count),
        covered=Rate(sum(t.is_covered for t in mine), count),
        bias=sum(errors) / len(errors) if errors else math.nan,
        seconds=sum(t.seconds for t in mine) / count if count else 0.0,
        measured=statistics.median(t.measured for t in mine) if mine else 0.0,
    )
