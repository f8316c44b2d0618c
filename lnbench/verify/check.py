"""What a check is, and how it turns replies and judgements into verdicts. One check per file in `lnbench.verify.checks`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache
from typing import Any, Protocol

import numpy as np

from lnbench.errors import UsageError, nearest
from lnbench.pool import Reply, Request
from lnbench.verify.subject import Arrays, Subject
from lnbench.verify.verdict import ORDER, Judgement, Status, Verdict

_BITS = "{}: bits of {} differ although that is declared not to happen"


class Check(Protocol):
    """One kind of verification. Stateless; one instance serves all cases.

    order: checks run in this order; `bound` is first and decides whether the others run at all.
    """

    name: str
    reveals: str
    order: int

    def run(self, subject: Subject, pass_: str) -> Iterator[Verdict]:
        """Verdicts for one pass; none where the check does not apply."""
        ...


@cache
def all_checks() -> tuple[Check, ...]:
    """Every check of `lnbench.verify.checks`, in order: a new check is one new file that defines `CHECK`."""
    from lnbench.verify import checks as package

    found = [
        importlib.import_module(f"{package.__name__}.{m.name}").CHECK for m in pkgutil.iter_modules(package.__path__)
    ]
    return tuple(sorted(found, key=lambda c: c.order))


def select(names: tuple[str, ...] | None) -> tuple[Check, ...]:
    """The checks called `names` (all when None). Raises UsageError for an unknown name.

    A check that does only a part of what it could, to save time, has a method `asked_for` that gives the whole.
    """
    known = {c.name: c for c in all_checks()}
    for name in names or ():
        if name not in known:
            raise UsageError(f"unknown check {name!r}{nearest(name, list(known))}; allowed: {', '.join(known)}")
    if names is None:
        return all_checks()
    return tuple(getattr(c, "asked_for", lambda c=c: c)() for c in known.values() if c.name in names)


def verdict(subject: Subject, pass_: str, check: str, status: Status, **numbers: Any) -> Verdict:
    """A verdict on the subject's case and backend."""
    numbers.setdefault("threads", subject.case.threads)
    return Verdict(case=subject.case, backend=subject.backend, pass_=pass_, check=check, status=status, **numbers)


_NUMBERS = tuple(f.name for f in fields(Judgement) if f.name != "status")


def judged(subject: Subject, pass_: str, check: str, judgements: Mapping[str, Judgement], **more: Any) -> list[Verdict]:
    """One verdict per judged output."""
    return [
        verdict(
            subject,
            pass_,
            check,
            j.status,
            **{**{n: getattr(j, n) for n in _NUMBERS}, "output": output, **more},
        )
        for output, j in judgements.items()
    ]


def worst_of(verdicts: list[Verdict]) -> Verdict:
    """The worst verdict; among equals the one with the largest budget."""
    return min(verdicts, key=lambda v: (ORDER.index(v.status), -(v.budget or 0.0)))


def is_known(subject: Subject, found: Verdict) -> bool:
    """Whether the verdict says nothing new: passed, changed data that decide nothing, or UNSTABLE as the main check told."""
    if found.status is not Status.UNSTABLE:
        return found.status in (Status.PASSED, Status.EMPTY)
    told = subject.judgements[found.pass_].get(found.output)
    return told is not None and told.status is Status.UNSTABLE


def together(subject: Subject, pass_: str, check: str, found: list[Verdict]) -> Verdict:
    """One verdict for all the runs of a check: the worst that is news, else PASSED; `compared` counts the runs."""
    news = [v for v in found if not is_known(subject, v)]
    return worst_of(news) if news else verdict(subject, pass_, check, Status.PASSED, compared=len(found))


def not_run(subject: Subject, pass_: str, check: str, reply: Reply) -> Verdict:
    """The verdict for a reply that is not OK. What instrumented memory caught is FAILED by `memory`, signal or not."""
    if reply.violations:
        return verdict(
            subject, pass_, "memory", Status.FAILED, output=reply.violations[0].tensor, reason=sentences(reply)
        )
    return verdict(subject, pass_, check, Status(reply.status), reason=reply.reason, seconds=reply.seconds)


def sentences(reply: Reply) -> str:
    """The violations of a reply in words, each once."""
    return "; ".join(dict.fromkeys(v.sentence for v in reply.violations))


def run_and_judge(
    subject: Subject,
    pass_: str,
    check: str,
    request: Request,
    *,
    inputs: Arrays | None = None,
    what: str = "",
) -> Verdict:
    """Runs a request and judges all its outputs: one verdict, the worst, whose reason begins with `what`."""
    reply = subject.run(request)
    if reply.status != "OK":
        found = not_run(subject, pass_, check, reply)
    else:
        judgements = subject.judge(pass_, reply, case=request.case, inputs=inputs)
        found = worst_of(judged(subject, pass_, check, judgements, threads=request.threads))
    return prefixed(found, what)


def again(subject: Subject, pass_: str, check: str, reply: Reply, what: str, *, may_differ: bool = False) -> Verdict:
    """What one more run of the base problem shows. Other bits than the base run's are judged, unless they are declared not to be.

    `what` says what was different about it. may_differ: the declaration does not reach that far.
    """
    if reply.status != "OK":
        return prefixed(not_run(subject, pass_, check, reply), what)
    changed = subject.changed(pass_, reply)
    if changed == []:
        return verdict(subject, pass_, check, Status.PASSED)
    if changed and not may_differ and subject.facts.deterministic == "yes":
        differs = compare_bits(subject, pass_, check, subject.kept(pass_), reply.outputs, what)
        reason = _BITS.format(what, changed[0])
        return differs or verdict(subject, pass_, check, Status.FAILED, output=changed[0], reason=reason)
    return prefixed(worst_of(judged(subject, pass_, check, subject.judge(pass_, reply))), what)


def prefixed(found: Verdict, what: str) -> Verdict:
    """The verdict with `what` (the circumstances) before its reason, when there is something to explain."""
    from dataclasses import replace

    if not what or found.status is Status.PASSED:
        return found
    return replace(found, reason=f"{what}: {found.reason}" if found.reason else what)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays of one dtype hold the same bits (NaNs of equal payload included)."""
    return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(_bits(a), _bits(b))


def first_difference(a: np.ndarray, b: np.ndarray) -> tuple[tuple[int, ...], float, float]:
    """Index and both values of the first element whose bits differ. The arrays must differ."""
    flat = int(np.flatnonzero(_bits(a) != _bits(b))[0])
    index = tuple(int(i) for i in np.unravel_index(flat, a.shape))
    return index, float(a[index]), float(b[index])


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").reshape(-1)


def compare_bits(subject: Subject, pass_: str, check: str, want: Arrays, got: Arrays, what: str) -> Verdict | None:
    """A FAILED verdict naming the first output whose bits differ, or None. `what` says what should not have mattered."""
    for output, expected in want.items():
        if output in got and not same_bits(expected, got[output]):
            index, e, g = (
                first_difference(expected, got[output]) if expected.shape == got[output].shape else ((), 0.0, 0.0)
            )
            return verdict(
                subject, pass_, check, Status.FAILED, output=output, worst_index=index, expected=e, got=g,
                compared=expected.size, reason=_BITS.format(what, output),
            )  # fmt: skip
    return None


def is_small(subject: Subject, elements: int = 1 << 18) -> bool:
    """Whether the case is small enough for the checks that run it many times."""
    return subject.case.elements <= elements
