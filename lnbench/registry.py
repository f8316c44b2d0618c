"""From a word that a user typed to a backend, with a reason when there is none.

`resolve` and `candidates` run inside a worker: they import what the word names. `names` and `check` are for the
parent, which imports no backend.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from lnbench.backend import Backend, is_backend
from lnbench.errors import BackendBroken, LnbenchError, Unavailable, UnknownBackend, nearest

GROUP = "lnbench.backends"
_LIBRARIES = (".so", ".dylib")
T = TypeVar("T")
_MEMBERS = ("name", "describe", "supports", "prepare")


def names() -> tuple[str, ...]:
    """Names of the installed backends (entry points), without importing them."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def split(spec: str) -> tuple[str, str, str]:
    """(kind, place, attribute) of a spec; kind is "name", "file", "library" or "module". Need not exist."""
    place, _, attribute = spec.rpartition(":")
    if not place:
        place, attribute = spec, ""
    if place.endswith(".py"):
        return "file", place, attribute
    if not attribute and (place.endswith(_LIBRARIES) or ".so." in Path(place).name):
        return "library", place, ""
    if os.sep in spec:
        return ("library" if Path(spec).is_file() else "file"), spec, ""
    return ("module", place, attribute) if attribute else ("name", spec, "")


def check(spec: str) -> None:
    """Raises UnknownBackend when `spec` surely names nothing; imports nothing."""
    kind, place, _ = split(spec)
    if kind == "name":
        _entry_point(place)
    elif kind in ("file", "library") and not Path(place).is_file():
        raise UnknownBackend(
            f"backend {spec!r}: there is no file {place}; give the path of a .py file or a shared library"
        )
    elif kind == "file" and not place.endswith(".py"):
        raise UnknownBackend(f"backend {spec!r} is neither a .py file nor a shared library")


def resolve(spec: str) -> Backend:
    """The backend that `spec` names. Raises UnknownBackend, Unavailable or BackendBroken."""
    check(spec)
    kind, place, attribute = split(spec)
    if kind == "library":
        from lnbench.library import LibraryBackend

        return LibraryBackend(place)
    if kind == "name":
        return _made(spec, _guarded(spec, _entry_point(place).load))
    module = _module(spec, kind, place)
    if attribute:
        return _made(spec, _attribute(spec, module, attribute))
    found = _backends(module)
    if len(found) == 1:
        return found[0][1]
    if found:
        several = ", ".join(f"{place}:{name}" for name, _ in found)
        raise UnknownBackend(f"{place} holds several backends; name one of {several}")
    raise UnknownBackend(f"{place} binds no backend object at its top level; {_advice(place, module)}")


def candidates(spec: str) -> list[str]:
    """The specs of all backends that `spec` stands for: itself, or one per backend of a file that holds several."""
    check(spec)
    kind, place, attribute = split(spec)
    if kind != "file" or attribute:
        return [spec]
    found = _backends(_module(spec, kind, place))
    return [f"{place}:{name}" for name, _ in found] if len(found) > 1 else [spec]


def _entry_point(name: str) -> EntryPoint:
    for point in entry_points(group=GROUP):
        if point.name == name:
            return point
    known = list(names())
    listed = f"installed: {', '.join(known)}" if known else "none is installed"
    if "." in name and not nearest(name, known):
        raise UnknownBackend(f"unknown backend {name!r}; {listed}; for a module write {name}:ATTRIBUTE")
    raise UnknownBackend(
        f"unknown backend {name!r}{nearest(name, known)}; {listed}; or give a .py file or a shared library"
    )


def _module(spec: str, kind: str, place: str) -> ModuleType:
    if kind == "file":
        return _guarded(spec, lambda: _import_file(Path(place)))
    with contextlib.suppress(OSError):  # a working directory that was removed holds no module
        _add_folder(os.getcwd())
    try:
        if importlib.util.find_spec(place) is None:
            raise ModuleNotFoundError(name=place)
    except ModuleNotFoundError as error:
        raise UnknownBackend(
            f"backend {spec!r}: there is no module {error.name}; check the spelling or install it"
        ) from error
    return _guarded(spec, lambda: importlib.import_module(place))


def _add_folder(folder: str) -> None:
    """Makes modules of `folder` importable; last, so that a file named torch.py does not hide torch."""
    if folder not in sys.path:
        sys.path.append(folder)


def _import_file(path: Path) -> ModuleType:
    _add_folder(str(path.resolve().parent))
    name = f"lnbench_user_{path.stem}"
    made = importlib.util.spec_from_file_location(name, path)
    assert made is not None and made.loader is not None
    module = importlib.util.module_from_spec(made)
    sys.modules[name] = module
    made.loader.exec_module(module)
    return module


def _guarded(spec: str, load: Callable[[], T]) -> T:
    """What `load()` gives; whatever it raises says which backend could not be imported, and where."""
    try:
        return load()
    except LnbenchError:
        raise
    except ImportError as error:
        raise Unavailable(f"backend {spec!r} needs something that is not installed: {error}") from error
    except Exception as error:
        raise BackendBroken(
            f"backend {spec!r} could not be imported: {type(error).__name__}: {error}{_line(error)}"
        ) from error


def _line(error: BaseException) -> str:
    trace = error.__traceback__
    last = None
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(("<frozen", os.path.dirname(__file__))):
            last = trace
        trace = trace.tb_next
    return f" ({last.tb_frame.f_code.co_filename}:{last.tb_lineno})" if last is not None else ""


def _attribute(spec: str, module: ModuleType, attribute: str) -> object:
    value: object = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            public = [n for n in vars(value) if not n.startswith("_")]
            raise UnknownBackend(f"backend {spec!r}: nothing there is called {part!r}{nearest(part, public)}")
        value = getattr(value, part)
    return value


def _made(spec: str, value: object) -> Backend:
    """`value` itself, or what the class `value` makes, if it is a backend."""
    if inspect.isclass(value):
        value = _guarded(spec, value)
    if is_backend(value):
        assert isinstance(value, Backend)
        return value
    missing = [m for m in _MEMBERS if not hasattr(value, m)]
    what = f"it lacks {', '.join(missing)}" if missing else "its name is not a string"
    raise BackendBroken(f"backend {spec!r} is a {type(value).__name__} and no backend: {what}")


def _backends(module: ModuleType) -> list[tuple[str, Backend]]:
    """Backend objects bound at the module's top level and created there: none that another module holds too."""
    others = [m for m in list(sys.modules.values()) if m is not module and isinstance(m, ModuleType)]
    elsewhere = {id(value) for other in others for value in list(vars(other).values())}
    found: dict[int, tuple[str, Backend]] = {}
    for name, value in list(vars(module).items()):
        if not name.startswith("__") and is_backend(value) and id(value) not in elsewhere:
            found.setdefault(id(value), (name, value))
    return list(found.values())


def _advice(place: str, module: ModuleType) -> str:
    for name, value in vars(module).items():
        if (
            inspect.isclass(value)
            and value.__module__ == module.__name__
            and all(hasattr(value, m) for m in _MEMBERS[1:])
        ):
            return f"it defines the class {name}: name it {place}:{name}, or add `backend = {name}()`"
    return "add `backend = FunctionBackend(...)` or name one as FILE.py:ATTRIBUTE"
