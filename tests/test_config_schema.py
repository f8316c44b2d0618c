"""The JSON Schema of case files agrees with what is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lnbench import config, laws, layouts
from lnbench.case import DTYPES
from lnbench.config.model import KEYS
from lnbench.operators import registry

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def problem(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> str | None:
    """What is wrong with `value`: the part of JSON Schema that ours uses, evaluated."""
    if "$ref" in schema:
        return problem(value, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root)
    if "anyOf" in schema and all(problem(value, s, root) for s in schema["anyOf"]):
        return f"{value!r} fits none of {schema['anyOf']}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{value!r} is not one of {schema['enum']}"
    if "const" in schema and value != schema["const"]:
        return f"{value!r} is not {schema['const']}"
    if "type" in schema:
        names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        if not any(isinstance(value, TYPES[n]) and (n == "boolean") == isinstance(value, bool) for n in names):
            return f"{value!r} is not of type {names}"
    if isinstance(value, dict):
        return _problem_of_mapping(value, schema, root)
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 10**9):
            return f"{value!r} is too short or too long"
        return next((p for v in value if (p := problem(v, schema.get("items", {}), root))), None)
    if isinstance(value, int | float) and value < schema.get("minimum", value):
        return f"{value!r} is too small"
    return None


def _problem_of_mapping(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any]) -> str | None:
    missing = [k for k in schema.get("required", []) if k not in value]
    if missing:
        return f"{missing} missing"
    others = schema.get("additionalProperties", True)
    for key, item in value.items():
        inner = schema.get("properties", {}).get(key, others)
        if inner is False:
            return f"{key} is not allowed"
        if isinstance(inner, dict) and (found := problem(item, inner, root)):
            return f"{key}: {found}"
    return None


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_the_shipped_files_fit_the_schema(path: Path) -> None:
    schema = config.schema()
    assert problem(yaml.safe_load(path.read_text()), schema, schema) is None


@pytest.mark.parametrize(
    "case",
    [
        {"shap": [2]},
        {"shape": 2},
        {"shape": [-1]},
        {"shape": []},
        {"shape": [2], "dtype": "f32"},
        {"shape": [2], "law": "ofset"},
        {"shape": [2], "law": "mixed"},
        {"shape": [2], "law": {"dy": "ofset"}},
        {"shape": [2], "layout": "broadcast"},
        {"shape": [2], "epsilon": -1.0},
        {"shape": [2], "gamma": 1},
        {"shape": [2], "sweep": {"dtype": "float32"}},
        {"shape": [2], "sweep": {"name": ["a"]}},
        {"shape": [2], "expect": "unstabel"},
        {"shape": [2], "training": "yes"},
    ],
)
def test_what_is_refused_does_not_fit_the_schema(case: dict[str, Any]) -> None:
    schema = config.schema()
    assert problem({"version": 1, "cases": [case]}, schema, schema)


def test_the_schema_names_everything_that_can_be_chosen() -> None:
    schema = config.schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    keys = schema["$defs"]["case"]["properties"]
    attributes = {a.name for name in registry.names() for a in registry.get(name).attributes}
    assert set(keys) == {*KEYS, *attributes, "sweep"}
    assert keys["op"]["enum"] == list(registry.names())
    assert keys["dtype"]["enum"] == list(DTYPES)
    assert keys["dy_layout"]["enum"] == [n for n in layouts.names() if "dy" in layouts.get(n).suits]
    assert keys["law"]["anyOf"][1]["additionalProperties"]["enum"] == list(laws.names())
    assert all("description" in k for k in keys.values())


def test_the_schema_is_json() -> None:
    assert json.loads(json.dumps(config.schema(), allow_nan=False)) == config.schema()


def test_the_schema_can_be_asked_for_twice() -> None:
    assert config.schema() == config.schema()
    assert callable(config.schema)
