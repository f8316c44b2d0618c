"""YAML text -> values that remember their line. Knows nothing of cases.

Refuses, with file and line, everything that a case file has no use for: duplicate keys, tags, several
documents, deep nesting, and aliases that multiply (nodes are counted as if every alias were written out).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from lnbench.errors import ConfigError

MAX_BYTES = 8 << 20
MAX_NODES = 500_000
MAX_DEPTH = 16


@dataclass(frozen=True, slots=True)
class Located:
    """A scalar, a list of `Located` or a mapping str -> `Located`, and the line (from 1) of its key or first character.

    line 0 stands for a value that came from the command line.
    """

    value: Any
    line: int = 0

    def plain(self) -> Any:
        """The value without lines."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value


def located(value: Any) -> Located:
    """A plain value as if it had been read, without a line."""
    if isinstance(value, Mapping):
        return Located({str(key): located(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return Located([located(item) for item in value])
    return Located(value)


def read_file(path: Path, shown: str) -> Located:
    """The document in `path`; `shown` is what errors call it. Raises ConfigError."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror}); give the path of a YAML file", file=shown) from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"is larger than {MAX_BYTES >> 20} MiB; split it into several files", file=shown)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8 text; give a YAML file", file=shown) from None
    return read(text, shown)


def read(text: str, shown: str | None = None) -> Located:
    """The one mapping that `text` holds; without a name it is a case given inline. Raises ConfigError for all else."""
    subject = "" if shown else "the inline case "
    try:
        return _Reader(text, shown).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark and shown is not None else None
        problem = error.problem or error.context
        raise ConfigError(f"{subject}is not YAML: {problem}; correct the line", file=shown, line=line) from None
    except yaml.YAMLError as error:
        reason = getattr(error, "reason", None) or "it holds characters that YAML forbids"
        raise ConfigError(f"{subject}is not YAML text: {reason}; give a YAML file", file=shown) from None


class _Reader:
    """Builds values from the parser's events, one document, counting nodes."""

    def __init__(self, text: str, shown: str | None):
        self._shown = shown
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        # Only resolves and constructs scalars; it reads nothing.
        self._scalars = yaml.SafeLoader("")
        self._anchors: dict[str, tuple[Located, int]] = {}
        self._nodes = 0

    def document(self) -> Located:
        next(self._events)
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            self._fail("is empty; give it cases, each with a shape", 1)
        root = self._node(next(self._events), 0)
        next(self._events)
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            self._fail("holds a second document; put all cases under one 'cases'", _line(event))
        if not isinstance(root.value, dict):
            self._fail(f"holds {describe(root.value)} where a mapping such as 'shape: [8, 768]' is expected", root.line)
        return root

    def _node(self, event: yaml.Event, depth: int) -> Located:
        line, before = _line(event), self._nodes
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, line)
        assert isinstance(event, yaml.NodeEvent)
        self._count(1, line)
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            self._fail(f"holds the tag {tag!r}; write plain values without tags", line)
        if depth > MAX_DEPTH:
            self._fail(f"is nested more than {MAX_DEPTH} levels deep; case files need five", line)
        if isinstance(event, yaml.MappingStartEvent):
            found = Located(self._mapping(depth), line)
        elif isinstance(event, yaml.SequenceStartEvent):
            found = Located(self._sequence(depth), line)
        else:
            assert isinstance(event, yaml.ScalarEvent)
            found = Located(self._scalar(event, line), line)
        if event.anchor is not None:
            self._anchors[event.anchor] = found, self._nodes - before
        return found

    def _mapping(self, depth: int) -> dict[str, Located]:
        out: dict[str, Located] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key.value, str):
                self._fail(f"has {describe(key.value)} as a key; keys are words (quote it if it is one)", key.line)
            value = self._node(next(self._events), depth + 1)
            if key.value in out:
                first = out[key.value].line
                self._fail(f"is given twice, first on line {first}; keep one of them", key.line, key.value)
            out[key.value] = Located(value.value, key.line)
        return out

    def _sequence(self, depth: int) -> list[Located]:
        out = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            out.append(self._node(event, depth + 1))
        return out

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> Any:
        tag = "tag:yaml.org,2002:str"
        if event.tag is None:
            resolve: Any = self._scalars.resolve  # untyped in the stubs
            tag = resolve(yaml.ScalarNode, event.value, event.implicit)
        if tag == "tag:yaml.org,2002:merge":
            return event.value
        try:
            return self._scalars.construct_object(yaml.ScalarNode(tag, event.value))
        except ValueError as error:
            self._fail(f"holds {event.value[:40]!r}, which is not a value ({error}); quote it if it is text", line)

    def _alias(self, event: yaml.AliasEvent, line: int) -> Located:
        if event.anchor not in self._anchors:
            self._fail(f"uses the alias *{event.anchor}, which nothing before it defines", line)
        found, size = self._anchors[event.anchor]
        self._count(size, line)
        return Located(found.value, line)

    def _count(self, nodes: int, line: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            self._fail(f"holds more than {MAX_NODES} values once its aliases are written out; use fewer", line)

    def _fail(self, message: str, line: int, key: str | None = None) -> NoReturn:
        if self._shown is None:
            raise ConfigError(message if key else f"the inline case {message}", key=key)
        raise ConfigError(message, file=self._shown, line=line, key=key)


def _line(event: yaml.Event) -> int:
    return int(event.start_mark.line) + 1 if event.start_mark else 1


def describe(value: Any) -> str:
    """A value as an error quotes it."""
    if isinstance(value, dict | list):
        plain = Located(value).plain() if _has_lines(value) else value
        return f"the {'list' if isinstance(plain, list) else 'mapping'} {_short(str(plain))}"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    kind = {str: "the text", int: "the number", float: "the number"}.get(type(value), f"the {type(value).__name__}")
    return f"{kind} {_short(repr(value) if isinstance(value, str) else str(value))}"


def _has_lines(value: dict[str, Any] | list[Any]) -> bool:
    return any(isinstance(item, Located) for item in (value.values() if isinstance(value, dict) else value))


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
