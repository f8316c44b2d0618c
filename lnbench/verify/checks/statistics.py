"""Gradients from the reference's statistics: a backward that only agrees with its own forward's mistake is found here."""

from __future__ import annotations

from collections.abc import Iterator

from lnbench.verify.check import judged, not_run, prefixed
from lnbench.verify.subject import Subject
from lnbench.verify.verdict import Verdict

WHAT = "given the reference's statistics"


class Statistics:
    name = "statistics"
    reveals = "saved statistics that are misread, and mistakes of forward that backward repeats"
    order = 20

    def run(self, subject: Subject, pass_: str) -> Iterator[Verdict]:
        # Without statistics of its own the backend's base run was already given the reference's.
        if pass_ != "backward" or subject.own_statistics() is None:
            return
        reply = subject.run(subject.request("backward", statistics=subject.reference_statistics()))
        if reply.status != "OK":
            yield prefixed(not_run(subject, pass_, self.name, reply), WHAT)
            return
        for found in judged(subject, pass_, self.name, subject.judge(pass_, reply)):
            yield prefixed(found, WHAT)


CHECK = Statistics()
