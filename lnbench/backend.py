"""What the author of a backend sees: `Backend`, `Call`, `Tensors`, `FunctionBackend`, and the facts a backend declares.

Leaves finding a backend by name to `lnbench.registry` and running it to `lnbench.worker`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from lnbench.case import Case
from lnbench.errors import UsageError, nearest

if TYPE_CHECKING:
    from lnbench.library import LibraryBackend as LibraryBackend

# The vocabulary of `describe()`; the first value is what an absent key means.
FACTS: dict[str, tuple[str, ...]] = {
    "statistics": ("rstd", "std", "var", "none"),
    "statistics_dtype": ("float32", "storage"),
    "accumulate": ("float32", "float64", "storage"),
    "cast": ("late", "early"),
    "inplace": ("no", "y=x", "dx=dy", "both"),
    "deterministic": ("no", "yes"),
    "batch_invariant": ("no", "yes"),
    "subnormals": ("keep", "flush"),
    "domain": ("full",),  # or a number: the largest magnitude that is promised to work
    "alignment": ("element", "16", "64"),
    "threads": ("call", "process", "ignored"),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a backend declares about itself and is then held to. Fields bear the names of `FACTS`."""

    statistics: str = "rstd"
    statistics_dtype: str = "float32"
    accumulate: str = "float32"
    cast: str = "late"
    inplace: str = "no"
    deterministic: str = "no"
    batch_invariant: str = "no"
    subnormals: str = "keep"
    domain: str = "full"
    alignment: str = "element"
    threads: str = "call"

    @classmethod
    def of(cls, described: Mapping[str, str]) -> Facts:
        """The facts among `described`. Raises UsageError for a value outside the vocabulary."""
        found = {}
        for key, allowed in FACTS.items():
            if key not in described:
                continue
            value = str(described[key])
            if value not in allowed and not (key == "domain" and _is_positive(value)):
                extra = " or a positive number" if key == "domain" else ""
                raise UsageError(
                    f"fact {key}={value!r} is not one of {', '.join(allowed)}{extra}; correct the backend's describe()"
                )
            found[key] = value
        return cls(**found)

    @property
    def alignment_bytes(self) -> int:
        """Bytes that base pointers must be a multiple of; 1 means the element's own size is enough."""
        return 1 if self.alignment == "element" else int(self.alignment)

    def allows_alias(self, alias: str) -> bool:
        """Whether `y=x` or `dx=dy` is declared to work."""
        return self.inplace in (alias, "both")


def _is_positive(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Tensors:
    """The arrays of one call.

    inputs: read-only arrays in the case's layout, by name ("x", "gamma", "dy", "mean", "rstd" or the declared kind, ...).
    out: preallocated, NaN-filled arrays in the case's output layout, by name. A backend may fill them or return its own.
    """

    inputs: Mapping[str, np.ndarray]
    out: Mapping[str, np.ndarray]


@runtime_checkable
class Call(Protocol):
    """One case and pass prepared on one backend; the timed object is the verified object."""

    def run(self) -> None:
        """The work, once; the only timed part."""

    def outputs(self) -> Mapping[str, np.ndarray]:
        """Results as NumPy arrays; not timed."""
        ...

    # def load(self) -> None: optional; fetches the inputs' present content; not timed.


@runtime_checkable
class Backend(Protocol):
    """An implementation of operators. One object serves all cases of a worker."""

    name: str

    def describe(self) -> Mapping[str, str]:
        """Version, device, target and the facts (`FACTS`)."""
        ...

    def supports(self, case: Case) -> str | None:
        """None when the case can be run; otherwise the reason, a sentence."""
        ...

    def prepare(self, case: Case, pass_: str, tensors: Tensors, threads: int) -> Call:
        """Everything that need not be timed: conversion, allocation, compilation."""
        ...

    # def close(self) -> None: optional.


def is_backend(value: object) -> bool:
    """Whether `value` is an object of the `Backend` protocol (not a class)."""
    return not inspect.isclass(value) and isinstance(value, Backend) and isinstance(value.name, str)


@dataclass(slots=True)
class _Function:
    call: Callable[..., Mapping[str, Any] | None]
    extras: tuple[str, ...]


@dataclass(slots=True)
class FunctionBackend:
    """A backend made of plain functions.

    A forward function takes the operator's forward inputs by position and `axis`, `epsilon` and the operator's
    attributes by keyword (`lnbench show OPERATOR` prints the signature); absent gamma and beta are None. It returns a
    mapping of output names to arrays. A function that also names the keyword `out`, `threads` or `case` gets the
    preallocated arrays (which it may fill instead of returning), the thread count, the case.

    dtypes: those that work; all four when left out. facts: entries of `FACTS`.
    """

    name: str
    dtypes: list[str] | tuple[str, ...] = ("float32", "float64", "float16", "bfloat16")
    facts: Mapping[str, str] = field(default_factory=dict)
    functions: dict[tuple[str, str], _Function] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for key in self.facts:
            if key not in FACTS:
                raise UsageError(f"unknown fact {key!r}{nearest(key, list(FACTS))}; allowed: {', '.join(FACTS)}")
        Facts.of(self.facts)

    def forward(self, operator: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorator: registers the forward function of `operator`."""
        return self._register(operator, "forward")

    def backward(self, operator: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorator: registers the backward function of `operator`."""
        return self._register(operator, "backward")

    def _register(self, operator: str, pass_: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        from lnbench.operators import registry

        registry.get(operator)

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            self.functions[operator, pass_] = _Function(function, _extras(function))
            return function

        return decorate

    def describe(self) -> Mapping[str, str]:
        return dict(self.facts)

    def supports(self, case: Case) -> str | None:
        if (case.op, "forward") not in self.functions and (case.op, "backward") not in self.functions:
            return f"{self.name} has no function for {case.op}"
        for dtype in (case.dtype, case.affine_dtype):
            if dtype not in self.dtypes:
                return f"{self.name} does not support {dtype}"
        for pass_ in case.pass_names:
            if (case.op, pass_) in self.functions:
                return None
        return f"{self.name} has no {case.passes} function for {case.op}"

    def prepare(self, case: Case, pass_: str, tensors: Tensors, threads: int) -> Call:
        from lnbench.errors import Unsupported
        from lnbench.operators import registry

        function = self.functions.get((case.op, pass_))
        if function is None:
            raise Unsupported(f"{self.name} has no {pass_} function for {case.op}")
        operator = registry.get(case.op)
        names = operator.forward_inputs if pass_ == "forward" else operator.backward_inputs
        kind = Facts.of(self.facts).statistics
        arguments = [tensors.inputs.get(kind if n == "stat" else n) for n in names]
        keywords = operator.arguments(case)
        given = {"out": dict(tensors.out), "threads": threads, "case": case}
        keywords |= {name: given[name] for name in function.extras}
        return _FunctionCall(function.call, arguments, keywords, tensors.out if "out" in function.extras else {})


def _extras(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(n for n in ("out", "threads", "case") if n in inspect.signature(function).parameters)


class _FunctionCall:
    def __init__(
        self, function: Callable[..., Any], arguments: list[Any], keywords: dict[str, Any], out: Mapping[str, Any]
    ):
        self._function, self._arguments, self._keywords, self._out = function, arguments, keywords, out
        self._returned: Mapping[str, Any] | None = None

    def run(self) -> None:
        self._returned = self._function(*self._arguments, **self._keywords)

    def outputs(self) -> Mapping[str, np.ndarray]:
        if self._returned is None:
            return dict(self._out)
        if not isinstance(self._returned, Mapping):
            raise TypeError(
                f"the function returned {type(self._returned).__name__}; return a mapping such as {{'y': y}}, or fill `out`"
            )
        named = {k: v for k, v in self._returned.items() if v is not None}
        return {**self._out, **{k: np.asarray(v) for k, v in named.items()}}


def __getattr__(name: str) -> Any:
    # LibraryBackend lives in its own file; loaded on demand because only workers need ctypes.
    if name == "LibraryBackend":
        from lnbench.library import LibraryBackend

        return LibraryBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
