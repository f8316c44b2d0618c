"""Rows whose output is known to the last bit: constant rows of small integers, and rows of one element, give beta.

For these every sound algorithm computes the mean exactly, so x - mean is 0 and y is beta. Only programs that fold the
affine step into x*scale + shift miss it: their error stays within the bound of that order of evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lnbench.verify.check import verdict
from lnbench.verify.subject import Subject
from lnbench.verify.verdict import Status, Verdict

_FOLDED = (
    "folded affine: y is computed as x*scale + shift, which does not cancel on {what}; expected exactly beta. "
    "Subtract the mean before multiplying"
)


class Exact:
    name = "exact"
    reveals = "scale and shift folded per row, special cases for one column that are wrong"
    order = 10

    def run(self, subject: Subject, pass_: str) -> Iterator[Verdict]:
        got = subject.kept("forward").get("y")
        if pass_ != "forward" or got is None or got.size == 0:
            return
        case, inputs = subject.case, subject.problem.inputs()
        rows = subject.operator.exact_rows(inputs, case)
        fold = subject.operator.fold(case)
        if rows is None or not rows.any() or got.size != fold.rows * fold.cols:
            return
        y = fold.to_rows(got.reshape(case.shape))[rows].astype(np.float64)
        want = np.broadcast_to(self._beta(subject), (fold.rows, fold.cols))[rows].astype(np.float64)
        wrong = y != want
        if not wrong.any():
            yield verdict(subject, pass_, self.name, Status.PASSED, output="y", compared=int(y.size))
            return
        at, col = (int(i) for i in np.argwhere(wrong)[0])
        row = int(np.flatnonzero(rows)[at])
        what = "rows of one element" if fold.cols == 1 else "constant rows"
        yield verdict(
            subject, pass_, self.name, Status.UNSTABLE, output="y", compared=int(y.size), reason=_FOLDED.format(what=what),
            worst_index=fold.index(row, col), expected=float(want[at, col]), got=float(y[at, col]),
            max_abs=float(np.max(np.abs(y - want)[wrong])),
        )  # fmt: skip

    @staticmethod
    def _beta(subject: Subject) -> np.ndarray:
        """beta folded and rounded to the dtype of y, broadcastable to (rows, cols); 0 where absent."""
        beta = subject.problem.inputs().get("beta")
        if beta is None:
            return np.zeros((1, 1))
        tensors = subject.tensors()
        folded = subject.operator.fold(subject.case).to_rows(beta, tensors["beta"].along)
        return folded.astype(subject.kept("forward")["y"].dtype)


CHECK = Exact()
