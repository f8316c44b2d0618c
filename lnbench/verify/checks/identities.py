"""Metamorphic relations: transformed problems whose answer follows from the first one, each judged by its own bound.

The reference satisfies the relations, so two outputs within their bounds satisfy them too; what a relation adds is data
that the backend has not seen: scaled, negated, shifted, permuted, a row alone. Each case tries one for each pass, chosen
by its key; asked for by name (`--check identities`) it tries all.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lnbench.case import Case
from lnbench.operators.schema import Fold
from lnbench.verify.check import compare_bits, is_small, not_run, prefixed, run_and_judge, together, verdict
from lnbench.verify.subject import Arrays, Subject
from lnbench.verify.verdict import Status, Verdict

PER_CASE = 1

Problem = tuple[Case, dict[str, np.ndarray]]


@dataclass(frozen=True, slots=True)
class Relation:
    """statement: the identity in words. apply: the transformed problem, or None where the relation is not exact."""

    name: str
    statement: str
    apply: Callable[[Subject, Fold], Problem | None]
    passes: tuple[str, ...] = ("forward", "backward")


def _rebuild(fold: Fold, along: str, like: np.ndarray, folded: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(fold.from_rows(folded) if along == "element" else folded.reshape(like.shape))


def _scaled(subject: Subject, fold: Fold) -> Problem | None:
    x = subject.problem.inputs()["x"]
    scaled = x * x.dtype.type(4)
    if not np.array_equal(scaled / x.dtype.type(4), x, equal_nan=False) or not np.isfinite(scaled).all():
        return None
    return subject.case.replace(epsilon=subject.case.epsilon * 16), {**subject.problem.inputs(), "x": scaled}


def _negated(subject: Subject, fold: Fold) -> Problem:
    return subject.case, {**subject.problem.inputs(), "x": -subject.problem.inputs()["x"]}


def _shifted(subject: Subject, fold: Fold) -> Problem | None:
    x = subject.problem.inputs()["x"]
    largest = np.max(np.abs(x.astype(np.float64)), initial=0.0)
    if not np.isfinite(largest) or largest == 0:
        return None
    shift = x.dtype.type(2.0 ** np.ceil(np.log2(largest)))
    moved = x + shift
    if not np.isfinite(moved).all() or not np.array_equal(moved - shift, x):
        return None
    return subject.case, {**subject.problem.inputs(), "x": moved}


def _permuted(subject: Subject, fold: Fold, of_rows: bool) -> Problem:
    rng = np.random.default_rng(subject.case.seed + 7)
    order = rng.permutation(fold.rows if of_rows else fold.cols)
    inputs = dict(subject.problem.inputs())
    for name, tensor in subject.tensors().items():
        if name not in inputs or tensor.along == ("column" if of_rows else "row") or tensor.along == "whole":
            continue
        folded = fold.to_rows(inputs[name].reshape(tensor.shape), tensor.along)
        moved = folded[order] if of_rows else folded[:, order]
        inputs[name] = _rebuild(fold, tensor.along, inputs[name], moved)
    return subject.case, inputs


def _columns(subject: Subject, fold: Fold) -> Problem:
    return _permuted(subject, fold, of_rows=False)


def _row_order(subject: Subject, fold: Fold) -> Problem:
    return _permuted(subject, fold, of_rows=True)


def _doubled_dy(subject: Subject, fold: Fold) -> Problem:
    dy = subject.problem.inputs()["dy"]
    return subject.case, {**subject.problem.inputs(), "dy": dy + dy}


def _zero_dy(subject: Subject, fold: Fold) -> Problem:
    return subject.case, {**subject.problem.inputs(), "dy": np.zeros_like(subject.problem.inputs()["dy"])}


RELATIONS = (
    Relation("scale", "y(4x; 16 epsilon) = y(x; epsilon)", _scaled),
    Relation("negate", "xhat(-x) = -xhat(x)", _negated),
    Relation("shift", "y(x + c) = y(x)", _shifted),
    Relation("columns", "permuting columns permutes y and dx", _columns),
    Relation("row order", "permuting rows permutes y and dx and leaves dgamma and dbeta", _row_order),
    Relation("linear", "dx, dgamma and dbeta are linear in dy", _doubled_dy, ("backward",)),
    Relation("zero", "dy = 0 gives exact zeros", _zero_dy, ("backward",)),
)


class Identities:
    name = "identities"
    reveals = "results that depend on scale, sign, order or neighbours of the data"
    order = 70

    def __init__(self, *, every: bool = False):
        self._every = every

    def asked_for(self) -> Identities:
        return Identities(every=True)

    def run(self, subject: Subject, pass_: str) -> Iterator[Verdict]:
        if not is_small(subject, 1 << 16) or subject.case.elements == 0 or subject.case.inputs:
            return
        fold = subject.operator.fold(subject.case)
        found = [v for r in self._choose(subject, pass_) for v in self._try(subject, pass_, fold, r)]
        found.extend(self._alone(subject, pass_, fold))
        if found:
            yield together(subject, pass_, self.name, found)

    def _choose(self, subject: Subject, pass_: str) -> list[Relation]:
        usable = [r for r in RELATIONS if pass_ in r.passes]
        if self._every:
            return usable
        first = zlib.crc32(f"{subject.case.key}{pass_}".encode())
        return [usable[(first + i) % len(usable)] for i in range(PER_CASE)]

    def _try(self, subject: Subject, pass_: str, fold: Fold, relation: Relation) -> list[Verdict]:
        with np.errstate(all="ignore"):
            problem = relation.apply(subject, fold)
        if problem is None:
            return []
        case, inputs = problem
        what = f"identity {relation.name} ({relation.statement})"
        statistics = subject.reference_statistics(case, inputs) if pass_ == "backward" else None
        request = subject.request(pass_, case=case, inputs=inputs, statistics=statistics)
        return [run_and_judge(subject, pass_, self.name, request, inputs=inputs, what=what)]

    def _alone(self, subject: Subject, pass_: str, fold: Fold) -> list[Verdict]:
        """One row alone must give the bits that it gives in the batch, where that is declared."""
        base = subject.kept(pass_)
        out = {"forward": "y", "backward": "dx"}[pass_]
        if subject.facts.batch_invariant != "yes" or fold.rows < 2 or out not in base:
            return []
        row = zlib.crc32(subject.case.key.encode()) % fold.rows
        case, inputs = self._one_row(subject, fold, row)
        statistics = None
        if pass_ == "backward":
            own = subject.own_statistics() or subject.reference_statistics()
            statistics = {
                n: a.reshape(fold.rows, 1)[row].reshape(subject.operator.fold(case).statistic_shape)
                for n, a in own.items()
            }
        reply = subject.run(subject.request(pass_, case=case, inputs=inputs, statistics=statistics))
        if reply.status != "OK":
            return [prefixed(not_run(subject, pass_, self.name, reply), "a row alone")]
        want = fold.to_rows(base[out].reshape(subject.case.shape))[row].reshape(-1)
        got = reply.outputs[out].reshape(-1)
        differs = compare_bits(
            subject, pass_, self.name, {out: want}, {out: got}, f"row {row} alone instead of in its batch"
        )
        return [differs or verdict(subject, pass_, self.name, Status.PASSED)]

    @staticmethod
    def _one_row(subject: Subject, fold: Fold, row: int) -> tuple[Case, Arrays]:
        shape = tuple(n if a in fold.reduced else 1 for a, n in enumerate(fold.shape))
        case = subject.case.replace(shape=shape)
        tensors, small = subject.tensors(), subject.tensors(case)
        inputs = {}
        for name, array in subject.problem.inputs().items():
            along = tensors[name].along
            picked = (
                array if along == "column" else fold.to_rows(array.reshape(tensors[name].shape), along)[row : row + 1]
            )
            inputs[name] = np.ascontiguousarray(picked.reshape(small[name].shape))
        return case, inputs


CHECK = Identities()
