"""Finds operators: every module of this package that defines one `OPERATOR` is registered by being there."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from lnbench.errors import UsageError, nearest
from lnbench.operators.schema import Operator

_NOT_OPERATORS = {"schema", "registry"}


@cache
def names() -> tuple[str, ...]:
    """Names of all operators, sorted. A module is named as its operator."""
    import lnbench.operators as package

    return tuple(
        sorted(
            m.name for m in pkgutil.iter_modules(package.__path__) if m.name not in _NOT_OPERATORS and m.name[0] != "_"
        )
    )


@cache
def get(name: str) -> Operator:
    """The operator called `name`. Raises UsageError with the nearest name."""
    if name not in names():
        raise UsageError(f"unknown operator {name!r}{nearest(name, list(names()))}; allowed: {', '.join(names())}")
    operator = importlib.import_module(f"lnbench.operators.{name}").OPERATOR
    assert isinstance(operator, Operator)
    return operator
