"""`lnbench init`: the project it writes builds and verifies with one command, in every language."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from lnbench import errors, scaffold
from lnbench.cli._app import app

TOOLS = {"python": "make", "c": "cc", "cpp": "c++", "rust": "cargo"}


def make(folder: Path, *targets: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONWARNINGS": ""}
    return subprocess.run(
        ["make", *targets, f"LNBENCH={sys.executable} -m lnbench"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("language", scaffold.LANGUAGES)
def test_the_project_builds_and_passes_with_one_command(language: str, tmp_path: Path) -> None:
    for tool in ("make", TOOLS[language]):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} here")
    folder = tmp_path / "new" / language
    scaffold.create(language, folder)
    done = make(folder, "verify")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stderr
    last = (done.stdout + done.stderr).strip().splitlines()[-1]
    assert "PASSED" in last and "FAILED" not in last and "SKIPPED" not in last and "UNSTABLE" not in last


@pytest.mark.parametrize("language", scaffold.LANGUAGES)
def test_the_project_holds_what_its_readme_names(language: str, tmp_path: Path) -> None:
    written = scaffold.create(language, tmp_path)
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()) == written
    readme = (tmp_path / "README.md").read_text()
    for path in written:
        if path.name not in ("README.md", ".gitignore", "Cargo.toml"):
            assert f"`{path}`" in readme, f"README.md does not name {path}"
    assert "make verify" in readme
    assert "make verify" in (tmp_path / ".github/workflows/verify.yml").read_text()


@pytest.mark.parametrize("language", ["c", "cpp"])
def test_the_project_verifies_a_kernel_that_was_broken(language: str, tmp_path: Path) -> None:
    if shutil.which(TOOLS[language]) is None:
        pytest.skip("no compiler here")
    scaffold.create(language, tmp_path)
    kernel = tmp_path / ("kernel.h" if language == "c" else "kernel.hpp")
    text = kernel.read_text()
    assert "g - mean_g -" in text or "g(i) - mean_g -" in text
    kernel.write_text(text.replace("g - mean_g -", "g -").replace("g(i) - mean_g -", "g(i) -"))
    done = make(tmp_path, "verify")
    assert done.returncode != 0
    assert "FAILED" in done.stderr + done.stdout and "dx" in done.stderr + done.stdout


@pytest.mark.parametrize("language", ["c", "cpp"])
def test_the_library_refuses_by_codes_and_reasons(language: str, tmp_path: Path) -> None:
    import ctypes

    if shutil.which(TOOLS[language]) is None:
        pytest.skip("no compiler here")
    scaffold.create(language, tmp_path)
    assert make(tmp_path, "libmine.so").returncode == 0
    library = ctypes.CDLL(str(tmp_path / "libmine.so"))
    library.lnb_reason.restype = ctypes.c_char_p
    call = (ctypes.c_int32 * 64)()
    assert library.lnb_layer_norm_forward(call) == 2 and b"older" in library.lnb_reason()
    call[0], call[1] = 256, 3
    assert library.lnb_layer_norm_forward(call) == 1 and b"float32 and float64" in library.lnb_reason()


def test_the_command_lists_files_on_stdout_and_the_next_step_on_stderr(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["init", "--lang", "c", str(tmp_path / "a dir")])
    assert done.exit_code == 0
    assert "mine.c" in done.stdout.splitlines() and "lnbench.h" in done.stdout.splitlines()
    assert done.stderr.strip() == f"next: cd '{tmp_path}/a dir' && make verify"


def test_a_directory_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.c").write_text("precious")
    done = CliRunner().invoke(app, ["init", "--lang", "c", str(tmp_path)])
    assert done.exit_code == errors.Exit.USAGE
    assert done.stderr.startswith("lnbench: error:") and "not empty" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["mine.c"] and (tmp_path / "mine.c").read_text() == "precious"


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    for target in (tmp_path / "x", tmp_path / "x" / "y"):
        with pytest.raises(errors.UsageError, match=r"name (a new|another) directory"):
            scaffold.create("c", target)


def test_an_unknown_language_names_the_nearest() -> None:
    with pytest.raises(errors.UsageError, match="did you mean 'rust'"):
        scaffold.create("rusty", "unused")


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    assert Path("mine.py") in scaffold.create("python", tmp_path)


def test_the_python_project_passes_its_own_pytest(tmp_path: Path) -> None:
    scaffold.create("python", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout
