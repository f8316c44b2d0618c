"""Kernels with one planted bug each; `lnbench.selftest.mutants:NAME` is a plug-in like any user's.

One module per group of families of bugs; this one puts them on one list.
"""

from __future__ import annotations

from typing import Any

from lnbench.selftest.mutants import (
    channels,
    contracts,
    degenerate,
    gradient,
    layouts,
    memory,
    merging,
    precision,
    relatives,
    rows,
    state,
    tails,
    variance,
)
from lnbench.selftest.mutants._plant import FAMILIES, MUTANTS, Mutant, names

__all__ = [
    "FAMILIES",
    "MUTANTS",
    "Mutant",
    "channels",
    "contracts",
    "degenerate",
    "gradient",
    "layouts",
    "memory",
    "merging",
    "names",
    "precision",
    "relatives",
    "rows",
    "state",
    "tails",
    "variance",
]


def __getattr__(name: str) -> Any:
    if name in MUTANTS:
        return MUTANTS[name].backend()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
