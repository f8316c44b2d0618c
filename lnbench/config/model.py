"""The form of one case: every key with its type, and what an error says is allowed.

Only the form. What the values mean together (axis and shape, laws, layouts, memory) is `meaning`'s.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from lnbench.case import ALIASES, DTYPES, PASS_CHOICES
from lnbench.config.reader import describe
from lnbench.errors import nearest

MAX_RANK = 32  # what every NumPy allows
REQUIREMENTS = ("tier2", "tier1", "stable", "any")
EXPECTED = ("unstable",)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")

# What each key takes, in words; completes "is ...; allowed: ...".
ALLOWED = {
    "name": "text (quote it if it looks like a number or a date)",
    "op": "the name of an operator",
    "shape": f"a list of 1 to {MAX_RANK} integers, 0 or more, such as [8, 512, 768]",
    "axis": "an integer such as -1 (from it to the end), or a list of integers such as [1, 3] (exactly these)",
    "epsilon": "a finite number, 0 or more, such as 1.0e-5",
    "dtype": ", ".join(DTYPES),
    "affine_dtype": ", ".join(DTYPES),
    "gamma": "true or false",
    "beta": "true or false",
    "passes": ", ".join(PASS_CHOICES),
    "law": "the name of a law, or a mapping such as {x: offset, dy: mixed}",
    "inputs": "the path of an .npz file",
    "layout": "the name of a layout",
    "dy_layout": "the name of a layout",
    "gamma_layout": "the name of a layout",
    "out_layout": "the name of a layout",
    "alias": ", ".join(ALIASES),
    "threads": "an integer from 1 to 1024",
    "seed": "an integer, 0 or more, below 2**63",
    "require": ", ".join(REQUIREMENTS),
    "expect": "unstable, or a mapping from backends such as {torch: unstable}",
    "source": "text",
}


def number(value: Any) -> Any:
    """Text such as 1e-5, which YAML 1.1 does not take for a number, as a float; anything else unchanged."""
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value.strip()) else value


def _finite(value: Any) -> Any:
    value = number(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise PydanticCustomError("finite", "is not finite")
    return value


def _one_of(*allowed: str) -> BeforeValidator:
    def check(value: Any) -> Any:
        if isinstance(value, str) and value not in allowed:
            raise PydanticCustomError("choice", "{hint}", {"hint": nearest(value, list(allowed))})
        return value

    return BeforeValidator(check)


def _expected(value: Any) -> Any:
    if isinstance(value, str):
        value = {"*": value}
    for word in value.values() if isinstance(value, dict) else ():
        if word not in EXPECTED:
            raise PydanticCustomError("choice", "{hint}", {"hint": nearest(str(word), list(EXPECTED))})
    return value


Dtype = Annotated[str, _one_of(*DTYPES)]


class Form(BaseModel):
    """The keys of a case that every operator has. All optional here: `defaults` may supply any of them."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: str = Field("", description="What a person calls the case.")
    op: str = Field("layer_norm", description="The operator.")
    shape: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field(
        default=[], min_length=1, max_length=MAX_RANK, description="Shape of x."
    )
    axis: int | Annotated[list[int], Field(min_length=1)] = Field(
        -1, description="Normalized axes: an integer means from it to the end, a list exactly these."
    )
    epsilon: Annotated[float, Field(ge=0), BeforeValidator(_finite)] = Field(
        1e-5, description="Added to the variance, inside the root."
    )
    dtype: Dtype = Field("float32", description="Element type of x, y, dy and dx.")
    affine_dtype: Dtype = Field("", description="Element type of gamma and beta; that of x when left out.")
    gamma: bool = Field(True, description="Whether there is a gamma.")
    beta: bool = Field(True, description="Whether there is a beta.")
    passes: Annotated[str, _one_of(*PASS_CHOICES)] = Field("forward_backward", description="What is judged or timed.")
    law: str | dict[str, str] = Field("normal", description="How x is drawn, or a mapping from tensors to laws.")
    inputs: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="An .npz file of real tensors; relative paths start at this file."
    )
    layout: str = Field("contiguous", description="How x lies in memory.")
    dy_layout: str = Field("contiguous", description="How dy lies in memory.")
    gamma_layout: str = Field("contiguous", description="How gamma and beta lie in memory.")
    out_layout: str = Field("contiguous", description="How the outputs lie in memory.")
    alias: Annotated[str, _one_of(*ALIASES)] | None = Field(
        None, description="An output that shares its input's memory."
    )
    threads: Annotated[int, Field(ge=1, le=1024)] = Field(1, description="How many threads a backend may use.")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="Seed of the drawn inputs.")
    require: Annotated[str, _one_of(*REQUIREMENTS)] | None = Field(
        None, description="What a verdict must reach to be accepted."
    )
    expect: Annotated[dict[str, str], BeforeValidator(_expected)] = Field(
        default={}, description="A known weakness, of every backend or by backend; reported once it is gone."
    )
    source: str = Field("", description="Where the case comes from.")


KEYS = tuple(Form.model_fields)


def explain(error: ValidationError) -> tuple[str, str]:
    """The key of the first problem, and a sentence: what came and what is allowed."""
    first = error.errors(include_url=False)[0]
    key = str(first["loc"][0])
    hint = first["msg"] if first["type"] == "choice" else ""
    return key, f"is {describe(first['input'])}{hint}; allowed: {ALLOWED[key]}"
