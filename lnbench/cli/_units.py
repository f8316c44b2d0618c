"""Values with units on the command line: durations (60s, 2m, 500ms) and shares (2%, 0.02); callbacks of options."""

from __future__ import annotations

import re
from typing import Any

import click

_UNITS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def duration(ctx: click.Context, param: click.Parameter, given: Any) -> float | None:
    """Seconds, from a number with an optional unit."""
    if given is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([a-z]*)\s*", str(given))
    if not found or found[2] not in _UNITS or float(found[1]) <= 0:
        raise click.BadParameter(f"{given!r} is not a duration; write for example 60s, 2m or 500ms", ctx, param)
    return float(found[1]) * _UNITS[found[2]]


def share(ctx: click.Context, param: click.Parameter, given: Any) -> float:
    """A share from 0 to 1, from a number or a percentage."""
    text = str(given).strip()
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise click.BadParameter(f"{given!r} is not a share; write for example 2% or 0.02", ctx, param)
    return value
