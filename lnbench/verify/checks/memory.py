"""Instrumented memory: a second run with every buffer right behind an inaccessible page, and what all runs so far showed."""

from __future__ import annotations

from collections.abc import Iterator

from lnbench.verify.check import again, is_known, verdict
from lnbench.verify.subject import Subject
from lnbench.verify.verdict import Status, Verdict


class Memory:
    name = "memory"
    reveals = "reads and writes outside a tensor, writes to inputs, padding that is overwritten"
    order = 30

    def run(self, subject: Subject, pass_: str) -> Iterator[Verdict]:
        request = subject.base_request(pass_, placement="begin")
        reply = subject.run(request)
        found = again(subject, pass_, self.name, reply, "at another address")
        moved = not is_known(subject, found)
        if moved and not (reply.violations and not reply.is_ok):  # that is said below
            yield found
        if subject.violations:
            words = "; ".join(dict.fromkeys(v.sentence for v in subject.violations))
            tensor = subject.violations[0].tensor
            subject.violations.clear()
            yield verdict(subject, pass_, self.name, Status.FAILED, output=tensor, reason=words)
        elif not moved:
            yield verdict(subject, pass_, self.name, Status.PASSED)


CHECK = Memory()
