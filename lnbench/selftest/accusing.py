"""Runs the correct kinds over random cases: whatever is not accepted is a false accusation.

The cases come from `lnbench.fuzz.space`, the space that fuzzing searches.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from lnbench.case import Case
from lnbench.fuzz.space import RandomChooser, draw_case
from lnbench.selftest.correct import KINDS
from lnbench.verify import runner
from lnbench.verify.verdict import Status, Verdict

# One rounding at the store uses up the whole bound of a 16-bit type; only wider ones tell how much is left.
WIDE = ("float32", "float64")
SPEC = "lnbench.selftest.correct:{kind}"
# The checks that judge numbers; every EVERY-th case goes through all checks.
CHECKS = ("bound", "exact", "statistics")
EVERY = 20


@dataclass(frozen=True, slots=True)
class Accusation:
    """A verdict against a correct kind."""

    kind: str
    case: str
    pass_: str
    check: str
    output: str
    status: str
    reason: str
    repro: str


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one batch of random cases on one correct kind.

    cases, verdicts: how many. weaker: verdicts UNSTABLE where that is the kind's known weakness.
    vacuous: verdicts EMPTY (the case decided nothing). budget: the largest share of a bound used in float32 or float64.
    """

    kind: str
    cases: int
    verdicts: int
    weaker: int
    vacuous: int
    budget: float
    accusations: tuple[Accusation, ...]
    seconds: float


def random_cases(kind: str, seed: int, batch: int, count: int) -> list[Case]:
    """Random cases of one batch: they depend on kind, seed and batch only."""
    choose = RandomChooser(f"{kind}/{seed}/{batch}")
    return [draw_case(choose, (KINDS[kind].op,)) for _ in range(count)]


def trial(kind: str, seed: int, batch: int, count: int) -> Trial:
    """Runs `count` random cases on the correct kind called `kind`."""
    start = time.monotonic()
    cases = random_cases(kind, seed, batch, count)
    few = [c for i, c in enumerate(cases) if i % EVERY == 0]
    many = [c for i, c in enumerate(cases) if i % EVERY]
    spec = SPEC.format(kind=kind)
    verdicts = runner.run(many, [spec], runner.Options(checks=CHECKS, jobs=1)) + runner.run(
        few, [spec], runner.Options(jobs=1)
    )
    weak = bool(KINDS[kind].weak_on)
    open_ = [v for v in verdicts if not v.accepted]
    weaker = [v for v in open_ if weak and v.status is Status.UNSTABLE]
    vacuous = [v for v in open_ if v.status is Status.EMPTY]
    against = [v for v in open_ if v not in weaker and v not in vacuous]
    return Trial(
        kind,
        len(cases),
        len(verdicts),
        len(weaker),
        len(vacuous),
        max((v.budget or 0.0 for v in verdicts if v.accepted and v.case.dtype in WIDE), default=0.0),
        tuple(_accusation(kind, v) for v in against),
        time.monotonic() - start,
    )


def _accusation(kind: str, v: Verdict) -> Accusation:
    return Accusation(kind, v.case.label, v.pass_, v.check, v.output, v.status.value, v.reason, v.repro)
