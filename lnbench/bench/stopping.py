"""How long to go on: epochs from the pilot's spread, rounds from costs, what the time budget still allows.

Decides from spreads and costs only, never from whether a difference is in sight. Pure; the runner asks and obeys.
"""

from __future__ import annotations

import math
import statistics as plain
from collections.abc import Sequence
from dataclasses import dataclass, field

from lnbench.bench import statistics
from lnbench.bench.record import Block

FIRST_SECONDS = 1.0  # of one item in one epoch, while nothing is known of its spread
LEARNED = 3  # epochs after which costs and spreads decide


@dataclass(frozen=True, slots=True)
class Plan:
    """The wishes of a run.

    pilot: epochs that every item gets. most_epochs: no item gets more. margin: the difference that matters (0.02 is
    2 %). budget: seconds for the whole run, or None. rounds: rounds per epoch, or None to choose them.
    """

    pilot: int = 8
    most_epochs: int = 24
    margin: float = 0.02
    budget: float | None = None
    rounds: int | None = None
    most_rounds: int = 64
    alpha: float = statistics.ALPHA

    @property
    def log_margin(self) -> float:
        """The margin as a logarithm."""
        return math.log1p(self.margin)

    @property
    def half_width(self) -> float:
        """The half-width (log) that is wanted: half the margin, so that equal and two margins apart are told apart."""
        return (self.log_margin or math.log1p(0.01)) / 2


def epochs_wanted(spreads: list[float], plan: Plan) -> int:
    """Epochs for one item from the pilot spreads of its comparisons: the worst of them decides."""
    wanted = (statistics.stein_epochs(s, plan.pilot, plan.half_width, plan.alpha) for s in spreads)
    return max(wanted, default=plan.pilot)


def first_rounds(lanes: int, plan: Plan, cost: float = 0.0) -> int:
    """Rounds of an item before its spread is known: whole Latin squares, about eight rounds, about a second at most.

    cost: seconds of a round as far as known.
    """
    wanted = plan.rounds or (8 if cost <= 0 else max(1, min(8, int(FIRST_SECONDS / cost))))
    return max(1, math.ceil(wanted / lanes)) * lanes


def rounds_for(
    blocks: Sequence[Block], baseline: str, spreads: Sequence[float], lanes: int, plan: Plan, start: float, cost: float
) -> int:
    """Rounds of an item once a few epochs have shown how it spreads.

    start: seconds that an epoch costs before its first round. cost: seconds of a round. The spread between epochs is
    what is left of the whole spread when that of the rounds within is taken away.
    """
    few = first_rounds(lanes, plan, cost)
    others = {n for b in blocks for n in b.backends if n != baseline and baseline in b.backends}
    within = max((_within(blocks, name, baseline) for name in others), default=0.0)
    rounds = plain.fmean(b.rounds for b in blocks)
    between = math.sqrt(max(0.0, max(spreads, default=0.0) ** 2 - math.pi / 2 * within**2 / rounds))
    best = statistics.best_rounds(start, cost, within, between, least=lanes, most=plan.most_rounds)
    return max(few, best) if cost * best <= max(start, FIRST_SECONDS) else few


def _within(blocks: Sequence[Block], name: str, baseline: str) -> float:
    """Standard deviation of one round's log ratio, within epochs."""
    variances = []
    for block in blocks:
        pairs = zip(block.times(name), block.times(baseline), strict=False)
        ratios = [math.log(mine / base) for mine, base in pairs if mine > 0 and base > 0]
        if len(ratios) > 1:
            variances.append(plain.variance(ratios))
    return math.sqrt(plain.fmean(variances)) if variances else 0.0


@dataclass(slots=True)
class Budget:
    """The clock of a run: when it started, and what things have cost.

    Costs are the longest seen of the last few, because to stop late breaks a promise and to stop early breaks none.
    """

    seconds: float | None
    started: float
    _costs: dict[object, list[float]] = field(default_factory=dict, repr=False)

    def note(self, what: object, seconds: float) -> None:
        """Remembers that `what` took so long."""
        self._costs.setdefault(what, []).append(seconds)

    def cost(self, what: object, unknown: float = 0.0) -> float:
        """Seconds that `what` is expected to take: the longest of its last three, or `unknown`."""
        return max(self._costs.get(what, [unknown])[-3:])


def needs_seconds(done: int, wanted: int, epoch_seconds: float) -> float | None:
    """Seconds that the epochs still missing would take; None when none is missing."""
    return (wanted - done) * epoch_seconds if wanted > done else None
