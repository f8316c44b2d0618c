"""Finds laws by name."""

from __future__ import annotations

from lnbench.errors import UsageError, nearest
from lnbench.laws import data  # noqa: F401 - importing it registers its laws, before the others
from lnbench.laws.parameters import DEFAULTS as DEFAULTS
from lnbench.laws.schema import LAWS, Law


def names() -> tuple[str, ...]:
    """Names of all laws, in the order of the documentation."""
    return tuple(LAWS)


def get(name: str) -> Law:
    """The law called `name`. Raises UsageError with the nearest name."""
    if name not in LAWS:
        raise UsageError(f"unknown law {name!r}{nearest(name, list(LAWS))}; allowed: {', '.join(LAWS)}")
    return LAWS[name]
