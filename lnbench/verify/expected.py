"""Expected values and bounds of one case and pass, in row blocks: folds tensors, evaluates the operator's reference, rounds
to the output's format. Decides nothing about what a backend returned; that is `compare`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lnbench.case import Case
from lnbench.numerics import dtypes
from lnbench.numerics.bounded import Bounded, given
from lnbench.numerics.rules import Arithmetic
from lnbench.numerics.wide import Value
from lnbench.operators import registry
from lnbench.operators.schema import Fold, Operator, Tensor

Array = np.ndarray[Any, np.dtype[Any]]

# Elements of a block: its float64 temporaries stay in the second-level cache.
BLOCK_ELEMENTS = 1 << 15

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

    def block(self, start: int, stop: int) -> Array:
        """Rows start..stop as a 2-D array of the tensor's own format."""
        if self.along == "column":
            return self._array
        if self._index is not None:
            at = np.unravel_index(np.arange(start, stop), self._index)
            return self._array[at].reshape(stop - start, self._cols)
        return self._array[start:stop].reshape(stop - start, self._cols)


def _joins(array: Array, axes: int) -> bool:
    # Whether the first `axes` axes can be one axis of a view.
    dims = [(n, s) for n, s in zip(array.shape[:axes], array.strides[:axes], strict=True) if n != 1]
    return axes > 0 and (array.size == 0 or all(s == n2 * s2 for (_, s), (n2, s2) in zip(dims, dims[1:], strict=False)))


@dataclass(slots=True)
class Expected:
    """Expected values of one output over a block. bound: float64, infinite where nothing can be decided; beyond: out of domain."""

    value: Value
    bound: Array
    magnitude: Array
    beyond: Array | None
    tainted: Array | None  # rows that NaN or infinite inputs reach, (rows, 1) or (1, 1)

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
    finite: bool = field(default=True)

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

    def blocks(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Row ranges of about `BLOCK_ELEMENTS` elements; one empty range when there are no rows."""
        step = max(1, BLOCK_ELEMENTS // max(self.fold.cols, 1))
        if start == stop:
            yield start, stop
        for at in range(start, stop, step):
            yield at, min(at + step, stop)

    def evaluate(self, arithmetic: Arithmetic, start: int, stop: int, names: Collection[str]) -> dict[str, Expected]:
        """Expected values of the outputs `names` over rows start..stop.

        Outputs along `column` are this block's part of the sum, not yet rounded to their format: add parts with `joined`
        and call `finished`.
        """
        with np.errstate(all="ignore"):
            t = {n: given(rows.block(start, stop), dtype, arithmetic) for n, (rows, dtype) in self.inputs.items()}
            tainted, outside = self._tainted(t), self._outside(t)
            text = self.operator.forward if self.pass_ == "forward" else self.operator.backward
            found = text(t, self.case)
            out = {}
            for name in names:
                b, column = found[name], self.outputs[name].along == "column"
                beyond = b.beyond
                if outside is not None:
                    mask = outside.any(keepdims=True) if column else outside
                    beyond = mask if beyond is None else beyond | mask
                reached = tainted.any(keepdims=True) if column and tainted is not None else tainted
                bound = np.zeros(b.shape) if b.error is None else b.error
                expected = Expected(b.value, bound, b.magnitude, beyond, reached)
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
            bound = expected.bound * (1.0 + SECOND_ORDER + arithmetic.wide.slack)
            if form.precision < dtypes.get(rules.work).precision:
                bound += 0.5 * dtypes.ulp(expected.magnitude + bound, form.name)
            bound += form.normal if rules.flush else form.smallest
            np.copyto(bound, np.inf, where=np.isnan(bound))
        return Expected(expected.value, bound, expected.magnitude, expected.beyond, expected.tainted)


def joined(parts: list[Expected], arithmetic: Arithmetic) -> Expected:
    """The sum of parts of a `column` output, added as a binary tree."""
    while len(parts) > 1:
        pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
        parts = [_sum(p[0], p[1], arithmetic) if len(p) == 2 else p[0] for p in pairs]
    return parts[0]


def _sum(a: Expected, b: Expected, arithmetic: Arithmetic) -> Expected:
    value = a.value + b.value
    return Expected(
        value,
        a.bound + b.bound,
        arithmetic.wide.magnitude(value),
        _either(a.beyond, b.beyond),
        _either(a.tainted, b.tainted),
    )


def _either(a: Array | None, b: Array | None) -> Array | None:
    if a is None or b is None:
        return b if a is None else a
    return a | b


class Parts:
    """Adds up parts of `column` outputs as they come, in a binary tree, keeping log2 of them."""

    def __init__(self, arithmetic: Arithmetic):
        self._arithmetic = arithmetic
        self._held: list[tuple[int, Expected]] = []

    def add(self, part: Expected) -> None:
        size = 1
        with np.errstate(all="ignore"):
            while self._held and self._held[-1][0] == size:
                part = _sum(self._held.pop()[1], part, self._arithmetic)
                size *= 2
        self._held.append((size, part))

    def total(self) -> Expected:
        with np.errstate(all="ignore"):
            return joined([p for _, p in reversed(self._held)], self._arithmetic)
