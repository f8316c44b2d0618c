"""From well-formed keys to a `Case` that makes sense: operator, attributes, axis, laws, layouts, files, memory.

Everything here is refused before anything is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from lnbench.case import ITEM_BYTES, Case
from lnbench.config.model import KEYS, Form, explain, number
from lnbench.config.reader import Located, describe
from lnbench.errors import ConfigError, UsageError, nearest
from lnbench.operators import registry
from lnbench.operators.schema import Attribute, Operator

STATISTIC_BYTES = 8


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the cases of one document come from.

    file: what errors call it, None for an inline case. folder: where relative paths start.
    available: bytes of free memory.
    """

    file: str | None
    folder: Path
    available: int

    def fail(self, message: str, line: int, key: str | None = None) -> NoReturn:
        """Raises ConfigError; a value from the command line (line 0) is not blamed on the file."""
        here = self.file is not None and line > 0
        raise ConfigError(message, file=self.file if here else None, line=line if here else None, key=key)


def build(given: Mapping[str, Located], line: int, origin: Origin) -> Case:
    """The case that `given` (all its keys, defaults merged in) describes. Raises ConfigError."""
    operator = _operator(given, origin)
    own = {a.name: a for a in operator.attributes}
    for key, value in given.items():
        if key not in KEYS and key not in own:
            _refuse_key(key, value.line, operator, origin)
    form = _form({k: v for k, v in given.items() if k in KEYS}, origin)
    if "shape" not in given:
        origin.fail("is missing; give every case a shape such as [8, 512, 768]", line, "shape")
    for key in ("gamma", "beta"):
        if key in given and getattr(form, key) and key not in operator.forward_inputs:
            origin.fail(f"is true, but {operator.name} has no {key}; remove it", given[key].line, key)
    attributes = {name: _attribute(own[name], given.get(name), origin) for name in own}
    values = {**operator.defaults, **form.model_dump(exclude_unset=True)}
    if values.get("inputs") is not None:
        values["inputs"] = _path(values["inputs"], given["inputs"], origin)
    axis = values.get("axis", -1)
    values["axis"] = tuple(axis) if isinstance(axis, list) else axis
    case = Case(**values, attributes=tuple(attributes.items()))
    _check(case, operator, given, line, origin)
    return case


def _operator(given: Mapping[str, Located], origin: Origin) -> Operator:
    if "op" not in given:
        return registry.get("layer_norm")
    name = given["op"].value
    if not isinstance(name, str):
        origin.fail(f"is {describe(name)}; allowed: {', '.join(registry.names())}", given["op"].line, "op")
    try:
        return registry.get(name)
    except UsageError as error:
        origin.fail(str(error), given["op"].line, "op")


def _refuse_key(key: str, line: int, operator: Operator, origin: Origin) -> NoReturn:
    allowed = [*KEYS, "sweep", *(a.name for a in operator.attributes)]
    owners = [n for n in registry.names() if any(a.name == key for a in registry.get(n).attributes)]
    if owners:
        origin.fail(f"belongs to {', '.join(owners)}, not to {operator.name}; remove it or change op", line, key)
    hint = nearest(key, allowed)
    origin.fail(f"is unknown{hint}; allowed: {', '.join(allowed)}", line, key)


def _form(given: Mapping[str, Located], origin: Origin) -> Form:
    try:
        return Form.model_validate({key: value.plain() for key, value in given.items()})
    except ValidationError as error:
        key, message = explain(error)
        origin.fail(message, given[key].line, key)


def _attribute(attribute: Attribute, given: Located | None, origin: Origin) -> Any:
    if given is None:
        return attribute.default
    value = given.plain()
    if attribute.type is float:
        value = number(value)
        value = float(value) if type(value) is int else value
    if isinstance(value, list):
        value = tuple(value)
    is_default = type(value) is type(attribute.default) and value == attribute.default
    if not is_default and (type(value) is not attribute.type or not attribute.check(value)):
        allowed = attribute.allowed or {bool: "true or false", int: "an integer", float: "a number"}.get(
            attribute.type, attribute.type.__name__
        )
        origin.fail(f"is {describe(given.plain())}; allowed: {allowed}", given.line, attribute.name)
    return value


def _path(text: str, given: Located, origin: Origin) -> str:
    # A value from the command line is relative to where the command runs.
    path = ((origin.folder if given.line else Path.cwd()) / Path(text).expanduser()).resolve()
    if not path.is_file():
        origin.fail(f"names {str(path)!r}, which is not a file; give the path of an .npz file", given.line, "inputs")
    return str(path)


def _check(case: Case, operator: Operator, given: Mapping[str, Located], line: int, origin: Origin) -> None:
    def blamed(key: str) -> int:
        return given[key].line if key in given else line

    for key, check in _CHECKS.items():
        try:
            check(case, operator)
        except UsageError as error:
            origin.fail(str(error), blamed(key), key if key in given else None)
    needed = _bytes(case, operator)
    if needed > origin.available:
        have = _size(origin.available)
        origin.fail(
            f"the tensors of this case take {_size(needed)}, {have} of memory are free; make the shape smaller",
            blamed("shape"),
            "shape",
        )


def _check_laws(case: Case, operator: Operator) -> None:
    from lnbench import laws

    inputs = laws.inputs_of(case)
    for tensor in inputs.values():
        laws.law_of(case, tensor)
    # A law for a tensor that this case lacks (no gamma, forward only) is kept: sweeps switch tensors on and off.
    allowed = list(laws.inputs_of(case.replace(passes="forward_backward", gamma=True, beta=True)))
    for name, law in () if isinstance(case.law, str) else case.law:
        if name not in allowed:
            raise UsageError(f"law names the tensor {name!r}{nearest(name, allowed)}; allowed: {', '.join(allowed)}")
        laws.get(law)


# Which of a layout's roles each key is about.
LAYOUT_ROLES = {"layout": "x", "dy_layout": "dy", "gamma_layout": "gamma", "out_layout": "out"}


def _check_layout(key: str, role: str) -> Callable[[Case, Operator], None]:
    def check(case: Case, operator: Operator) -> None:
        name = getattr(case, key)
        if name == "contiguous":
            return
        from lnbench import layouts

        layout = layouts.get(name)
        if role not in layout.suits:
            fit = [n for n in layouts.names() if role in layouts.get(n).suits]
            raise UsageError(f"layout {name!r} does not suit {role}; allowed: {', '.join(fit)}")
        fold = operator.fold(case)
        last = fold.reduced == tuple(range(len(case.shape) - len(fold.reduced), len(case.shape)))
        if name == "broadcast" and not (last and len(fold.reduced) == 1):
            raise UsageError("layout 'broadcast' needs the last axis, and only it, to be normalized; change axis")
        if role != "gamma":
            layouts.place(name, case.shape, ITEM_BYTES[case.dtype], len(fold.reduced) if last else 1)

    return check


def _check_alias(case: Case, operator: Operator) -> None:
    if case.alias == "dx=dy" and case.dy_layout == "broadcast":
        raise UsageError("alias dx=dy would write over a broadcast dy; use another dy_layout")
    pass_ = "forward" if case.alias == "y=x" else "backward"
    if case.alias is not None and pass_ not in case.pass_names:
        raise UsageError(f"alias {case.alias} is about the {pass_} pass, passes says {case.passes}; change one of them")


# What is asked of a case as a whole, in this order, under the key that is blamed.
_CHECKS: dict[str, Callable[[Case, Operator], None]] = {
    "axis": lambda case, operator: operator.check(case),
    "law": _check_laws,
    **{key: _check_layout(key, role) for key, role in LAYOUT_ROLES.items()},
    "alias": _check_alias,
}


def _bytes(case: Case, operator: Operator) -> int:
    """Bytes of every tensor of the case together, statistics counted as float64."""
    tensors = operator.tensors(case).values()
    return sum(
        math.prod(t.shape) * (STATISTIC_BYTES if t.role == "statistic" else ITEM_BYTES[t.dtype]) for t in tensors
    )


def _size(count: int) -> str:
    if count >= 1 << 80:
        return "more than 2**80 bytes"
    return f"{count / 2**30:,.1f} GiB" if count >= 1 << 30 else f"{count / 2**20:,.1f} MiB"
