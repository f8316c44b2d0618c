"""The main check: every output of one run against its rounding-error bound."""

from __future__ import annotations

from collections.abc import Iterator

from lnbench.verify.check import judged, not_run
from lnbench.verify.subject import Subject
from lnbench.verify.verdict import Verdict


class Bound:
    name = "bound"
    reveals = "any output farther from the expected value than a correct program can be"
    order = 0

    def run(self, subject: Subject, pass_: str) -> Iterator[Verdict]:
        if pass_ == "forward":
            reply = subject.forward()
        else:
            reply = subject.run(subject.backward_request())
            subject.keep("backward", reply)
        if reply.status != "OK":
            yield not_run(subject, pass_, self.name, reply)
            return
        judgements = subject.judge(pass_, reply, grade=True)
        subject.judgements[pass_] = judgements
        yield from judged(subject, pass_, self.name, judgements, seconds=reply.seconds)


CHECK = Bound()
