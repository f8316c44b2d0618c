"""`--export-csv F` and its relatives: where the data of a run goes beside its folder; "-" is standard output."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from lnbench.errors import ResultsError, UsageError

F = TypeVar("F", bound=Callable[..., Any])

FORMATS = {
    "csv": "Write the rows as CSV (- is standard output).",
    "json": "Write everything as JSON.",
    "markdown": "Write a report as Markdown.",
}


def export_options(function: F) -> F:
    """Adds the export options; they arrive as `export_csv`, `export_json` and `export_markdown`."""
    for name, text in reversed(FORMATS.items()):
        function = click.option(f"--export-{name}", f"export_{name}", metavar="FILE", help=text)(function)
    return function


def check(targets: Mapping[str, str | None]) -> None:
    """Refuses, before anything is run, files that cannot be written, and two exports on standard output."""
    if sum(t == "-" for t in targets.values()) > 1:
        raise UsageError("only one export can go to standard output; give the others a file name")
    for target in targets.values():
        if target in (None, "-"):
            continue
        path = Path(str(target))
        if path.is_dir() or not path.parent.is_dir() or not _takes_files(path.parent):
            why = "it is a folder" if path.is_dir() else f"the folder {path.parent} cannot be written or does not exist"
            raise ResultsError(f"cannot write {path}: {why}; choose another file")


def check_folder(folder: Path | None, option: str) -> None:
    """Refuses, before anything is run, a folder that cannot be made or written. Leaves nothing behind."""
    if folder is None:
        return
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not there.is_dir() or not _takes_files(there):
        why = "cannot be written" if there.is_dir() else "is not a folder"
        raise ResultsError(f"cannot write {folder}: {there} {why}; choose another folder with {option}")


def _takes_files(folder: Path) -> bool:
    """Whether a file can be made there; permissions alone do not tell (read-only systems, the superuser)."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def write(targets: Mapping[str, str | None], texts: Mapping[str, Callable[[], str]]) -> None:
    """Writes each wanted format; files whole or not at all. A reader of standard output may leave early."""
    from lnbench.results import write_whole

    for name, target in targets.items():
        if target == "-":
            try:
                click.echo(texts[name](), nl=False)
            except BrokenPipeError:
                _forget_stdout()
        elif target is not None:
            write_whole(Path(target), texts[name]())


def _forget_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
