"""The space of random cases: every choice in one place, simple choices first, so that shrinking ends at simple cases.

Owns which cases are worth trying. Knows no source of randomness: a `Chooser` makes the choices.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol, TypeVar

from lnbench import laws, layouts
from lnbench.case import DTYPES, Case, freeze
from lnbench.operators import registry

T = TypeVar("T")

# Row lengths around vector widths, powers of two and block sizes, and around lengths of public reports.
COLS = (
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    9,
    15,
    16,
    17,
    31,
    32,
    33,
    63,
    65,
    100,
    127,
    128,
    129,
    255,
    257,
    300,
    513,
    769,
    1025,
    1536,
    2049,
)
ROWS = (1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33, 45, 49, 64, 65, 257, 1027)
EPSILONS = (1e-5, 1e-12, 1e-8, 1e-6, 1e-3, 1e-2, 0.1, 0.5)
THREADS = (1, 2, 3, 4, 5, 8)
# Of rank 3: several axes to the end, and lists that are not the last axes.
AXES: tuple[int | tuple[int, ...], ...] = (1, -2, (1, 2), 0)
AXIS_LISTS = ((0,), (1,), (0, 2), (0, 1))
MAX_ELEMENTS = 4096
SPARSE_ROWS = 4
# In four cases of five everything but laws and shape is ordinary: unusual things are tried one or two at a time.
ORDINARY = 4


class Chooser(Protocol):
    """Where choices come from."""

    def one_of(self, options: Sequence[T]) -> T:
        """One of `options`; the first is the simplest."""
        ...

    def between(self, low: int, high: int) -> int:
        """An integer, ends included; `low` is the simplest."""
        ...


class RandomChooser:
    """Choices from a seeded generator of the standard library."""

    def __init__(self, seed: int | str):
        self._random = random.Random(seed)

    def one_of(self, options: Sequence[T]) -> T:
        return self._random.choice(options)

    def between(self, low: int, high: int) -> int:
        return self._random.randint(low, high)


@cache
def laws_for(kind: str) -> tuple[str, ...]:
    """Names of the laws that suit a kind of tensor, `normal` first."""
    found = [name for name in laws.names() if kind in laws.get(name).tensors]
    return tuple(sorted(found, key=lambda name: name != "normal"))


@cache
def layouts_for(role: str) -> tuple[str, ...]:
    """Names of the layouts that suit a role, `contiguous` first."""
    return tuple(name for name in layouts.names() if role in layouts.get(name).suits)


def draw_case(choose: Chooser, ops: Sequence[str] = ("layer_norm",), max_elements: int = MAX_ELEMENTS) -> Case:
    """One valid case of one of `ops` with at most `max_elements` elements."""
    op = choose.one_of(ops)
    shape, axis = _problem(choose, op, max_elements)
    dtype = choose.one_of(DTYPES)
    case = Case(
        op=op,
        shape=shape,
        axis=axis,
        dtype=dtype,
        affine_dtype=choose.one_of((dtype, "float32")) if dtype in ("float16", "bfloat16") else dtype,
        epsilon=choose.one_of(EPSILONS),
        gamma=choose.one_of((True, True, True, False)),
        beta=registry.get(op).defaults.get("beta", choose.one_of((True, True, True, False))),
        attributes=freeze(_attributes(choose, op)),
        seed=choose.between(0, 2**20),
    )
    case = case.replace(law=_laws(choose, case), **_placing(choose, case))
    return case.replace(threads=choose.one_of(THREADS)) if _unusual(choose) else case


def _unusual(choose: Chooser) -> bool:
    return choose.between(0, ORDINARY) == ORDINARY


def _problem(choose: Chooser, op: str, room: int) -> tuple[tuple[int, ...], int | tuple[int, ...]]:
    """A shape and the axes that are normalized."""
    if op == "batch_norm":
        side = max(1, min(9, int(room ** (1 / 3))))
        channels, *rest = (choose.between(1, side) for _ in range(choose.between(2, 3)))
        batch = choose.between(1, max(1, min(32, room // math.prod((channels, *rest)))))
        return (batch, channels, *rest), 1
    cols = choose.one_of([n for n in COLS if n <= room])
    rows = choose.one_of([m for m in ROWS if m * cols <= room])
    form = choose.one_of(("rows", "rows", "rows", "rank 1", "rank 3", "two axes", "axis list", "empty"))
    if form == "rank 1":
        return (cols,), -1
    if form == "empty":
        return choose.one_of((((0, cols), -1), ((rows, 0), -1)))
    if form == "rows":
        return (rows, cols), choose.one_of((-1, 1))
    side = min(7, int(room ** (1 / 3)))
    a, b, c = (choose.between(1, side) for _ in range(3))
    if form == "rank 3":
        return (a, b, min(cols, max(room // (a * b), 1))), -1
    if form == "two axes":
        return (a, b, c), choose.one_of(AXES)
    return (a, b, c), choose.one_of(AXIS_LISTS)


def _attributes(choose: Chooser, op: str) -> dict[str, Any]:
    """The operator's own attributes: defaults, except that flags are tried both ways."""
    own = registry.get(op).attributes
    return {a.name: choose.one_of((a.default, not a.default)) if a.type is bool else a.default for a in own}


def _laws(choose: Chooser, case: Case) -> str | dict[str, str]:
    """Laws for x and, now and then, for the other tensors."""
    x = choose.one_of(laws_for("x"))
    named = {"x": x}
    if _unusual(choose):
        named["dy"] = choose.one_of(laws_for("dy"))
    for parameter in ("gamma", "beta"):
        if parameter in laws.inputs_of(case) and _unusual(choose):
            named[parameter] = choose.one_of(laws_for("affine"))
    return x if len(named) == 1 else named


def _placing(choose: Chooser, case: Case) -> dict[str, Any]:
    """Layouts that the case can have."""
    if not _unusual(choose) or not case.elements:
        return {}
    fold = registry.get(case.op).fold(case)
    last = fold.reduced == (len(case.shape) - 1,)
    found = {}
    for key, role in (("layout", "x"), ("dy_layout", "dy"), ("gamma_layout", "gamma"), ("out_layout", "out")):
        names = layouts_for(role)
        if math.prod(case.shape[:-1]) > SPARSE_ROWS or not last:
            names = tuple(n for n in names if n != "sparse_rows")
        if not last:
            names = tuple(n for n in names if n != "broadcast")
        found[key] = choose.one_of(names)
    return found
