"""What a planted bug is and the list of all of them. The bugs themselves are in the other modules of this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lnbench.backend import FunctionBackend
from lnbench.selftest import kernel
from lnbench.selftest.kernel import Function, LayerNorm, edited

FAMILIES = {
    "A": "variance that cancels",
    "B": "overflow, underflow, accumulator too narrow",
    "C": "epsilon and the definition of variance",
    "D": "constant rows, one-element rows",
    "E": "tail of the row, padding, block count",
    "F": "merging partial results, mixing rows",
    "G": "rows, grids, threads, empty input",
    "H": "strides, offsets, alignment, dispatch",
    "I": "bounds, index width, inputs changed, aliasing",
    "J": "races, repeatability, state",
    "K": "gradient formulas, saved statistics, shapes",
    "L": "optional parameters, mixed types, where the cast is",
}

Around = Callable[[Function], Function]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted bug in an otherwise correct kernel.

    family: a letter of FAMILIES. like: a public report of the same mistake, or "".
    passes: the passes it is wrong in. spec: how the command line names it.
    forward, backward: plug-in functions, or None for a bug that lives in C.
    dies: it may raise, crash or hang (otherwise only a wrong result counts as found).
    """

    name: str
    family: str
    sentence: str
    like: str
    passes: tuple[str, ...]
    op: str = "layer_norm"
    facts: Mapping[str, str] = field(default_factory=dict)
    forward: Function | None = None
    backward: Function | None = None
    dies: bool = False

    @property
    def spec(self) -> str:
        return f"lnbench.selftest.mutants:{self.name}"

    def backend(self) -> FunctionBackend:
        return kernel.backend(self.name, self.forward, self.backward, op=self.op, facts=self.facts)


MUTANTS: dict[str, Mutant] = {}


def add(mutant: Mutant) -> None:
    """Puts a mutant on the list; names are unique."""
    if mutant.name in MUTANTS:
        raise ValueError(f"two mutants are called {mutant.name!r}")
    MUTANTS[mutant.name] = mutant


def plant(
    name: str,
    family: str,
    sentence: str,
    *,
    like: str = "",
    facts: Mapping[str, str] | None = None,
    forward: Around | None = None,
    backward: Around | None = None,
    dies: bool = False,
    passes: str = "",
    **steps: Any,
) -> None:
    """Plants a bug in the correct layer_norm: replaced `steps`, or a function around its forward or backward.

    passes: "forward", "backward" or "both"; by default what the steps and functions touch.
    """
    norm = LayerNorm(edited(**steps), dict(facts or {}))
    touched = passes or _touched(steps, forward, backward)
    add(
        Mutant(
            name,
            family,
            sentence,
            like,
            ("forward", "backward") if touched == "both" else (touched,),
            facts=norm.facts,
            forward=norm.forward if forward is None else forward(norm.forward),
            backward=norm.backward if backward is None else backward(norm.backward),
            dies=dies,
        )
    )


_BACKWARD = {"dx", "dgamma", "dbeta", "columns", "rstd_of"}
_BOTH = {"resolve", "read", "total", "store"}


def _touched(steps: Mapping[str, Any], forward: Around | None, backward: Around | None) -> str:
    ahead = forward is not None or bool(set(steps) - _BACKWARD)
    behind = backward is not None or bool(set(steps) & (_BACKWARD | _BOTH))
    return "both" if ahead and behind else "backward" if behind else "forward"


def names() -> tuple[str, ...]:
    """Names of all mutants."""
    return tuple(MUTANTS)
