"""`Examiner`: all checks on one case after another, on every backend of a run. Decides what is accepted; shows nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

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
    jobs: processes that share many small cases; 0 means one for each core, and 1 none beside this one.
    """

    require: str = DEFAULT_REQUIREMENT
    timeout: float = 60.0
    in_process: bool = False
    checks: tuple[str, ...] | None = None
    dump: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_on_first: bool = False
    jobs: int = 1


@dataclass(slots=True)
class Examiner:
    """Examines cases on `backends` with one set of workers. A context manager.

    differences: filled with how far the backends' outputs lie apart, case by case.
    """

    backends: Sequence[str]
    options: Options
    sessions: Sessions
    differences: Differences
    selected: tuple[checks.Check, ...]
    loaded: list[str]

    @classmethod
    def of(cls, backends: Sequence[str], options: Options) -> Examiner:
        sessions = Sessions(options.timeout, options.in_process, options.environment)
        return cls(backends, options, sessions, Differences(), checks.select(options.checks), [])

    def load(self, first: Case) -> list[Verdict]:
        """Starts every backend; one that breaks while it is loaded gets a verdict and is left out.

        Raises Unavailable or UnknownBackend.
        """
        broken = []
        for backend in self.backends:
            try:
                self.sessions.describe(backend, first.threads)
            except BackendBroken as error:
                verdict = Verdict(
                    case=first, backend=backend, pass_=first.pass_names[0], check="load", status=Status.CRASHED,
                    reason=str(error), accepted=False,
                )  # fmt: skip
                broken.append(verdict)
            else:
                self.loaded.append(backend)
        return broken

    def examine(
        self, case: Case, skipped: Sequence[str], on_case: Callable[[Case, str], None]
    ) -> Iterator[tuple[str, list[Verdict]]]:
        """The verdicts of one case, backend by backend; `skipped` backends are left out."""
        problem = Problem(case)
        outputs: dict[str, dict[str, Arrays]] = {}
        for backend in self.loaded:
            if backend in skipped:
                continue
            on_case(case, backend)
            subject = Subject.of(problem, backend, self.sessions)
            yield backend, _case(subject, self.selected, self.options)
            outputs[backend] = {p: subject.kept(p) for p in case.pass_names}
            if problem.large:
                subject.release()
        if len(outputs) > 1:
            self.differences.add(case, outputs)

    def __enter__(self) -> Examiner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sessions.close()


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
