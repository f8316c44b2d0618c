"""The same case with 1 to 8 threads and with more threads than rows: bits compared where determinism is declared."""

from __future__ import annotations

from collections.abc import Iterator

from lnbench.verify.check import compare_bits, is_small, not_run, prefixed, run_and_judge, together, verdict
from lnbench.verify.subject import Subject
from lnbench.verify.verdict import Status, Verdict

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
        what = f"with {threads} threads"
        request = subject.base_request(pass_, threads=threads)
        if subject.facts.deterministic != "yes" or not subject.kept(pass_):
            return run_and_judge(subject, pass_, self.name, request, what=what)
        reply = subject.run(request)
        if reply.status != "OK":
            return prefixed(not_run(subject, pass_, self.name, reply), what)
        differs = compare_bits(subject, pass_, self.name, subject.kept(pass_), reply.outputs, what)
        return differs or verdict(subject, pass_, self.name, Status.PASSED, threads=threads)


CHECK = Threads()
