"""Stored baselines: a recipe (how to start that backend again, with hashes and versions) beside the numbers it gave.

A gate runs the recipe again, interleaved with the new backend; numbers alone only advise. Finding backends is
`lnbench.registry`'s.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from lnbench import registry
from lnbench.bench.record import Row, Word
from lnbench.errors import EnvironmentUnfit, ResultsError, UsageError

SCHEMA = 1
FOLDER = Path("results", "baselines")
# Stored times saw another state of the machine; a difference must be this many margins to be worth a word.
HISTORICAL_MARGINS = 3.0


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored number: the median time of a call of one case (by key), pass and cache state."""

    key: str
    pass_: str
    cache: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to start a backend again.

    spec: how it was named. files: SHA-256 by path of what was run. copy: a copy of that file beside the recipe.
    versions: of the packages that were installed. described: what the backend said of itself.
    """

    name: str
    spec: str
    files: Mapping[str, str] = field(default_factory=dict)
    copy: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    described: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    numbers: tuple[Stored, ...] = ()


def path_of(name: str, folder: Path = FOLDER) -> Path:
    """Where a recipe lies. Raises UsageError for what cannot be a name."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name):
        raise UsageError(f"{name!r} is no name for a baseline; use letters, digits, '-', '_' and '.'")
    return folder / name / "recipe.json"


def sha256(path: Path) -> str:
    """The hash of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save(
    name: str,
    spec: str,
    rows: Sequence[Row],
    *,
    described: Mapping[str, str],
    environment: Mapping[str, str] | None = None,
    folder: Path = FOLDER,
) -> Path:
    """Writes the recipe of the backend `spec` with its numbers among `rows`; returns its path. Raises ResultsError."""
    path = path_of(name, folder)
    kind, place, attribute = registry.split(spec)
    file = Path(place).resolve() if kind in ("file", "library") else None
    numbers = tuple(
        Stored(r.case.key, r.pass_, r.cache, r.seconds) for r in rows if r.backend == spec and r.seconds is not None
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        copy = ""
        if file is not None:
            shutil.copy2(file, path.parent / file.name)
            copy = file.name + (f":{attribute}" if attribute else "")
        recipe = Recipe(
            name=name,
            spec=f"{file}:{attribute}" if file is not None and attribute else str(file or spec),
            files={str(file): sha256(file)} if file is not None else {},
            copy=copy,
            versions=_versions(kind, place),
            described=dict(described),
            environment=dict(environment or {}),
            numbers=numbers,
        )
        text = json.dumps({"schema": SCHEMA, **asdict(recipe)}, indent=2) + "\n"
        path.with_suffix(".partial").write_text(text)
        path.with_suffix(".partial").replace(path)
    except OSError as error:
        raise ResultsError(f"cannot store the baseline in {path.parent}: {error.strerror or error}") from error
    return path


def _versions(kind: str, place: str) -> dict[str, str]:
    """Versions of lnbench and of the packages that the backend comes from."""
    wanted, packages = {"lnbench", "numpy"}, set[str]()
    if kind == "module":
        packages.add(place.partition(".")[0])
    if kind == "name":
        found = [p for p in metadata.entry_points(group=registry.GROUP) if p.name == place]
        wanted |= {p.dist.name for p in found if p.dist is not None} | {place}
        packages |= {p.module.partition(".")[0] for p in found}
    versions = {name: version for name in sorted(wanted) if (version := _version(name)) is not None}
    return versions | {f"files of {name}": digest for name in sorted(packages) if (digest := _package_hash(name))}


def _package_hash(name: str) -> str:
    """A hash over all code of an installed package, which is not imported; a rebuilt library changes it."""
    spec = importlib.util.find_spec(name)
    folders = spec.submodule_search_locations if spec is not None else None
    digest = hashlib.sha256()
    for folder in sorted(map(Path, folders or ())):
        for path in sorted(p for p in folder.rglob("*") if p.suffix in (".py", ".so", ".dylib", ".pyd")):
            digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()[:16] if folders else ""


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def load(name: str, folder: Path = FOLDER) -> Recipe:
    """The stored recipe. Raises UsageError when there is none and ResultsError when it cannot be read."""
    path = path_of(name, folder)
    if not path.is_file():
        known = sorted(p.parent.name for p in folder.glob("*/recipe.json"))
        there = f"there are {', '.join(known)}" if known else f"{folder} holds none"
        raise UsageError(
            f"no baseline is stored as {name!r} ({there}); store one with --save-baseline {name}, "
            "or give --baseline-lenient to go on without"
        )
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        if document.pop("schema") > SCHEMA:
            raise ResultsError(f"{path} was written by a newer lnbench; update lnbench")
        numbers = tuple(Stored(**n) for n in document.pop("numbers"))
        return Recipe(**document, numbers=numbers)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{path} is no recipe of lnbench ({error}); store the baseline again") from error


@dataclass(frozen=True, slots=True)
class Restart:
    """How a recipe is run again: the spec to start, and a sentence for the user where something has changed."""

    spec: str
    note: str = ""


def restart(recipe: Recipe, folder: Path = FOLDER) -> Restart:
    """Finds what to run. Raises EnvironmentUnfit when the old backend is gone: its numbers can then only advise."""
    kind, place, _ = registry.split(recipe.spec)
    if recipe.files:
        ((path, digest),) = recipe.files.items()
        if Path(path).is_file() and sha256(Path(path)) == digest:
            return Restart(recipe.spec)
        copy = folder / recipe.name / recipe.copy
        bare = Path(str(copy).rpartition(":")[0] or copy) if ":" in recipe.copy else copy
        if bare.is_file() and sha256(bare) == digest:
            state = "has changed" if Path(path).is_file() else "is gone"
            note = f"{path} {state} since baseline {recipe.name!r} was stored; its copy is run instead"
            return Restart(str(copy), note)
        raise EnvironmentUnfit(
            f"{path} has changed since baseline {recipe.name!r} was stored and no copy is left, so the old backend "
            "cannot be run again; store the baseline anew, or let its numbers speak with --trust-stored"
        )
    now = _versions(kind, place)
    changed = [f"{n} {old} is now {now.get(n, 'missing')}" for n, old in recipe.versions.items() if now.get(n) != old]
    if changed:
        raise EnvironmentUnfit(
            f"baseline {recipe.name!r} cannot be run again: {', '.join(changed)}; install the old version, store the "
            "baseline anew, or let its numbers speak with --trust-stored"
        )
    return Restart(recipe.spec)


def historical(rows: Sequence[Row], recipe: Recipe, margin: float, *, trust: bool) -> list[Row]:
    """The rows against stored numbers: labelled so, with a wider margin, and never SLOWER unless they are trusted."""
    known = {(n.key, n.pass_, n.cache): n.seconds for n in recipe.numbers}
    label = f"@{recipe.name} (historical)"
    out = []
    for row in rows:
        old = known.get((row.case.key, row.pass_, row.cache))
        if old is None or row.seconds is None or row.verdict in (Word.INVALID, Word.SUSPECT, Word.SKIPPED):
            out.append(row)
            continue
        ratio, wide = row.seconds / old, 1 + HISTORICAL_MARGINS * margin
        word = Word.SLOWER if ratio > wide else Word.FASTER if ratio < 1 / wide else Word.SAME
        reason = f"against a stored number, another state of the machine; margin {100 * (wide - 1):.0f} %"
        if not trust:
            word, reason = Word.UNRESOLVED, f"{100 * (ratio - 1):+.1f} % {reason}; stored numbers only advise"
        out.append(replace(row, baseline=label, ratio=ratio, low=None, high=None, verdict=word, reason=reason,
                           needs_seconds=None, fragile=False, p_value=None, resolution=None))  # fmt: skip
    return out
