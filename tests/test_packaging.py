"""The wheel: it holds all that lnbench needs, and what it installs works far from this repository."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SUFFIX = ".dylib" if sys.platform == "darwin" else ".so"

pytestmark = pytest.mark.slow


def run(*words: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "SKBUILD", "LNBENCH"))}
    done = subprocess.run(
        [str(w) for w in words], cwd=cwd, env=clean | environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from this tree with the tools of this environment, without the network."""
    pytest.importorskip("scikit_build_core", reason="the build tools are not installed here; see `make wheel`")
    folder = tmp_path_factory.mktemp("wheel")
    tools = str(Path(sys.executable).parent)
    run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"),
        *(ROOT, "--wheel-dir", folder, f"--config-settings=build-dir={folder / 'build'}"),
        cwd=folder,
        PATH=f"{tools}{os.pathsep}{os.environ['PATH']}",
    )
    [path] = folder.glob("lnbench-*.whl")
    return path


def test_the_wheel_holds_everything_and_nothing_of_the_repository_around_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"lnbench/configs/{p.name}" for p in (ROOT / "configs").glob("*.yaml")} <= names
    wanted = {"lnbench/py.typed", f"lnbench/probe/liblnbench_probe{SUFFIX}"}
    assert wanted <= names
    for end in (f"/liblnbench_native{SUFFIX}", "/lnbench.h"):
        assert [n for n in names if n.endswith(end)], f"no {end} in the wheel"
    templates = {p.relative_to(ROOT).as_posix() for p in (ROOT / "lnbench" / "templates").rglob("*") if p.is_file()}
    assert {t for t in templates if "__pycache__" not in t} <= names
    tops = {n.split("/")[0] for n in names}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"lnbench", "lnbench_backends"}


def test_it_works_in_an_empty_environment_outside_the_repository(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    scripts = tmp_path / "env" / "bin"
    python = scripts / "python"
    [site] = (tmp_path / "env" / "lib").glob("python*/site-packages")
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel),
        cwd=tmp_path,
    )
    # What lnbench depends on comes from here; only plain folders, so that an editable lnbench does not.
    links = tmp_path / "dependencies"
    links.mkdir()
    for path in Path(sysconfig.get_path("platlib")).iterdir():
        if "lnbench" not in path.name and not path.name.endswith(".pth") and not path.name.startswith("_editable"):
            (links / path.name).symlink_to(path)
    (site / "dependencies.pth").write_text(f"{links}\n")
    where = run(python, "-c", "import lnbench; print(lnbench.__file__)", cwd=tmp_path).stdout
    assert str(tmp_path) in where
    done = run(scripts / "lnbench", "verify", "smoke", "--jobs", "1", cwd=tmp_path)
    assert " PASSED in " in done.stderr.splitlines()[-1]
    assert run(scripts / "lnbench", "init", "--lang", "c", "mine", cwd=tmp_path).stdout
    header = run(python, "-c", "import lnbench_backends, pathlib; print(lnbench_backends.__path__[0])", cwd=tmp_path)
    assert str(tmp_path) in header.stdout
