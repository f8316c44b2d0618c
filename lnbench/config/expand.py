"""A document -> its cases: `defaults` filled in, `sweep` multiplied out, the command line's values on top.

Precedence: command line, sweep and case, `defaults`, the operator's defaults.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from lnbench.case import Case
from lnbench.config.meaning import Origin, build
from lnbench.config.model import KEYS, number
from lnbench.config.reader import Located, describe, located
from lnbench.errors import nearest
from lnbench.operators import registry

VERSION = 1
MAX_CASES = 20_000
_DOCUMENT = ("version", "defaults", "cases")
NOT_SWEPT = ("name", "source", "sweep")

Keys = Mapping[str, Located]


def expand(document: Located, origin: Origin, overrides: Mapping[str, Any]) -> list[Case]:
    """All cases of a file. Raises ConfigError."""
    keys: dict[str, Located] = document.value
    for key, value in keys.items():
        if key not in _DOCUMENT:
            hint = " (put the case under 'cases')" if key in KEYS else nearest(key, list(_DOCUMENT))
            origin.fail(f"is unknown{hint}; allowed: {', '.join(_DOCUMENT)}", value.line, key)
    _check_version(keys, document.line, origin)
    defaults = _mapping(keys.get("defaults", Located({})), "defaults", origin)
    for key in ("sweep", "name"):
        if key in defaults:
            origin.fail("belongs to a case, not to defaults; move it there", defaults[key].line, key)
    if "cases" not in keys:
        origin.fail("is missing; list the cases under it", document.line, "cases")
    listed = keys["cases"]
    if not isinstance(listed.value, list) or not listed.value:
        origin.fail(f"is {describe(listed.value)}; allowed: a list with at least one case", listed.line, "cases")
    out: list[Case] = []
    for item in listed.value:
        case = _mapping(item, "cases", origin)
        out += multiply(case, item.line, origin, defaults, overrides, room=MAX_CASES - len(out))
    return out


def _check_version(keys: Keys, line: int, origin: Origin) -> None:
    if "version" not in keys:
        origin.fail(f"is missing; start the file with 'version: {VERSION}'", line, "version")
    version = keys["version"].value
    if type(version) is not int or version != VERSION:
        origin.fail(f"is {describe(version)}; this lnbench reads version {VERSION}", keys["version"].line, "version")


def _mapping(item: Located, key: str, origin: Origin) -> dict[str, Located]:
    if item.value is None:
        return {}
    if not isinstance(item.value, dict):
        origin.fail(f"holds {describe(item.value)}; allowed: a mapping such as {{shape: [8, 768]}}", item.line, key)
    return dict(item.value)


def multiply(
    case: Keys, line: int, origin: Origin, defaults: Keys, overrides: Mapping[str, Any], room: int = MAX_CASES
) -> list[Case]:
    """The cases of one entry: one, or as many as its sweep makes. Raises ConfigError."""
    own = dict(case)
    over = {key: located(value) for key, value in overrides.items()}
    sweep = _sweep(own.pop("sweep", Located({})), own, origin)
    # An overridden key is no longer swept.
    sweep = {key: values for key, values in sweep.items() if key not in over}
    if math.prod(map(len, sweep.values())) > room:
        origin.fail(f"makes more than {MAX_CASES} cases in one file; use several files", line, "sweep")
    out = []
    for values in itertools.product(*sweep.values()):
        swept = dict(zip(sweep, values, strict=True))
        merged = {**own, **swept}
        _add_shared(merged, defaults, over, origin)
        if swept and isinstance(own.get("name", Located(None)).value, str):
            words = "-".join(_word(key, value.plain()) for key, value in swept.items())
            merged["name"] = Located(f"{own['name'].value}-{words}", own["name"].line)
        out.append(build(merged, line, origin))
    return out


def _sweep(given: Located, own: Keys, origin: Origin) -> dict[str, list[Located]]:
    out = {}
    for key, values in _mapping(given, "sweep", origin).items():
        if key in NOT_SWEPT:
            origin.fail("cannot be swept; give it to the case", values.line, key)
        if key in own:
            origin.fail("is given twice, in the case and in its sweep; keep one of them", values.line, key)
        if not isinstance(values.value, list) or not values.value:
            origin.fail(f"is swept over {describe(values.value)}; allowed: a list of values", values.line, key)
        out[key] = values.value
    return out


def _add_shared(merged: dict[str, Located], defaults: Keys, over: Keys, origin: Origin) -> None:
    """Adds defaults below and overrides above. Attributes of other operators among them do not concern this case."""
    op = over.get("op", merged.get("op", defaults.get("op", Located("layer_norm")))).value
    own = {a.name for a in registry.get(op).attributes} if op in registry.names() else set()
    every = {a.name for name in registry.names() for a in registry.get(name).attributes}
    foreign = every - own - set(KEYS)
    for key, value in defaults.items():
        if key not in foreign:
            merged.setdefault(key, value)
    for key, value in over.items():
        if key not in foreign:
            merged[key] = value


def _word(key: str, value: Any) -> str:
    """What a swept value adds to the case's name."""
    if isinstance(value, bool):
        return key if value else f"no_{key}"
    if isinstance(value, dict):
        return "+".join(f"{k}={v}" for k, v in value.items())
    if key == "shape" and isinstance(value, list):
        return "x".join(map(str, value))
    if isinstance(value, list):
        key, value = ("axes" if key == "axis" else key), ",".join(map(str, value))
    if key in ("dtype", "law", "passes") and isinstance(value, str):
        return value
    value = number(value)
    return f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
