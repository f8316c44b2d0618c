"""From a word to a backend, and the sentence when there is none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lnbench import registry
from lnbench.errors import BackendBroken, Unavailable, UnknownBackend


@pytest.mark.parametrize(
    ("spec", "kind", "place", "attribute"),
    [
        ("numpy", "name", "numpy", ""),
        ("a/b.py", "file", "a/b.py", ""),
        ("b.py:one", "file", "b.py", "one"),
        ("pkg.mod:Class", "module", "pkg.mod", "Class"),
        ("lib/libx.so", "library", "lib/libx.so", ""),
        ("libx.so.1", "library", "libx.so.1", ""),
        ("libx.dylib", "library", "libx.dylib", ""),
        ("no/such", "file", "no/such", ""),
    ],
)
def test_a_spec_is_split_by_its_form(spec: str, kind: str, place: str, attribute: str) -> None:
    assert registry.split(spec) == (kind, place, attribute)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("no/such.py", "there is no file no/such.py"),
        ("no/such.so", "there is no file no/such.so"),
        ("no/such", "there is no file no/such"),
        ("surely_no_such_backend", "unknown backend 'surely_no_such_backend'"),
        ("surely.no.such", "for a module write surely.no.such:ATTRIBUTE"),
        ("surely.no.such:Thing", "there is no module surely"),
        ("json:nothing", "nothing there is called 'nothing'"),
    ],
)
def test_what_names_nothing_is_said_so(spec: str, words: str) -> None:
    with pytest.raises(UnknownBackend, match=words):
        registry.resolve(spec)


def test_a_near_miss_gets_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    points = [EntryPoint("numpy", "json:loads", registry.GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    assert registry.names() == ("numpy",)
    with pytest.raises(UnknownBackend, match="did you mean 'numpy'"):
        registry.check("nunpy")
    with pytest.raises(BackendBroken, match="is a function and no backend: it lacks name, describe"):
        registry.resolve("numpy")


def test_a_file_gives_objects_made_there_but_not_imported_ones(
    write: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "elsewhere_mine.py").write_text(
        "from lnbench import FunctionBackend\nother = FunctionBackend('other')\n"
    )
    path = write(top="from elsewhere_mine import other")
    assert registry.resolve(path).name == "mine"
    assert registry.candidates(path) == [path]
    assert registry.resolve(f"{path}:other").name == "other"


def test_an_alias_of_a_backend_counts_once(write: Callable[..., str]) -> None:
    path = write()
    Path(path).write_text(Path(path).read_text() + "\nalso = backend\n")
    assert registry.candidates(path) == [path]


def test_a_class_is_called_and_a_file_without_object_says_what_to_write(tmp_path: Path) -> None:
    path = tmp_path / "kinds.py"
    path.write_text(
        "class Mine:\n    name = 'mine'\n    def describe(self): return {}\n"
        "    def supports(self, case): return None\n    def prepare(self, *a): return None\n"
    )
    assert registry.resolve(f"{path}:Mine").name == "mine"
    with pytest.raises(UnknownBackend, match=r"it defines the class Mine: name it .*kinds\.py:Mine"):
        registry.resolve(str(path))
    path.write_text("x = 1\n")
    with pytest.raises(UnknownBackend, match="binds no backend object"):
        registry.resolve(str(path))
    with pytest.raises(BackendBroken, match="is a int and no backend"):
        registry.resolve(f"{path}:x")


def test_import_errors_tell_missing_packages_from_broken_files(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("import surely_not_installed\n")
    with pytest.raises(Unavailable, match="needs something that is not installed: No module named 'surely_not"):
        registry.resolve(str(path))
    path.write_text("x = 1\n1 / 0\n")
    with pytest.raises(BackendBroken, match=r"ZeroDivisionError: division by zero \(.*bad.py:2\)"):
        registry.resolve(str(path))
    path.write_text("def broken(:\n")
    with pytest.raises(BackendBroken, match="SyntaxError"):
        registry.resolve(str(path))


def test_a_file_named_like_a_package_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "psutil.py"
    path.write_text(
        "import psutil\nfrom lnbench import FunctionBackend\nb = FunctionBackend('p')\nassert psutil.Process\n"
    )
    assert registry.resolve(str(path)).name == "p"
