"""The functions behind `lnbench.verify(...)`, `lnbench.bench(...)` and `lnbench.load_cases(...)`.

They run what the commands of the same names run, and return rows instead of printing; nothing is written to disk.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.machinery import ModuleSpec
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lnbench import config
from lnbench.case import Case
from lnbench.errors import UsageError

if TYPE_CHECKING:
    from lnbench.backend import Backend
    from lnbench.verify.verdict import Verdict

_numbers = count()


def load_cases(*names: str | Path, **overrides: Any) -> list[Case]:
    """The cases of packaged suites (`"ci"`) or YAML files; keywords override keys of every case.

    Raises ConfigError with file, line and key.
    """
    return [case for name in names or ("ci",) for case in config.load(str(name), overrides)]


def verify(
    backend: str | Path | Backend | Sequence[str | Path | Backend],
    cases: str | Path | Case | Iterable[Case] = "ci",
    *,
    require: str = "stable",
    checks: Iterable[str] | None = None,
    timeout: float = 60.0,
    in_process: bool = False,
    dump: str | Path | None = None,
    stop_on_first: bool = False,
) -> list[Verdict]:
    """Verifies backends on cases and returns every verdict; `all(v.accepted for v in ...)` is the command's exit 0.

    backend: a name, path, module or library as on the command line, or an object; several as a sequence. Names run in a
    worker process of their own. An object runs in this process, where nothing can stop a crash or a hang.
    cases: a suite, a file, a `Case` or several cases.
    require: tier2, tier1, stable or any. timeout: seconds for one call. dump: a folder for the tensors of failures.
    Raises UnknownBackend, Unavailable, ConfigError and UsageError.
    """
    from lnbench.verify import runner
    from lnbench.verify.verdict import REQUIREMENTS

    if require not in REQUIREMENTS:
        raise UsageError(f"require={require!r} is not one of {', '.join(REQUIREMENTS)}")
    options = runner.Options(
        require=require,
        timeout=timeout,
        in_process=in_process,
        checks=None if checks is None else tuple(checks),
        dump=None if dump is None else Path(dump),
        stop_on_first=stop_on_first,
    )
    chosen = _cases(cases)
    with _specs(_several(backend)) as (names, objects):
        found = runner.run(chosen, names, options) if names else []
        local = replace(options, in_process=True)
        return found + (runner.run(chosen, objects, local) if objects else [])


def _several(backend: Any) -> list[Any]:
    from lnbench.backend import is_backend

    return [backend] if isinstance(backend, (str, Path)) or is_backend(backend) else list(backend)


def _cases(cases: str | Path | Case | Iterable[Case]) -> list[Case]:
    if isinstance(cases, (str, Path)):
        return load_cases(cases)
    return [cases] if isinstance(cases, Case) else list(cases)


@contextmanager
def _specs(backends: Sequence[Any]) -> Iterator[tuple[list[str], list[str]]]:
    """(names, objects) as words that name backends; an object is an attribute of a module that exists meanwhile."""
    from lnbench import pool
    from lnbench.backend import is_backend

    module = ModuleType(f"lnbench_objects_{next(_numbers)}")
    module.__spec__ = ModuleSpec(module.__name__, None)
    names: list[str] = []
    objects: list[str] = []
    for backend in backends:
        if isinstance(backend, (str, Path)):
            names += pool.expand(str(backend))
        elif is_backend(backend):
            attribute = f"{backend.name}_{len(objects)}"
            setattr(module, attribute, backend)
            objects.append(f"{module.__name__}:{attribute}")
        else:
            raise UsageError(f"{backend!r} is no backend; give a name, a path, or an object of the Backend protocol")
    sys.modules[module.__name__] = module
    try:
        yield names, objects
    finally:
        del sys.modules[module.__name__]
