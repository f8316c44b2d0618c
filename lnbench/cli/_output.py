"""Where text goes: data and what was asked for to stdout, everything said on the way to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

F = TypeVar("F", bound=Callable[..., Any])


def color_option(function: F) -> F:
    """`--color auto|always|never`; auto looks at NO_COLOR, FORCE_COLOR and the terminal."""
    option: Callable[[F], F] = click.option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        help="Colour the text: always also through a pipe (default: auto).",
    )
    return option(function)


def stdout(color: str = "auto") -> Console:
    """A console for what the command was asked to print."""
    from lnbench.report.console import make

    return make(sys.stdout, color)


def stderr(color: str = "auto") -> Console:
    """A console for what is said beside the data."""
    from lnbench.report.console import make

    return make(sys.stderr, color)


def say(sentence: str) -> None:
    """One sentence on stderr."""
    click.echo(sentence, err=True)


def print_json(value: Any) -> None:
    """`value` as JSON on stdout."""
    click.echo(json.dumps(value, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], color: str = "auto") -> None:
    """A plain table on stdout."""
    from lnbench.report.console import table

    stdout(color).print(table(columns, rows))
