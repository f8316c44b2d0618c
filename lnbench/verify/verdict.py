"""`Verdict`: what verification says of one case, pass, backend and output by one check. Data only; decides and shows nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from lnbench.case import Case
from lnbench.errors import Exit


class Status(StrEnum):
    """The outcome of a verdict, in words that the reports print."""

    PASSED = "PASSED"
    UNSTABLE = "UNSTABLE"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CRASHED = "CRASHED"
    TIMEOUT = "TIMEOUT"
    ERROR = "ERROR"
    EMPTY = "EMPTY"


# From bad to good: the status of several verdicts together is the first that occurs.
ORDER = (
    Status.CRASHED,
    Status.TIMEOUT,
    Status.ERROR,
    Status.FAILED,
    Status.EMPTY,
    Status.UNSTABLE,
    Status.PASSED,
    Status.SKIPPED,
)

REQUIREMENTS = ("tier2", "tier1", "stable", "any")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What is said of one output: the status and the numbers behind it.

    compared, undecided, out_of_domain: numbers of elements; only the first were held to a finite bound.
    max_abs, max_ulp: largest error, absolute and in units in the last place of the output's dtype.
    budget: largest error divided by its bound; over 1 breaks it. None where nothing was compared.
    tier: the summation tier (2 best, 0) whose bound holds; None for checks without one or when none holds.
    effective_a: the smallest summation constant with which the worst row would pass.
    resolution: the smallest relative wrongness (to the output's largest magnitude) that would surely have been seen.
    """

    status: Status
    reason: str = ""
    compared: int = 0
    undecided: int = 0
    out_of_domain: int = 0
    max_abs: float | None = None
    max_ulp: float | None = None
    budget: float | None = None
    tier: int | None = None
    effective_a: int | None = None
    resolution: float | None = None
    worst_index: tuple[int, ...] | None = None
    expected: float | None = None
    got: float | None = None
    bound: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(Judgement):
    """One row of `verdicts.csv`: a judgement, and what it is about.

    output: the tensor judged (y, mean, rstd, dx, ...), or "" when the verdict is about the whole call.
    accepted: the verdict does not make the run fail although its status alone would, or the reverse (`expect`).
    """

    case: Case
    backend: str
    pass_: str
    check: str
    output: str = ""
    threads: int = 1
    seconds: float = 0.0
    accepted: bool = True

    @property
    def repro(self) -> str:
        """A command that runs exactly this case on this backend again."""
        return self.case.repro(self.backend)


def is_accepted(status: Status, tier: int | None, requirement: str) -> bool:
    """Whether a verdict of `status` (and `tier`) satisfies `requirement`, one of `REQUIREMENTS`.

    SKIPPED is neither good nor bad here; the exit code treats it apart.
    """
    if status in (Status.PASSED, Status.SKIPPED):
        wanted = {"tier2": 2, "tier1": 1}.get(requirement)
        return wanted is None or tier is None or tier >= wanted
    return status is Status.UNSTABLE and requirement == "any"


def summary(statuses: Iterable[Status]) -> Status:
    """The worst of several statuses."""
    present = set(statuses)
    return next((s for s in ORDER if s in present), Status.SKIPPED)


def exit_codes(verdicts: Iterable[Verdict], *, fail_on_skipped: bool = False) -> set[Exit]:
    """All exit codes that the verdicts call for; `lnbench.errors.worst` picks one."""
    codes: set[Exit] = set()
    ran = False
    for v in verdicts:
        if v.status in (Status.CRASHED, Status.TIMEOUT):
            codes.add(Exit.CRASHED)
        elif v.status is Status.SKIPPED:
            if fail_on_skipped:
                codes.add(Exit.NOTHING_RUN)
            continue
        elif not v.accepted:
            codes.add(Exit.FAILED)
        ran = True
    if not ran:
        codes.add(Exit.NOTHING_RUN)
    return codes
