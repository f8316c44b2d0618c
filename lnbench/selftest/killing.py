"""Runs one planted bug through `lnbench.verify` until a verdict finds it, or through everything for the kill matrix.

A mutant is an ordinary backend, named as a user would name it; nothing here looks inside.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from lnbench.case import Case
from lnbench.errors import LnbenchError
from lnbench.verify import runner
from lnbench.verify.verdict import Status, Verdict

# A cheap sweep over all cases first: most bugs are found by the bound, on some case. Then everything else.
QUICK = ("bound", "exact")
TIMEOUT_SECONDS = 20.0
# What counts as found: a result that is judged wrong. That it died counts only where dying is the bug.
JUDGED = (Status.FAILED, Status.UNSTABLE)
DIED = (Status.CRASHED, Status.TIMEOUT, Status.ERROR)


@dataclass(frozen=True, slots=True)
class Target:
    """A planted bug as the runner sees it. spec: the backend's name. dies: raising, crashing or hanging is the bug."""

    name: str
    family: str
    sentence: str
    op: str
    spec: str
    dies: bool = False


@dataclass(frozen=True, slots=True)
class Kill:
    """What became of one mutant.

    case, pass_, check, output, status: of the verdict that found it; "" when it survived.
    by_check: check -> label of the first case where it failed (matrix only). tried: cases run. seconds: wall clock.
    problem: why the mutant could not be judged (its own mistake), or "".
    """

    target: Target
    case: str = ""
    key: str = ""
    pass_: str = ""
    check: str = ""
    output: str = ""
    status: str = ""
    reason: str = ""
    tried: int = 0
    seconds: float = 0.0
    problem: str = ""
    by_check: dict[str, str] = field(default_factory=dict)

    @property
    def survived(self) -> bool:
        return not self.check


class _Found(Exception):
    def __init__(self, verdict: Verdict):
        super().__init__(verdict.reason)
        self.verdict = verdict


def counts(target: Target, verdict: Verdict) -> bool:
    """Whether a verdict finds the bug."""
    if verdict.accepted:
        return False
    return verdict.status in JUDGED or (target.dies and verdict.status in DIED)


def hunt(target: Target, cases: Sequence[Case]) -> Kill:
    """Runs `cases` in order until a verdict finds the bug: cheap checks on all of them, then all checks."""
    start = time.monotonic()
    tried, problem = 0, ""
    for checks in (QUICK, None):
        found, ran, problem = _sweep(target, cases, checks)
        tried += ran
        if found is not None:
            return Kill(
                target, found.case.label, found.case.key, found.pass_, found.check, found.output, found.status.value,
                found.reason, tried, time.monotonic() - start,
            )  # fmt: skip
    return Kill(target, tried=tried, seconds=time.monotonic() - start, problem=problem)


def _sweep(target: Target, cases: Sequence[Case], checks: tuple[str, ...] | None) -> tuple[Verdict | None, int, str]:
    """The verdict that finds the bug, the number of cases run, and what went wrong otherwise."""
    tried, problem = 0, ""

    def on_case(case: Case, backend: str) -> None:
        nonlocal tried
        tried += 1

    def on_verdict(verdict: Verdict) -> None:
        nonlocal problem
        if counts(target, verdict):
            raise _Found(verdict)
        if verdict.status in DIED:
            problem = f"{verdict.status.value} on {verdict.case.label}: {verdict.reason}"

    options = runner.Options(timeout=TIMEOUT_SECONDS, checks=checks, jobs=1)
    try:
        runner.run(cases, [target.spec], options, on_verdict=on_verdict, on_case=on_case)
    except _Found as found:
        return found.verdict, tried, ""
    except LnbenchError as error:
        return None, tried, str(error)
    return None, tried, problem


def everything(target: Target, cases: Sequence[Case]) -> Kill:
    """Runs all cases with all checks; which check found the bug, and on which case first."""
    start = time.monotonic()
    by_check: dict[str, str] = {}
    first: Verdict | None = None

    def on_verdict(verdict: Verdict) -> None:
        nonlocal first
        if counts(target, verdict):
            by_check.setdefault(verdict.check, verdict.case.label)
            first = first or verdict

    problem = ""
    try:
        runner.run(cases, [target.spec], runner.Options(timeout=TIMEOUT_SECONDS, jobs=1), on_verdict=on_verdict)
    except LnbenchError as error:
        problem = str(error)
    seconds = time.monotonic() - start
    if first is None:
        return Kill(target, tried=len(cases), seconds=seconds, problem=problem)
    return Kill(
        target, first.case.label, first.case.key, first.pass_, first.check, first.output, first.status.value,
        first.reason, len(cases), seconds, problem, by_check,
    )  # fmt: skip
