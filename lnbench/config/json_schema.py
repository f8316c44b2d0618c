"""The JSON Schema of case files, made from the same model, operators, laws and layouts that read them."""

from __future__ import annotations

from typing import Any

from lnbench.case import ALIASES, DTYPES, PASS_CHOICES
from lnbench.config.expand import NOT_SWEPT, VERSION
from lnbench.config.meaning import LAYOUT_ROLES
from lnbench.config.model import EXPECTED, REQUIREMENTS, Form
from lnbench.operators import registry
from lnbench.operators.schema import Attribute

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", tuple: "array", list: "array"}


def schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12."""
    properties = case_properties()
    swept = {k: {"type": "array", "minItems": 1, "items": v} for k, v in properties.items() if k not in NOT_SWEPT}
    sweep = {
        "type": "object",
        "additionalProperties": False,
        "properties": swept,
        "description": "Lists of values; every combination becomes a case.",
    }
    shared = {k: v for k, v in properties.items() if k != "name"}
    listed = {"type": "object", "additionalProperties": False, "properties": {**properties, "sweep": sweep}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lnbench case file",
        "type": "object",
        "additionalProperties": False,
        "required": ["version", "cases"],
        "properties": {
            "version": {"const": VERSION, "description": "Version of the file format."},
            "defaults": {
                "type": "object",
                "additionalProperties": False,
                "properties": shared,
                "description": "Keys of every case that does not give its own.",
            },
            "cases": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/case"}},
        },
        "$defs": {"case": listed},
    }


def case_properties() -> dict[str, Any]:
    """Schema of every key of a case, the operators' own attributes included."""
    from lnbench import laws, layouts

    properties: dict[str, Any] = Form.model_json_schema()["properties"]
    for key, prop in properties.items():
        prop.pop("title", None)
        if "anyOf" in prop and {"type": "null"} in prop["anyOf"]:
            prop["anyOf"].remove({"type": "null"})
        if prop.get("default") in (None, "", [], {}):
            prop.pop("default", None)
        if key in LAYOUT_ROLES:
            prop["enum"] = [n for n in layouts.names() if LAYOUT_ROLES[key] in layouts.get(n).suits]
    of_x = [n for n in laws.names() if "x" in laws.get(n).tensors]
    by_tensor = {"type": "object", "additionalProperties": {"enum": list(laws.names())}}
    properties["law"]["anyOf"] = [{"enum": of_x}, by_tensor]
    a_status = {"enum": list(EXPECTED)}
    properties["expect"] = {
        "anyOf": [a_status, {"type": "object", "additionalProperties": a_status}],
        "description": properties["expect"]["description"],
    }
    properties["op"]["enum"] = list(registry.names())
    for key, words in _ENUMS.items():
        properties[key] = {"enum": list(words), **{k: v for k, v in properties[key].items() if k != "anyOf"}}
    return {**properties, **_attributes(set(properties))}


_ENUMS = {
    "dtype": DTYPES,
    "affine_dtype": DTYPES,
    "passes": PASS_CHOICES,
    "alias": ALIASES,
    "require": REQUIREMENTS,
}


def _attributes(taken: set[str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in registry.names():
        for attribute in registry.get(name).attributes:
            if attribute.name not in taken:
                out.setdefault(attribute.name, _attribute(attribute, name))
    return out


def _attribute(attribute: Attribute, operator: str) -> dict[str, Any]:
    kinds: list[str] = [_TYPES.get(attribute.type, "string")]
    if attribute.default is None:
        kinds.append("null")
    allowed = f" Allowed: {attribute.allowed}." if attribute.allowed else ""
    return {
        "type": kinds[0] if len(kinds) == 1 else kinds,
        "default": attribute.default,
        "description": f"({operator}) {attribute.doc}{allowed}",
    }
