"""Instrumented memory: a second run with every buffer right behind an inaccessible page, and what all runs so far showed."""

from __future__ import annotations

from collections.abc import Iterator

from lnbench.verify.check import compare_bits, is_known, not_run, run_and_judge, verdict
from lnbench.verify.subject import Subject
from lnbench.verify.verdict import Status, Verdict


class Memory:
    name = "memory"
    reveals = "reads and writes outside a tensor, writes to inputs, padding that is overwritten"
    order = 30

    def run(self, subject: Subject, pass_: str) -> Iterator[Verdict]:
        request = subject.base_request(pass_, placement="begin")
        base = subject.kept(pass_)
        if base and subject.facts.deterministic == "yes":
            reply = subject.run(request)
            if reply.status != "OK":
                yield not_run(subject, pass_, self.name, reply)
                return
            moved = compare_bits(subject, pass_, self.name, base, reply.outputs, "at another address")
        else:
            found = run_and_judge(subject, pass_, self.name, request, what="at another address")
            moved = None if is_known(subject, found) else found
        if moved:
            yield moved
        if subject.violations:
            words = "; ".join(dict.fromkeys(v.sentence for v in subject.violations))
            tensor = subject.violations[0].tensor
            subject.violations.clear()
            yield verdict(subject, pass_, self.name, Status.FAILED, output=tensor, reason=words)
        elif not moved:
            yield verdict(subject, pass_, self.name, Status.PASSED)


CHECK = Memory()
