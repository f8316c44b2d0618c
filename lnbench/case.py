"""`Case`: one fully fixed problem. The centre that everything else turns around.

Owns the fields, the key, the repro line and the size. Leaves the meaning of the fields to the
operator's schema (`lnbench.operators`) and their parsing to `lnbench.config`.
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

DTYPES = ("float32", "float64", "float16", "bfloat16")
ITEM_BYTES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}
PASSES = ("forward", "backward")
PASS_CHOICES = ("forward", "backward", "forward_backward")
ALIASES = ("y=x", "dx=dy")

# Fields that say how a case is named or judged, not what is computed: they do not enter the key.
_LABELS = ("name", "source", "require", "expect")
# Fields written out even at their default: without the first two there is no case, operators may have others of the last two.
_ALWAYS = ("shape", "op", "axis", "epsilon")

Frozen = tuple[tuple[str, Any], ...]


def freeze(mapping: Mapping[str, Any] | Frozen) -> Frozen:
    """A mapping as a sorted tuple of pairs, so that it can be hashed."""
    pairs = mapping.items() if isinstance(mapping, Mapping) else mapping
    return tuple(sorted((str(k), tuple(v) if isinstance(v, list) else v) for k, v in pairs))


@dataclass(frozen=True, kw_only=True)
class Case:
    """One operator, shape, attributes, dtype, data law, layout and seed.

    Attributes bear the names of the config keys. `attributes` holds the operator's own ones (for
    example `momentum`), which can also be read as attributes of the case: `case.momentum`.

    axis: an int means "from this axis to the last"; a tuple means exactly these axes. Operators
        whose statistics are per channel read it as the channel axis (their schema says so).
    law: a law's name, or pairs (tensor, law).
    expect: pairs (backend or "*", status) for known weaknesses.
    threads: how many threads the backend may use, 1 or more.
    """

    shape: tuple[int, ...]
    op: str = "layer_norm"
    axis: int | tuple[int, ...] = -1
    epsilon: float = 1e-5
    dtype: str = "float32"
    affine_dtype: str = ""
    gamma: bool = True
    beta: bool = True
    passes: str = "forward_backward"
    law: str | Frozen = "normal"
    inputs: str | None = None
    layout: str = "contiguous"
    dy_layout: str = "contiguous"
    gamma_layout: str = "contiguous"
    out_layout: str = "contiguous"
    alias: str | None = None
    threads: int = 1
    seed: int = 0
    require: str | None = None
    expect: Frozen = ()
    attributes: Frozen = ()
    name: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "shape", tuple(int(n) for n in self.shape))
        if isinstance(self.axis, list):
            put(self, "axis", tuple(self.axis))
        put(self, "epsilon", float(self.epsilon))
        put(self, "affine_dtype", self.affine_dtype or self.dtype)
        put(self, "attributes", freeze(self.attributes))
        put(self, "expect", freeze(self.expect))
        if not isinstance(self.law, str):
            put(self, "law", freeze(self.law))

    def __getattr__(self, name: str) -> Any:
        # Only reached for names that are not fields: the operator's own attributes.
        if not name.startswith("_"):
            for key, value in self.__dict__.get("attributes", ()):
                if key == name:
                    return value
        raise AttributeError(f"case has no attribute {name!r}")

    @property
    def pass_names(self) -> tuple[str, ...]:
        """The passes that are judged or timed, in order."""
        return PASSES if self.passes == "forward_backward" else (self.passes,)

    @property
    def elements(self) -> int:
        """Number of elements of x."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size of x in bytes."""
        return self.elements * ITEM_BYTES[self.dtype]

    def law_of(self, tensor: str) -> str | None:
        """The law that the case names for `tensor`, or None (the operator's default)."""
        if isinstance(self.law, str):
            return self.law if tensor == "x" else None
        return dict(self.law).get(tensor)

    def replace(self, **changes: Any) -> Case:
        """A copy with some fields changed; `affine_dtype` follows `dtype` when it was equal to it."""
        if "dtype" in changes and "affine_dtype" not in changes and self.affine_dtype == self.dtype:
            changes["affine_dtype"] = changes["dtype"]
        return replace(self, **changes)

    def to_mapping(self) -> dict[str, Any]:
        """The config keys that `config` needs to read back an equal case, in field order."""
        out: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "attributes":
                out.update({k: list(v) if isinstance(v, tuple) else v for k, v in value})
                continue
            default = self.dtype if field.name == "affine_dtype" else field.default
            if field.name not in _ALWAYS and value == default:
                continue
            if field.name in ("law", "expect") and not isinstance(value, str):
                value = dict(value)
            out[field.name] = list(value) if isinstance(value, tuple) else value
        return out

    @cached_property
    def key(self) -> str:
        """A short stable identity of the problem: readable words and 8 hex digits of a hash over what is computed."""
        content = {k: v for k, v in self.to_mapping().items() if k not in _LABELS}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
        size = "x".join(map(str, self.shape))
        return f"{self.op}-{size}-{self.dtype}-{digest}"

    @property
    def label(self) -> str:
        """What a person calls the case: its name, or the key."""
        return self.name or self.key

    def inline(self) -> str:
        """The case as one line of YAML (flow style), as `--case` takes it."""
        return json.dumps(self.to_mapping())

    def repro(self, backend: str, command: str = "verify") -> str:
        """A shell command that runs exactly this case on `backend` again."""
        return f"lnbench {command} --case {shlex.quote(self.inline())} --backend {shlex.quote(backend)}"
