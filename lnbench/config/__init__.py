"""Case files: YAML -> cases, with file and line in every error. `reader` knows YAML, `model` the keys, `meaning` what
they mean together, `expand` defaults and sweeps, `json_schema` describes it all for editors.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnbench.errors import ConfigError, nearest

if TYPE_CHECKING:
    from lnbench.case import Case
    from lnbench.config.meaning import Origin

_SUITE_ORDER = ("smoke", "ci", "models", "ladder", "full")


def suites() -> tuple[str, ...]:
    """Names of the packaged case files: the known ones in order of size, others after them."""
    folder = files("lnbench") / "configs"
    found = {Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".yaml")} if folder.is_dir() else set()
    return tuple([n for n in _SUITE_ORDER if n in found] + sorted(found.difference(_SUITE_ORDER)))


def load(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> list[Case]:
    """The cases of a packaged suite (a plain name) or of a file (anything with a slash or a suffix).

    overrides: key -> value, stronger than the file; attributes concern the operators that have them.
    Raises ConfigError with file, line and key; the nearest name for an unknown suite.
    """
    from lnbench.config.expand import expand
    from lnbench.config.reader import read_file

    if "/" in name_or_path or "\\" in name_or_path or Path(name_or_path).suffix:
        path = Path(name_or_path).expanduser()
        return expand(read_file(path, name_or_path), _origin(name_or_path, path.parent), overrides or {})
    known = suites()
    if name_or_path not in known:
        raise ConfigError(
            f"unknown suite {name_or_path!r}{nearest(name_or_path, list(known))}; "
            f"allowed: {', '.join(known)}, or the path of a YAML file (with a slash or a suffix)"
        )
    with as_file(files("lnbench") / "configs" / f"{name_or_path}.yaml") as path:
        return expand(read_file(path, path.name), _origin(path.name, path.parent), overrides or {})


def inline(text: str, overrides: Mapping[str, Any] | None = None) -> list[Case]:
    """The cases of one mapping given as YAML or JSON text, several when it has a sweep. Raises ConfigError."""
    from lnbench.config.expand import multiply
    from lnbench.config.reader import read

    return multiply(read(text).value, 1, _origin(None, Path.cwd()), {}, overrides or {})


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of case files, for editors."""
    from lnbench.config.json_schema import schema as build

    return build()


def _origin(file: str | None, folder: Path) -> Origin:
    import psutil

    from lnbench.config.meaning import Origin

    return Origin(file, folder, psutil.virtual_memory().available)
