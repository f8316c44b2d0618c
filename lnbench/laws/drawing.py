"""Draws the inputs of a case, or reads them from its .npz file.

Owns which tensors are inputs, which law each gets, and the placing of drawn blocks in arrays of the
exact dtype. Leaves the numbers to the laws and the layout in memory to others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from lnbench.case import Case
from lnbench.errors import UsageError
from lnbench.laws.registry import DEFAULTS, get
from lnbench.laws.schema import Array, Block, Law
from lnbench.numerics import dtypes
from lnbench.operators import registry
from lnbench.operators.schema import Fold, Operator, Tensor

# Elements of one block. Every law holds a few copies of it; it decides the numbers, so it never depends on the machine.
BLOCK = 1 << 18


def inputs_of(case: Case) -> dict[str, Tensor]:
    """The tensors to be drawn, x first: inputs of the case's passes except statistics."""
    operator = registry.get(case.op)
    tensors = operator.tensors(case)
    names = operator.forward_inputs + (operator.backward_inputs if "backward" in case.pass_names else ())
    wanted = dict.fromkeys(n for n in names if n in tensors and tensors[n].role != "statistic")
    return {n: tensors[n] for n in wanted}


def kind_of(operator: Operator, tensor: Tensor) -> str:
    """What `tensor` is to a law, one of `schema.KINDS`."""
    if tensor.role in ("affine", "state"):
        return tensor.role
    return "x" if tensor.name in operator.forward_inputs else "dy"


def law_of(case: Case, tensor: Tensor) -> Law:
    """The law that draws `tensor`. Raises UsageError when there is no such law or it does not suit the tensor."""
    operator = registry.get(case.op)
    default = operator.default_laws.get(tensor.name) or DEFAULTS.get(tensor.name, "normal")
    law = get(case.law_of(tensor.name) or default)
    kind = kind_of(operator, tensor)
    if kind not in law.tensors:
        raise UsageError(
            f"law {law.name!r} does not suit {tensor.name}; it suits {', '.join(law.tensors)} (see `lnbench list laws`)"
        )
    return law


def is_unsystematic(case: Case, pass_: str = "backward") -> bool:
    """Whether rounding errors behave like random signs: every law behind the pass says so, and no file is read."""
    if case.inputs is not None:
        return False
    operator = registry.get(case.op)
    behind = [t for n, t in inputs_of(case).items() if pass_ == "backward" or n in operator.forward_inputs]
    return all(law_of(case, t).unsystematic for t in behind)


def draw(case: Case, *, variant: int = 0) -> dict[str, Array]:
    """All inputs of the case's passes except statistics: exact dtype, logical shape, C-contiguous.

    The numbers depend on the case's seed, the law, the tensor and `variant` only. A forward-only case has no dy. Where
    dy lies with stride 0 along the rows, all its rows are equal. Raises UsageError for an unfit law or file.
    """
    tensors = inputs_of(case)
    known = _read(case, tensors, variant) if case.inputs is not None else {}
    missing = {n: np.empty(t.shape, dtypes.numpy(t.dtype)) for n, t in tensors.items() if n not in known}
    draw_into(case, missing, known, variant=variant)
    return {n: known[n] if n in known else missing[n] for n in tensors}


def draw_into(case: Case, targets: Mapping[str, Array], known: Mapping[str, Array], *, variant: int = 0) -> None:
    """Draws only the inputs in `targets`, straight into these arrays: the same numbers as `draw`.

    targets: arrays of logical shape, any strides. known: inputs that are there already; the gradient is drawn from x.
    """
    operator = registry.get(case.op)
    fold = operator.fold(case)
    first, *_ = tensors = inputs_of(case)
    for name, tensor in tensors.items():
        if name not in targets:
            continue
        law = law_of(case, tensor)
        words = (case.seed, law.name, name, variant)
        if tensor.along == "element" and tensor.shape == fold.shape:
            x = None if name == first else fold.to_rows(targets[first] if first in targets else known[first])
            _draw_rows(case, tensor, law, words, fold, x, targets[name])
        else:
            _draw_vector(case, tensor, law, words, targets[name])


def _read(case: Case, tensors: dict[str, Tensor], variant: int) -> dict[str, Array]:
    from lnbench.laws.files import read

    assert case.inputs is not None
    return read(case.inputs, tensors, registry.get(case.op).tensors(case), variant)


def _draw_vector(case: Case, tensor: Tensor, law: Law, words: tuple[object, ...], out: Array) -> None:
    if out.size:
        block = Block(words, 0, 1, out.size, 1, tensor.dtype, case.epsilon)
        out[...] = law.function(block)[0].reshape(out.shape)


def _draw_rows(
    case: Case, tensor: Tensor, law: Law, words: tuple[object, ...], fold: Fold, x: Array | None, out: Array
) -> None:
    if not out.size:
        return
    rows = fold.to_rows(out)
    repeated = kind_of(registry.get(case.op), tensor) == "dy" and case.dy_layout == "broadcast"
    total = 1 if repeated else fold.rows
    height = max(1, BLOCK // fold.cols)

    def fill(start: int) -> None:
        stop = min(start + height, total)
        seen = None if x is None else x[start:stop]
        block = Block(words, start, stop - start, fold.cols, total, tensor.dtype, case.epsilon, seen)
        rows[start:stop] = law.function(block)

    _each(fill, range(0, total, height))
    if repeated:
        rows[1:] = rows[0]
    if not np.may_share_memory(rows, out):
        out[...] = fold.from_rows(rows)


def _each(function: Callable[[int], None], starts: range) -> None:
    if len(starts) < 4:
        for start in starts:
            function(start)
        return
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        list(pool.map(function, starts))
