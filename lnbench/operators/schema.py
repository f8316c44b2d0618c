"""What an operator is: its tensors, attributes, formulas and cost. One subclass per file beside this one.

The core asks an `Operator` for everything it needs; it names none. References are written over
`lnbench.numerics.bounded.Bounded`, one text for the expected value and its rounding bound.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, wraps
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lnbench.case import ITEM_BYTES, Case
from lnbench.errors import UsageError

if TYPE_CHECKING:
    from lnbench.numerics.bounded import Bounded

STATISTIC_KINDS = ("rstd", "std", "var")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of one case, fully resolved.

    along: how it lies beside the folded (rows, cols) problem: `element` (rows, cols), `row` (rows, 1),
        `column` (1, cols). A `column` output is a sum over rows.
    role: `data` (x, y, dy, dx), `affine` (gamma, beta and their gradients), `statistic` (mean, rstd, ...),
        `state` (running values).
    layout: the name of the case's field that says how it lies in memory.
    required: an output that a backend must return; statistics are optional.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    along: str
    role: str
    layout: str = "contiguous"
    required: bool = True


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of one operator, beside `axis` and `epsilon` which every case has."""

    name: str
    type: type
    default: Any
    doc: str
    check: Callable[[Any], bool] = lambda value: True
    allowed: str = ""


@dataclass(frozen=True, slots=True)
class Cost:
    """Minimal traffic in bytes and work in floating-point operations of one call."""

    bytes: int
    flops: int


@dataclass(frozen=True, slots=True)
class Fold:
    """How a tensor of `shape` becomes (rows, cols): `reduced` axes are the columns, sorted; the others the rows."""

    shape: tuple[int, ...]
    reduced: tuple[int, ...]

    @property
    def kept(self) -> tuple[int, ...]:
        return tuple(a for a in range(len(self.shape)) if a not in self.reduced)

    @property
    def rows(self) -> int:
        return math.prod(self.shape[a] for a in self.kept)

    @property
    def cols(self) -> int:
        return math.prod(self.shape[a] for a in self.reduced)

    @property
    def reduced_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[a] for a in self.reduced)

    @property
    def statistic_shape(self) -> tuple[int, ...]:
        """Rank kept, reduced dims 1."""
        return tuple(1 if a in self.reduced else n for a, n in enumerate(self.shape))

    def to_rows(self, array: np.ndarray, along: str = "element") -> np.ndarray:
        """`array` as 2-D: (rows, cols), (rows, 1) or (1, cols). A view where NumPy can make one."""
        if along == "row":
            return array.reshape(self.rows, 1)
        if along == "column":
            return array.reshape(1, self.cols)
        return array.transpose(self.kept + self.reduced).reshape(self.rows, self.cols)

    def from_rows(self, array: np.ndarray) -> np.ndarray:
        """The inverse of `to_rows` for an `element` array of shape (rows, cols)."""
        order = self.kept + self.reduced
        folded = array.reshape(tuple(self.shape[a] for a in order))
        return folded.transpose(np.argsort(order)) if order else folded

    def index(self, row: int, col: int, along: str = "element") -> tuple[int, ...]:
        """The index, in the tensor's own shape, of element (row, col) of its folded form."""
        if along == "column":
            return tuple(int(i) for i in np.unravel_index(col, self.reduced_shape))
        kept_shape = tuple(self.shape[a] for a in self.kept)
        at = dict(zip(self.kept, np.unravel_index(row, kept_shape) if kept_shape else (), strict=True))
        if along == "row":
            return tuple(int(at.get(a, 0)) for a in range(len(self.shape)))
        at |= dict(zip(self.reduced, np.unravel_index(col, self.reduced_shape) if self.reduced else (), strict=True))
        return tuple(int(at[a]) for a in range(len(self.shape)))


def resolve_axes(shape: tuple[int, ...], axis: int | tuple[int, ...]) -> tuple[int, ...]:
    """Sorted non-negative axes; an int means "from it to the end". Raises UsageError when out of range or repeated."""
    rank = len(shape)
    given = tuple(axis) if isinstance(axis, tuple) else (axis,)
    for a in given:
        if not -rank <= a < rank:
            raise UsageError(f"axis {a} is out of range for a tensor of rank {rank}; allowed: {-rank} to {rank - 1}")
    axes = sorted(a % rank for a in given)
    if len(set(axes)) != len(axes):
        raise UsageError(f"axis {list(given)} names an axis twice; give each axis once")
    if isinstance(axis, tuple):
        if not axes:
            raise UsageError("axis is an empty list; give at least one axis")
        return tuple(axes)
    return tuple(range(axes[0], rank))


def _read_only(tensors: Callable[..., Mapping[str, Tensor]]) -> Callable[..., Mapping[str, Tensor]]:
    def wrapped(*arguments: Any, **keywords: Any) -> Mapping[str, Tensor]:
        return MappingProxyType(dict(tensors(*arguments, **keywords)))

    return wraps(tensors)(wrapped)


class Operator(ABC):
    """A mathematical function with a schema. Subclasses are stateless; one instance serves all cases."""

    name: ClassVar[str]
    title: ClassVar[str]
    formula: ClassVar[str]
    gradient: ClassVar[str]
    source: ClassVar[str]
    attributes: ClassVar[tuple[Attribute, ...]] = ()
    # Values of `axis` and `epsilon` (and only these) where this operator's differ from the case's.
    defaults: ClassVar[Mapping[str, Any]] = {}
    # Laws that inputs are drawn from when the case names none and the common default does not fit: tensor -> law.
    default_laws: ClassVar[Mapping[str, str]] = {}
    # Statistics that forward may return and backward may be given; "stat" stands for the kind the backend declares.
    statistics: ClassVar[tuple[str, ...]] = ("mean", "stat")
    # Positional parameters of the plug-in functions, in order ("stat" as above).
    forward_inputs: ClassVar[tuple[str, ...]]
    backward_inputs: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls, **keywords: Any) -> None:
        # Asked for many times for the same few cases: each subclass remembers its answers, read-only.
        super().__init_subclass__(**keywords)
        cls.fold = lru_cache(maxsize=512)(cls.fold)  # type: ignore[method-assign]
        cls.tensors = lru_cache(maxsize=512)(_read_only(cls.tensors))  # type: ignore[method-assign]

    @abstractmethod
    def fold(self, case: Case) -> Fold:
        """How x becomes (rows, cols). Raises UsageError for a bad axis."""

    @abstractmethod
    def tensors(self, case: Case, kind: str = "rstd", stat_dtype: str | None = None) -> Mapping[str, Tensor]:
        """Every tensor that takes part in the case, by name; absent ones (no gamma, say) are left out.

        kind: what the backend's statistic is; `none` leaves mean and the statistic out.
        stat_dtype: dtype of the statistics, by default `statistic_dtype(case.dtype)`.
        """

    @abstractmethod
    def outputs(self, case: Case, pass_: str) -> tuple[str, ...]:
        """Names of the outputs of one pass, in order; "stat" stands for the statistic of the declared kind."""

    @abstractmethod
    def forward(self, t: Mapping[str, Bounded], case: Case) -> dict[str, Bounded]:
        """Expected outputs from folded inputs. The text of the mathematics, written once."""

    @abstractmethod
    def backward(self, t: Mapping[str, Bounded], case: Case) -> dict[str, Bounded]:
        """Expected gradients from folded inputs, for the cotangent dy (and only it)."""

    @abstractmethod
    def cost(self, case: Case, pass_: str) -> Cost:
        """Minimal traffic and work of one call."""

    def check(self, case: Case) -> None:
        """Raises UsageError when the case is not of this operator's form."""
        self.fold(case)

    def exact_rows(self, inputs: Mapping[str, np.ndarray], case: Case) -> np.ndarray | None:
        """Which folded rows must give y = beta to the last bit in every sound program: bool (rows,), or None for none.

        inputs: by name, logical shape.
        """
        return None

    def arguments(self, case: Case) -> dict[str, Any]:
        """Keyword arguments of the plug-in functions: axis, epsilon and the operator's own attributes, resolved."""
        own = {a.name: getattr(case, a.name, a.default) for a in self.attributes}
        return {"axis": case.axis, "epsilon": case.epsilon, **own}

    def signature(self, pass_: str, kind: str = "rstd") -> str:
        """The Python signature of the plug-in function for one pass."""
        inputs = self.forward_inputs if pass_ == "forward" else self.backward_inputs
        names = ", ".join(kind if n == "stat" else n for n in inputs)
        words = ", ".join(["axis", "epsilon", *(a.name for a in self.attributes)])
        suffix = "" if pass_ == "forward" else "_grad"
        return f"{self.name}{suffix}({names}, *, {words})"


def statistic_dtype(dtype: str) -> str:
    """Statistics are float64 for float64 and float32 for all else, unless a backend declares `storage`."""
    return "float64" if dtype == "float64" else "float32"


def traffic(case: Case, *, elements: int, affine: int, statistics: int) -> int:
    """Bytes of so many transfers of x-like, gamma-like and statistic-like elements."""
    return (
        elements * ITEM_BYTES[case.dtype]
        + affine * ITEM_BYTES[case.affine_dtype]
        + statistics * ITEM_BYTES[statistic_dtype(case.dtype)]
    )
