"""Consoles and plain tables: colours, widths and the styles of statuses, in one place."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

# Width of tables that go to a file or a pipe, unless COLUMNS says otherwise: wide enough that nothing is cut.
PIPE_WIDTH = 200

STYLES = {
    "PASSED": "green",
    "UNSTABLE": "yellow",
    "FAILED": "bold red",
    "SKIPPED": "dim",
    "CRASHED": "bold magenta",
    "TIMEOUT": "bold magenta",
    "ERROR": "bold red",
    "EMPTY": "yellow",
    "FASTER": "green",
    "SAME": "",
    "SLOWER": "bold red",
    "UNRESOLVED": "yellow",
    "SUSPECT": "bold yellow",
    "INVALID": "bold red",
}


def make(stream: TextIO, color: str = "auto") -> Console:
    """A console on `stream`. color: auto (NO_COLOR, FORCE_COLOR, is it a terminal), always or never."""
    is_terminal = stream.isatty()
    wants = {"always": True, "never": False}.get(color)
    if wants is None:
        if os.environ.get("NO_COLOR"):
            wants = False
        else:
            wants = bool(os.environ.get("FORCE_COLOR")) or (is_terminal and os.environ.get("TERM") != "dumb")
    return Console(
        file=stream,
        force_terminal=True if wants and not is_terminal else None,
        color_system="standard" if wants else None,
        no_color=not wants,
        width=None if is_terminal else int(os.environ.get("COLUMNS") or PIPE_WIDTH),
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
    )


def styled(word: str) -> Text:
    """A status or verdict in its colour; the word itself always says it too."""
    return Text(word, style=STYLES.get(word, ""))


def table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Iterable[str] = (), title: str = ""
) -> RenderableType:
    """A table without lines, under its title; the columns named in `right` are aligned right."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    numbers = set(right)
    for name in columns:
        made.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        made.add_row(*[cell if isinstance(cell, Text) else Text("" if cell is None else str(cell)) for cell in row])
    return Group(Text(title, style="italic"), made) if title else made
