"""How long to go on: epochs from the pilot's spread, rounds from costs, what the time budget still allows.

Decides from spreads and costs only, never from whether a difference is in sight. Pure; the runner asks and obeys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from lnbench.bench import statistics


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


def first_rounds(lanes: int, plan: Plan) -> int:
    """Rounds of an item before its costs are known: a whole number of Latin squares, about eight rounds."""
    wanted = plan.rounds or 8
    return max(1, math.ceil(wanted / lanes)) * lanes


def later_rounds(
    lanes: int, plan: Plan, *, start: float, cost: float, within: float, between: float, share: int
) -> int:
    """Rounds of an item once a few epochs have shown what they cost and how they spread.

    start: seconds before the first round of an epoch (workers started, calls verified), shared by `share` items.
    cost: seconds of a round. within, between: see `statistics.best_rounds`.
    """
    if plan.rounds is not None:
        return first_rounds(lanes, plan)
    found = statistics.best_rounds(start / max(share, 1), cost, within, between, least=lanes, most=plan.most_rounds)
    return max(found, first_rounds(lanes, plan)) if cost * found < start else found


@dataclass(slots=True)
class Budget:
    """The clock of a run: what is left, and whether something that takes `seconds` still fits.

    Costs are the longest seen of the last few, because to stop late breaks a promise and to stop early breaks none.
    """

    seconds: float | None
    started: float
    _costs: dict[object, list[float]] = field(default_factory=dict, repr=False)

    def left(self, now: float) -> float:
        """Seconds left; infinite without a budget."""
        return math.inf if self.seconds is None else self.seconds - (now - self.started)

    def note(self, what: object, seconds: float) -> None:
        """Remembers that `what` took so long."""
        self._costs.setdefault(what, []).append(seconds)

    def cost(self, what: object, unknown: float = 0.0) -> float:
        """Seconds that `what` is expected to take: the longest of its last three, or `unknown`."""
        return max(self._costs.get(what, [unknown])[-3:])

    def fits(self, what: object, now: float, unknown: float = 0.0) -> bool:
        """Whether `what` would end in time."""
        return self.cost(what, unknown) <= self.left(now)


def needs_seconds(done: int, wanted: int, epoch_seconds: float) -> float | None:
    """Seconds that the epochs still missing would take; None when none is missing."""
    return (wanted - done) * epoch_seconds if wanted > done else None
