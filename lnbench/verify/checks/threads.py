"""The same case with 1 to 8 threads and with more threads than rows: bits compared where determinism is declared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lnbench.verify.check import again, is_small, together
from lnbench.verify.subject import Subject
from lnbench.verify.verdict import Verdict

COUNTS = (1, 2, 3, 4, 5, 6, 7, 8)
MOST = 64


class Threads:
    name = "threads"
    reveals = (
        "rows lost or shared between threads, scratch per thread that is too small, trees that need a power of two"
    )
    order = 50

    def run(self, subject: Subject, pass_: str) -> Iterator[Verdict]:
        # A process whose thread count is fixed is checked by running the suite with --threads.
        if subject.facts.threads != "call" or not is_small(subject) or subject.case.elements == 0:
            return
        rows = subject.operator.fold(subject.case).rows
        counts = [n for n in (*COUNTS, min(rows + 1, MOST)) if n != subject.case.threads]
        yield together(subject, pass_, self.name, [self._one(subject, pass_, n) for n in dict.fromkeys(counts)])

    def _one(self, subject: Subject, pass_: str, threads: int) -> Verdict:
        reply = subject.run(subject.base_request(pass_, threads=threads))
        return replace(again(subject, pass_, self.name, reply, f"with {threads} threads"), threads=threads)


CHECK = Threads()
