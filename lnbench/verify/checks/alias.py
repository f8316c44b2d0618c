"""Output written over input (y on x, dx on dy) by backends that declare it to work."""

from __future__ import annotations

from collections.abc import Iterator

from lnbench.verify.check import again, together
from lnbench.verify.subject import Subject
from lnbench.verify.verdict import Verdict

PAIRS = {"forward": "y=x", "backward": "dx=dy"}


class Alias:
    name = "alias"
    reveals = "inputs that are overwritten before they are read for the last time"
    order = 60

    def run(self, subject: Subject, pass_: str) -> Iterator[Verdict]:
        alias = PAIRS[pass_]
        out, source = alias.split("=")
        tensors = subject.tensors()
        same_layout = getattr(subject.case, tensors[out].layout) == getattr(subject.case, tensors[source].layout)
        if not subject.facts.allows_alias(alias) or not same_layout or subject.case.elements == 0:
            return
        reply = subject.run(subject.base_request(pass_, alias=alias))
        found = again(subject, pass_, self.name, reply, f"in place ({alias})", may_differ=True)
        yield together(subject, pass_, self.name, [found])


CHECK = Alias()
