"""Who may import whom: every import statement of the package, held against one table."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lnbench
import lnbench_backends

ROOT = Path(lnbench.__file__).parent
BACKENDS = Path(lnbench_backends.__file__).parent

# A module may import what stands in its own row or in a row above it.
LAYERS = (
    ("errors", "numerics", "digest", "callable_module", "probe", "places"),
    ("case", "config", "operators", "laws", "layouts", "memory"),
    ("backend", "library", "registry", "protocol", "buffers", "blame"),
    ("postmortem", "process", "prepared", "worker", "handle", "pool"),
    ("verify", "bench"),
    ("results", "machine"),
    ("report",),
    ("api", "testing", "conformance", "scaffold", "selftest", "fuzz"),
    ("cli", "__main__"),
)
LAYER = {name: depth for depth, names in enumerate(LAYERS) for name in names}
ONLY_IN = {"click": {"cli", "__main__"}, "rich": {"report"}, "pandas": {"report"}, "hypothesis": {"fuzz", "selftest"}}
FRAMEWORKS = {"torch", "jax", "onnxruntime", "onnx", "keras", "tensorflow"}
FILES = sorted(p for p in ROOT.rglob("*.py") if "templates" not in p.parts)


def imported(path: Path, *, top_only: bool = False) -> Iterator[str]:
    """Full names of what a file imports, those only for type checkers left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes: list[ast.AST] = list(tree.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            nodes += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        if not (top_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))):
            nodes += ast.iter_child_nodes(node)


def home(path: Path) -> str:
    """The module or package of lnbench that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_what_stands_beside_or_below_it(path: Path) -> None:
    own = home(path)
    if own == "__init__":
        assert {name.partition(".")[0] for name in imported(path)} <= {"__future__", "importlib", "typing"}
        return
    assert own in LAYER, f"place {own!r} in the table of this test"
    for name in imported(path):
        first, *rest = name.split(".")
        assert first != "lnbench_backends", f"{path.name} imports a backend"
        if first in ONLY_IN:
            assert own in ONLY_IN[first], f"{path.name} imports {first}"
        if first != "lnbench" or not rest or rest[0] not in LAYER:
            continue
        assert LAYER[rest[0]] <= LAYER[own], f"{path.name} ({own}) imports {name}"
        assert {own, rest[0]} != {"verify", "bench"}, (
            f"{path.name} imports {name}: verify and bench do not know each other"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_framework_is_imported_by_the_core(path: Path) -> None:
    if home(path) not in ("testing",):
        assert not FRAMEWORKS & {name.partition(".")[0] for name in imported(path)}


@pytest.mark.parametrize("path", sorted(BACKENDS.glob("*.py")), ids=lambda p: p.name)
def test_backends_use_only_the_public_face(path: Path) -> None:
    for name in imported(path):
        if name == "lnbench" or name.startswith("lnbench."):
            assert name.startswith(("lnbench.backend.", "lnbench.case.", "lnbench.errors.")), f"{path.name}: {name}"
            assert not name.rpartition(".")[2].startswith("_"), f"{path.name} imports the private {name}"
    assert not FRAMEWORKS & {n.partition(".")[0] for n in imported(path, top_only=True)} or path.name.startswith("_")


def loaded_after(code: str) -> set[str]:
    """Top-level and lnbench modules that a fresh interpreter holds after running `code`."""
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_help_loads_nothing_heavy() -> None:
    loaded = loaded_after(
        "from click.testing import CliRunner\n"
        "from lnbench.cli._app import app\n"
        "result = CliRunner().invoke(app, ['--help'])\n"
        "assert result.exit_code == 0 and 'verify' in result.output, result.output"
    )
    heavy = {"numpy", "pandas", "rich", "scipy", "pydantic", "yaml", "psutil", "ml_dtypes", "hypothesis", *FRAMEWORKS}
    assert not heavy & loaded
    assert "lnbench.case" not in loaded


def test_importing_the_package_loads_nothing_else() -> None:
    loaded = loaded_after("import lnbench\nlnbench.Unsupported")
    assert {m for m in loaded if m.startswith("lnbench.")} == {"lnbench.errors"}


def test_every_public_name_resolves() -> None:
    for name in lnbench.__all__:
        assert getattr(lnbench, name) is not None
