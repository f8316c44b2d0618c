"""The same call and the same buffers again and again: other data, epsilon and gamma, no beta, and the first data once more.

Finds state that survives a call: results cached by address or shape, accumulated gradients, races that show now and then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from lnbench.pool import Handle, Reply
from lnbench.verify.check import (
    again,
    is_small,
    judged,
    not_run,
    prefixed,
    run_and_judge,
    together,
    worst_of,
)
from lnbench.verify.subject import Arrays, Problem, Subject
from lnbench.verify.verdict import Verdict

AGAIN = 3


class Repeat:
    name = "repeat"
    reveals = "state kept between calls, stale caches, accumulated outputs, races"
    order = 40

    def run(self, subject: Subject, pass_: str) -> Iterator[Verdict]:
        if not is_small(subject) or subject.case.elements == 0 or subject.case.inputs:
            return
        yield together(subject, pass_, self.name, list(self._steps(subject, pass_)))

    def _steps(self, subject: Subject, pass_: str) -> Iterator[Verdict]:
        request = subject.base_request(pass_)
        opened = subject.open(request)
        if isinstance(opened, Reply):
            yield not_run(subject, pass_, self.name, opened)
            return
        with closing(opened) as handle:
            yield self._first_data(subject, pass_, handle, "run again")
            other = subject.problem.inputs(1)
            statistics = subject.reference_statistics(None, other) if pass_ == "backward" else {}
            handle.load({n: a for n, a in {**other, **statistics}.items() if n in request.inputs})
            yield self._judge(subject, pass_, handle.run(), other, "run again with new data in the same buffers")
            yield self._changed(subject, pass_)
            handle.load(request.inputs)
            for _ in range(AGAIN):
                yield self._first_data(subject, pass_, handle, "run again with the first data")

    def _first_data(self, subject: Subject, pass_: str, handle: Handle, what: str) -> Verdict:
        """One more run on the first data: the same bits where that is declared, else judged again."""
        return again(subject, pass_, self.name, subject.note(handle.run()), what)

    def _changed(self, subject: Subject, pass_: str) -> Verdict:
        """The same shape with another epsilon, other gamma and no beta, on the same backend object."""
        case = subject.case.replace(epsilon=subject.case.epsilon * 3 + 0.25, beta=False, seed=subject.case.seed + 1)
        inputs = Problem(case).inputs()
        changed = subject.request(
            pass_,
            case=case,
            inputs=inputs,
            statistics=subject.reference_statistics(case, inputs) if pass_ == "backward" else None,
        )
        return run_and_judge(
            subject,
            pass_,
            self.name,
            changed,
            inputs=inputs,
            what=f"then with epsilon {case.epsilon:g}, other gamma and no beta",
        )

    def _judge(self, subject: Subject, pass_: str, reply: Reply, inputs: Arrays, what: str) -> Verdict:
        subject.note(reply)
        if reply.status != "OK":
            return prefixed(not_run(subject, pass_, self.name, reply), what)
        judgements = subject.judge(pass_, reply, inputs=inputs)
        return prefixed(worst_of(judged(subject, pass_, self.name, judgements)), what)


CHECK = Repeat()
