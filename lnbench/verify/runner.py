"""Runs the checks over cases and backends and hands out verdicts as they are known. Measures and shows nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lnbench.case import Case
from lnbench.errors import BackendBroken
from lnbench.verify import check as checks
from lnbench.verify.differences import Differences
from lnbench.verify.dump import dump
from lnbench.verify.sessions import Sessions
from lnbench.verify.subject import Arrays, Problem, Subject
from lnbench.verify.verdict import Status, Verdict, is_accepted

DEFAULT_REQUIREMENT = "stable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to verify.

    require: what a verdict must reach (`verdict.REQUIREMENTS`), unless a case asks for something else.
    timeout: seconds for one request to a worker.
    checks: names of the checks to run; None means all.
    dump: a folder for the tensors of verdicts that are not accepted.
    environment: variables for the workers, for example LNBENCH_TARGET.
    stop_on_first: end after the first case with a verdict that is not accepted.
    """

    require: str = DEFAULT_REQUIREMENT
    timeout: float = 60.0
    in_process: bool = False
    checks: tuple[str, ...] | None = None
    dump: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_on_first: bool = False


def run(
    cases: Sequence[Case],
    backends: Sequence[str],
    options: Options,
    *,
    on_verdict: Callable[[Verdict], None] = lambda verdict: None,
    on_case: Callable[[Case, str], None] = lambda case, backend: None,
    skip: Callable[[Case, str], bool] = lambda case, backend: False,
    differences: Differences | None = None,
) -> list[Verdict]:
    """Verifies every case on every backend; returns all verdicts, in order.

    on_verdict is called with each verdict as soon as it is known, on_case before a case runs on a backend, skip says which
    pairs are already known (a resumed run). Raises Unavailable or UnknownBackend before anything runs; a backend that
    breaks while it is loaded gets one verdict and does not disturb the others.
    """
    selected = checks.select(options.checks)
    found: list[Verdict] = []

    def emit(verdict: Verdict) -> None:
        found.append(verdict)
        on_verdict(verdict)

    with Sessions(options.timeout, options.in_process, options.environment) as sessions:
        loaded = _load(cases, backends, sessions, emit)
        for case in cases:
            problem = Problem(case)
            outputs: dict[str, dict[str, Arrays]] = {}
            for backend in loaded:
                if skip(case, backend):
                    continue
                on_case(case, backend)
                subject = Subject.of(problem, backend, sessions)
                for verdict in _case(subject, selected, options):
                    emit(verdict)
                outputs[backend] = {p: subject.kept(p) for p in case.pass_names}
            if differences is not None and len(outputs) > 1:
                differences.add(case, outputs)
            if options.stop_on_first and not all(v.accepted for v in found):
                break
    return found


def _load(
    cases: Sequence[Case], backends: Sequence[str], sessions: Sessions, emit: Callable[[Verdict], None]
) -> list[str]:
    """Starts every backend; one that breaks while it is loaded is reported and left out."""
    loaded = []
    for backend in backends:
        try:
            sessions.describe(backend, cases[0].threads if cases else 1)
        except BackendBroken as error:
            if cases:
                emit(
                    Verdict(
                        case=cases[0], backend=backend, pass_=cases[0].pass_names[0], check="load",
                        status=Status.CRASHED, reason=str(error), accepted=False,
                    )
                )  # fmt: skip
        else:
            loaded.append(backend)
    return loaded


def _case(subject: Subject, selected: Sequence[checks.Check], options: Options) -> list[Verdict]:
    """All verdicts of one case on one backend."""
    verdicts: list[Verdict] = []
    for pass_ in subject.case.pass_names:
        found = [_settle(v, options) for v in _pass(subject, pass_, selected)]
        if options.dump is not None and not all(v.accepted for v in found):
            dump(options.dump, subject, pass_, found)
        verdicts.extend(found)
    _check_expectation(verdicts, subject)
    return verdicts


def _pass(subject: Subject, pass_: str, selected: Sequence[checks.Check]) -> Iterator[Verdict]:
    reason = subject.sessions.tally(subject.backend).reason or subject.session.supports(subject.case)
    if reason:
        yield checks.verdict(subject, pass_, "bound", Status.SKIPPED, reason=reason)
        return
    base = next(c for c in checks.all_checks() if c.name == "bound")
    first = list(base.run(subject, pass_))
    ran = any(v.output and v.check == "bound" for v in first)
    # The other checks build on a run that returned something; what they find is worth knowing even when it is wrong.
    yield from (v for v in first if base in selected or not ran or v.status not in (Status.PASSED, Status.UNSTABLE))
    if not ran:
        return
    for check in selected:
        if check is base:
            continue
        if subject.sessions.tally(subject.backend).reason:
            return
        yield from check.run(subject, pass_)


def _settle(verdict: Verdict, options: Options) -> Verdict:
    """Decides whether the verdict is accepted: by the case's or the run's requirement, and by what the case expects."""
    requirement = verdict.case.require or options.require
    accepted = is_accepted(verdict.status, verdict.tier, requirement)
    if verdict.status is Status.UNSTABLE and _expects_unstable(verdict.case, verdict.backend):
        accepted = True
    if not accepted and verdict.status is Status.PASSED:
        return replace(
            verdict,
            accepted=False,
            reason=verdict.reason or f"keeps only tier {verdict.tier}, {requirement} is required",
        )
    return replace(verdict, accepted=accepted)


def _expects_unstable(case: Case, backend: str) -> bool:
    expected = dict(case.expect)
    return expected.get(backend, expected.get("*")) == "unstable"


def _check_expectation(verdicts: list[Verdict], subject: Subject) -> None:
    """A weakness that is expected but gone makes the first verdict unacceptable, so that the expectation is removed."""
    case = subject.case
    if not _expects_unstable(case, subject.backend) or not verdicts:
        return
    seen = {v.status for v in verdicts}
    if Status.UNSTABLE in seen or seen == {Status.SKIPPED} or not seen <= {Status.PASSED, Status.SKIPPED}:
        return
    reason = "expected to be UNSTABLE, but the weakness is gone: remove `expect` from the case"
    verdicts[0] = replace(verdicts[0], accepted=False, reason=reason)
