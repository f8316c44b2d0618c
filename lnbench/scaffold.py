"""Writes a small working backend project from the packaged templates. Prints nothing; `lnbench.cli.init` does.

A template's file name is taken as it is, except that a leading `dot-` becomes a dot and a trailing `.in` is cut off.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from lnbench.errors import EnvironmentUnfit, UsageError, nearest

LANGUAGES = ("python", "c", "cpp", "rust")
HEADER = "lnbench.h"


def create(language: str, directory: str | Path) -> list[Path]:
    """Writes the project for `language` into `directory`; returns its files, relative to it, sorted.

    Raises UsageError for an unknown language, for a directory that holds something, or where writing is not allowed.
    """
    if language not in LANGUAGES:
        raise UsageError(
            f"unknown language {language!r}{nearest(language, list(LANGUAGES))}; allowed: {', '.join(LANGUAGES)}"
        )
    target = Path(directory)
    content = dict(_content(language))
    try:
        _refuse_occupied(target)
        for path, text in content.items():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_bytes(text)
    except OSError as error:
        raise UsageError(f"cannot write to {target}: {error.strerror}; name another directory") from error
    return sorted(content)


def _refuse_occupied(target: Path) -> None:
    if target.is_file():
        raise UsageError(f"{target} is a file; name a new directory")
    if target.is_dir() and os.listdir(target):
        raise UsageError(f"{target} is not empty, and nothing in it was touched; name a new or empty directory")


def _content(language: str) -> Iterator[tuple[Path, bytes]]:
    templates = files("lnbench") / "templates"
    yield from _files(templates / "common", Path())
    yield from _files(templates / language, Path())
    if language != "python":
        yield Path(HEADER), _header()


def _files(folder: Traversable, place: Path) -> Iterator[tuple[Path, bytes]]:
    for entry in folder.iterdir():
        name = entry.name
        if name == "__pycache__":
            continue
        if name.startswith("dot-"):
            name = "." + name.removeprefix("dot-")
        if entry.is_dir():
            yield from _files(entry, place / name)
        else:
            yield place / name.removesuffix(".in"), entry.read_bytes()


def _header() -> bytes:
    """The header of the C contract, as installed beside the backends."""
    header = files("lnbench_backends") / "include" / HEADER
    if not header.is_file():
        raise EnvironmentUnfit(f"{HEADER} is not part of this installation; reinstall with: pip install lnbench")
    return header.read_bytes()
