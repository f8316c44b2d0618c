"""How long to go on: epochs from the pilot's spread, rounds from costs. What still fits into the time is `budget.py`'s.

Decides from spreads and costs only, never from whether a difference is in sight. Pure; the runner asks and obeys.
"""

from __future__ import annotations

import math
import statistics as plain
from collections.abc import Sequence
from dataclasses import dataclass

from lnbench.bench import statistics
from lnbench.bench.record import Block

FIRST_SECONDS = 1.0  # of one item in one epoch, while nothing is known of its spread
FIRST_ROUNDS, MORE_ROUNDS = 8, 32  # while nothing is known; at most, where rounds cost less than what goes before them
LEAST_SHARE = 0.25  # of what an epoch costs an item before its first round: to measure for less would waste that
LEARNED = 3  # epochs after which costs and spreads decide
# Epochs of one item at most, without and with a time budget, which is there to be spent.
MOST_EPOCHS, MOST_IN_BUDGET = 24, 200


@dataclass(frozen=True, slots=True)
class Plan:
    """The wishes of a run.

    pilot: epochs that every item gets. most_epochs: no item gets more. margin: the difference that matters (0.02 is
    2 %). budget: seconds for the whole run, or None. rounds: rounds per epoch, or None to choose them.
    """

    pilot: int = 8
    most_epochs: int = MOST_EPOCHS
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


def plan_of(*, epochs: int | None, margin: float, budget: float | None, rounds: int | None) -> Plan:
    """The plan of a user's wishes; a number of epochs that was asked for is kept exactly."""
    most = epochs or (MOST_EPOCHS if budget is None else MOST_IN_BUDGET)
    return Plan(epochs or Plan().pilot, most, margin, budget, rounds)


def first_rounds(lanes: int, plan: Plan, cost: float = 0.0, fixed: float = 0.0) -> int:
    """Rounds of an item before its spread is known: whole Latin squares, about eight rounds, about a second at most.

    cost: seconds of a round as far as known. fixed: seconds that an epoch costs the item before its first round: cheap
    rounds are taken until they have cost as much.
    """
    if plan.rounds or cost <= 0:
        return _squares(plan.rounds or FIRST_ROUNDS, lanes)
    wanted = max(FIRST_ROUNDS, min(MORE_ROUNDS, fixed / cost))
    return _squares(max(1.0, min(wanted, FIRST_SECONDS / cost)), lanes)


def least_rounds(lanes: int, cost: float, fixed: float) -> int:
    """Rounds below which an epoch is not worth its price, however short the time is."""
    return _squares(max(1.0, LEAST_SHARE * fixed / cost), lanes) if cost > 0 else lanes


def _squares(rounds: float, lanes: int) -> int:
    """So many rounds, in whole Latin squares; at least one."""
    return max(1, math.ceil(int(rounds) / lanes)) * lanes


def rounds_for(
    blocks: Sequence[Block], baseline: str, spreads: Sequence[float], lanes: int, plan: Plan, fixed: float, cost: float
) -> tuple[int, int]:
    """The fewest rounds worth an epoch of an item, and those wanted once a few epochs have shown how it spreads.

    fixed: seconds that an epoch costs before its first round. cost: seconds of a round. The spread between epochs is
    what is left of the whole spread when that of the rounds within is taken away.
    """
    few = first_rounds(lanes, plan, cost, fixed)
    least = min(few, least_rounds(lanes, cost, fixed))
    if plan.rounds is not None or len(blocks) < LEARNED:
        return (few, few) if plan.rounds is not None else (least, few)
    others = {n for b in blocks for n in b.backends if n != baseline and baseline in b.backends}
    within = max((_within(blocks, name, baseline) for name in others), default=0.0)
    rounds = plain.fmean(b.rounds for b in blocks)
    between = math.sqrt(max(0.0, max(spreads, default=0.0) ** 2 - math.pi / 2 * within**2 / rounds))
    best = statistics.best_rounds(fixed, cost, within, between, least=lanes, most=plan.most_rounds)
    return least, max(few, best) if cost * best <= max(fixed, FIRST_SECONDS) else few


def _within(blocks: Sequence[Block], name: str, baseline: str) -> float:
    """Standard deviation of one round's log ratio, within epochs."""
    variances = []
    for block in blocks:
        pairs = zip(block.times(name), block.times(baseline), strict=False)
        ratios = [math.log(mine / base) for mine, base in pairs if mine > 0 and base > 0]
        if len(ratios) > 1:
            variances.append(plain.variance(ratios))
    return math.sqrt(plain.fmean(variances)) if variances else 0.0


def needs_seconds(done: int, wanted: int, epoch_seconds: float) -> float | None:
    """Seconds that the epochs still missing would take; None when none is missing."""
    return (wanted - done) * epoch_seconds if wanted > done else None
