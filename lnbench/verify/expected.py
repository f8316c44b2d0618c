"""Expected values and bounds of one case and pass, in row blocks: folds tensors, evaluates the operator's reference,
rounds to the output's format. Decides nothing about what a backend returned; that is `compare`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from lnbench.case import Case
from lnbench.numerics import dtypes
from lnbench.numerics.bounded import Bounded, given
from lnbench.numerics.rules import Arithmetic, work_format
from lnbench.numerics.wide import Value
from lnbench.operators import registry
from lnbench.operators.schema import Fold, Operator, Tensor

Array = np.ndarray[Any, np.dtype[Any]]

# Elements of a block: its float64 temporaries stay in the second-level cache.
BLOCK_ELEMENTS = 1 << 15

_NOTHING: Array = np.empty((0, 0))

# Rows of a problem: a range, or single ones.
Where = slice | Array

# Terms of second order in u that `Bounded` leaves out: a chain of 30 operations has at most 30 u relative to the bound.
SECOND_ORDER = 2.0**-19


class Rows:
    """A tensor as (rows, cols), (rows, 1) or (1, cols), read block by block; never copied as a whole."""

    def __init__(self, array: Array, fold: Fold, along: str):
        self.along, self._cols = along, 1 if along == "row" else fold.cols
        self._index: tuple[int, ...] | None = None
        if along == "element":
            moved = array.transpose(fold.kept + fold.reduced)
            kept = tuple(array.shape[a] for a in fold.kept)
            if _joins(moved, len(kept)):
                moved = moved.reshape(fold.rows, *moved.shape[len(kept) :])
            elif len(kept) > 1:
                self._index = kept
            self._array = moved if kept else moved[None]
        else:
            self._array = array.reshape((1, fold.cols) if along == "column" else (fold.rows, 1))

    def block(self, where: Where) -> Array:
        """Some rows as a 2-D array of the tensor's own format; all of a `column` tensor."""
        if self.along == "column":
            return self._array
        if self._index is None:
            found = self._array[where]
        else:
            rows = np.arange(where.start, where.stop) if isinstance(where, slice) else where
            found = self._array[np.unravel_index(rows, self._index)]
        return found.reshape(-1 if found.size else found.shape[0], self._cols)


def _joins(array: Array, axes: int) -> bool:
    # Whether the first `axes` axes can be one axis of a view.
    dims = [(n, s) for n, s in zip(array.shape[:axes], array.strides[:axes], strict=True) if n != 1]
    return axes > 0 and (array.size == 0 or all(s == n2 * s2 for (_, s), (n2, s2) in pairwise(dims)))


@dataclass(slots=True)
class Expected:
    """Expected values of one output over a block.

    bound: float64, infinite where nothing can be decided. beyond: where a program may leave the range, or None.
    tainted: rows that NaN or infinite inputs reach, (rows, 1) or (1, 1), or None. summed: see `Bounded`.
    magnitude: |value|; empty in a part of a sum over rows.
    """

    value: Value
    bound: Array
    magnitude: Array
    beyond: Array | None
    tainted: Array | None
    summed: Array | None = None

    @property
    def nbytes(self) -> int:
        return 4 * self.bound.nbytes


@dataclass(slots=True)
class Problem:
    """One case and pass with its inputs, folded. `outputs` are the tensors that may be judged, by name."""

    case: Case
    pass_: str
    operator: Operator
    fold: Fold
    inputs: dict[str, tuple[Rows, str]]
    outputs: dict[str, Tensor]
    domain: float = math.inf
    _infinite: dict[str, bool] = field(default_factory=dict)

    @classmethod
    def of(cls, case: Case, pass_: str, inputs: Mapping[str, Array], kind: str, stat_dtype: str | None) -> Problem:
        operator = registry.get(case.op)
        fold = operator.fold(case)
        tensors = operator.tensors(case, kind, stat_dtype)
        order = operator.forward_inputs if pass_ == "forward" else operator.backward_inputs
        rows = {
            n: (Rows(np.asarray(inputs[n]), fold, tensors[n].along), tensors[n].dtype)
            for n in order
            if n in tensors and n in inputs and tensors[n].role != "statistic"
        }
        names = [kind if n == "stat" else n for n in operator.outputs(case, pass_)]
        return cls(case, pass_, operator, fold, rows, {n: tensors[n] for n in names if n in tensors})

    @property
    def elements(self) -> int:
        return self.fold.rows * self.fold.cols

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[slice]:
        """Row ranges of about `BLOCK_ELEMENTS` elements; one empty range when there are no rows."""
        stop = self.fold.rows if stop is None else stop
        step = max(1, BLOCK_ELEMENTS // max(self.fold.cols, 1))
        if start == stop:
            yield slice(start, stop)
        for at in range(start, stop, step):
            yield slice(at, min(at + step, stop))

    def index(self, name: str, row: int, col: int) -> tuple[int, ...]:
        """The index, in the output's own shape, of a folded element."""
        tensor = self.outputs[name]
        if tensor.along == "row" and len(tensor.shape) == 1:
            return (row,)
        return self.fold.index(row, col, tensor.along)

    def has_infinite(self, name: str) -> bool:
        """Whether an input holds an infinity; looked up once."""
        if name not in self._infinite:
            rows = self.inputs[name][0] if name in self.inputs else None
            blocks = () if rows is None else (rows.block(w) for w in self.blocks())
            self._infinite[name] = any(bool(np.isinf(b).any()) for b in blocks)
        return self._infinite[name]

    def drift(self) -> float:
        """Largest columns * u * |mean|/std over the rows of x: how far the roundings of a sum in order have a system."""
        largest = 0.0
        for where in self.blocks():
            x = dtypes.widen(self.inputs["x"][0].block(where))
            with np.errstate(all="ignore"):
                mean, spread = np.abs(x.mean(axis=1)), x.std(axis=1)
                ratio = np.where(mean > 0, mean / spread, 0.0)
            largest = max(largest, float(np.max(ratio, where=~np.isnan(ratio), initial=0.0)))
        return largest * self.fold.cols * dtypes.get(work_format(self.case.dtype)).unit

    def evaluate(self, arithmetic: Arithmetic, where: Where, names: Collection[str]) -> dict[str, Expected]:
        """Expected values of the outputs `names` over some rows.

        Outputs along `column` are these rows' part of the sum, not yet rounded to their format: add them up in `Parts`
        and call `finished`.
        """
        with np.errstate(all="ignore"):
            t = {n: given(rows.block(where), dtype, arithmetic) for n, (rows, dtype) in self.inputs.items()}
            tainted, outside = self._tainted(t), self._outside(t)
            text = self.operator.forward if self.pass_ == "forward" else self.operator.backward
            found = text(t, self.case)
            t.clear()
            out = {}
            for name in names:
                column = self.outputs[name].along == "column"
                expected = _expected(found[name], tainted, outside, whole=column)
                out[name] = expected if column else self.finished(name, expected, arithmetic)
            return out

    def _tainted(self, t: Mapping[str, Bounded]) -> Array | None:
        # Not `peak`: it leaves out what is not finite. A maximum is NaN or infinite as soon as one element is.
        if all(np.isfinite(b.magnitude.max(initial=0.0)) for b in t.values()):
            return None
        rows = np.zeros((1, 1), dtype=bool)
        for b in t.values():
            bad = ~np.isfinite(b.magnitude)
            rows = rows | bad.any(axis=1, keepdims=True)
        return rows

    def _outside(self, t: Mapping[str, Bounded]) -> Array | None:
        data = [b for n, b in t.items() if self.inputs[n][0].along == "element"]
        if all(b.peak <= self.domain for b in data):
            return None
        rows = np.zeros((1, 1), dtype=bool)
        for b in data:
            rows = rows | (b.magnitude > self.domain).any(axis=1, keepdims=True)
        return rows

    def finished(self, name: str, expected: Expected, arithmetic: Arithmetic) -> Expected:
        """`expected` with the rounding to the output's format, underflow there, and the margins of the analysis."""
        form, rules = dtypes.get(self.outputs[name].dtype), arithmetic.rules
        with np.errstate(all="ignore"):
            magnitude = expected.magnitude if expected.magnitude.size else arithmetic.wide.magnitude(expected.value)
            bound = expected.bound * (1.0 + SECOND_ORDER + arithmetic.wide.slack)
            if form.precision < dtypes.get(rules.work).precision:
                bound += 0.5 * dtypes.ulp(magnitude + bound, form.name)
            elif self.outputs[name].role == "statistic" and rules.saved and dtypes.get(rules.saved).unit > form.unit:
                # Kept in a shorter format than it is returned in.
                bound += dtypes.get(rules.saved).unit * (magnitude + bound) + dtypes.get(rules.saved).smallest
            bound += form.normal if rules.flush else form.smallest
            np.copyto(bound, np.inf, where=np.isnan(bound))
        return replace(expected, bound=bound, magnitude=magnitude)


def _expected(b: Bounded, tainted: Array | None, outside: Array | None, *, whole: bool) -> Expected:
    # `whole`: what happens to any row happens to the output.
    if whole:
        tainted = None if tainted is None else np.asarray(tainted.any(keepdims=True))
        outside = None if outside is None else np.asarray(outside.any(keepdims=True))
    bound = np.zeros(b.shape) if b.error is None else b.error
    return Expected(b.value, bound, _NOTHING if whole else b.magnitude, _either(b.beyond, outside), tainted, b.summed)


def _sum(a: Expected, b: Expected) -> Expected:
    value = a.value + b.value
    beyond, tainted = _either(a.beyond, b.beyond), _either(a.tainted, b.tainted)
    summed = None if a.summed is None or b.summed is None else a.summed + b.summed
    return Expected(value, a.bound + b.bound, _NOTHING, beyond, tainted, summed)


def _either(a: Array | None, b: Array | None) -> Array | None:
    if a is None or b is None:
        return b if a is None else a
    return a | b


class Parts:
    """Adds up parts of `column` outputs as they come, in a binary tree, keeping log2 of them."""

    def __init__(self) -> None:
        self._held: list[tuple[int, Expected]] = []

    def add(self, part: Expected) -> None:
        size = 1
        with np.errstate(all="ignore"):
            while self._held and self._held[-1][0] == size:
                part = _sum(self._held.pop()[1], part)
                size *= 2
        self._held.append((size, part))

    def total(self) -> Expected:
        with np.errstate(all="ignore"):
            found = self._held[-1][1]
            for _, part in reversed(self._held[:-1]):
                found = _sum(part, found)
        return found
