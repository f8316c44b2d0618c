"""Builds the native backend's own sources with a bug planted by text: real memory, real threads, real vector code.

Compiled without specialisation, for one instruction set besides plain C, and with thresholds so low that small cases reach
every path. Objects that a patch does not touch are compiled once.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lnbench.errors import EnvironmentUnfit, LnbenchError
from lnbench.selftest.native import compiler
from lnbench.selftest.native_patches import PATCHES, Patch

# Beside this file in an installed package, in its own folder in a checkout.
PLACES = (Path(__file__).with_name("sources"), Path(__file__).parents[2] / "backends" / "native")
FLAGS = (
    "-std=c11", "-D_GNU_SOURCE", "-O1", "-ffp-contract=off", "-fno-math-errno", "-fno-lto", "-fPIC",
    "-fvisibility=hidden", "-w", "-DLNB_PLAIN_INLINE", "-DLNB_STREAM_BYTES=4096", "-DLNB_AHEAD_BYTES=4096",
    "-DLNB_ELEMENTS_PER_THREAD=64",
)  # fmt: skip
TARGETS = {"x86_64": ("avx2", ("-mavx2", "-mfma", "-mf16c")), "aarch64": ("neon", ())}
# The kernels are the files that include headers with code; the others are the same for every target.
KERNELS, REST = ("forward.c", "backward.c"), ("lnbench.c", "layer_norm.c", "check.c", "pool.c", "cpu.c")
OF_ONE = {"forward_rows.h": "forward.c", "backward_sums.h": "backward.c", "backward_rows.h": "backward.c"}
ONLY_KERNELS = ("statistics.h", "kernel.h", "simd/")


@dataclass(frozen=True, slots=True)
class Unit:
    """One object file: its source and its own flags."""

    source: str
    flags: tuple[str, ...]
    name: str

    def includes(self, file: str) -> bool:
        """Whether a change of `file` (below src) may change the object."""
        if file.endswith(".c"):
            return file == self.source
        if file in OF_ONE:
            return self.source == OF_ONE[file]
        return self.source in KERNELS or not file.startswith(ONLY_KERNELS)


def sources() -> Path:
    """The folder that holds src and include. Raises EnvironmentUnfit."""
    for place in PLACES:
        if (place / "src" / "layer_norm.c").is_file():
            return place
    raise EnvironmentUnfit(
        "the sources of the native backend are not installed; install lnbench again, or use a checkout"
    )


def patched(patch: Patch, read: Callable[[str], str]) -> dict[str, str]:
    """The files that `patch` changes, by name. Raises LnbenchError where a text does not occur exactly once."""
    changed: dict[str, str] = {}
    for edit in patch.edits:
        text = changed.get(edit.file) or read(edit.file)
        if (count := text.count(edit.text)) != 1:
            raise LnbenchError(
                f"planted bug {patch.name}: its text occurs {count} times in {edit.file}, not once: {edit.text!r}; "
                "adapt lnbench/selftest/native_patches.py to the sources"
            )
        changed[edit.file] = text.replace(edit.text, edit.replacement)
    return changed


def units() -> list[Unit]:
    """Everything that a library consists of on this machine."""
    own = TARGETS.get(platform.machine())
    chosen = [("baseline", ())] if own is None else [("baseline", ()), own]
    found = [Unit(s, tuple(f"-DLNB_COMPILED_{name}" for name, _ in chosen), s) for s in REST]
    for name, flags in chosen:
        for real in (32, 64):
            define = (f"-DLNB_TARGET={name}", f"-DLNB_TARGET_{name.upper()}=1", f"-DLNB_REAL={real}")
            found += [Unit(s, (*flags, *define), f"{name}{real}_{s}") for s in KERNELS]
    return found


def build_all(folder: Path, patches: Sequence[Patch] = PATCHES, jobs: int | None = None) -> dict[str, Path]:
    """Builds the library right (under the name "") and once for each patch into `folder`.

    Raises EnvironmentUnfit without sources or compiler, LnbenchError where a patch does not fit the sources.
    """
    root, command = sources(), compiler()
    trees = {"": folder / "native"}
    shutil.copytree(root / "src", trees[""] / "src")
    work = [("", unit) for unit in units()]
    for patch in patches:
        changed = patched(patch, lambda file: (root / "src" / file).read_text(encoding="utf-8"))
        trees[patch.name] = folder / patch.name
        shutil.copytree(root / "src", trees[patch.name] / "src")
        for file, text in changed.items():
            (trees[patch.name] / "src" / file).write_text(text, encoding="utf-8")
        work += [(patch.name, u) for u in units() if any(u.includes(f) for f in changed)]

    def make(job: tuple[str, Unit]) -> None:
        tree, unit = trees[job[0]], job[1]
        include = ("-I", str(tree / "src"), "-I", str(root / "include"))
        _run(
            [
                *command,
                *FLAGS,
                *unit.flags,
                *include,
                "-c",
                str(tree / "src" / unit.source),
                "-o",
                str(tree / f"{unit.name}.o"),
            ]
        )

    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        list(pool.map(make, work))
        return dict(pool.map(lambda name: (name, _link(command, folder, trees, name)), trees))


def _link(command: Sequence[str], folder: Path, trees: dict[str, Path], name: str) -> Path:
    objects = [t if (t := trees[name] / f"{u.name}.o").exists() else trees[""] / f"{u.name}.o" for u in units()]
    library = folder / f"{name or 'native_correct'}.so"
    _run([*command, "-shared", "-o", str(library), *map(str, objects), "-lm", "-lpthread"])
    return library


def _run(command: Iterable[str]) -> None:
    done = subprocess.run(list(command), capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise EnvironmentUnfit(f"the C compiler failed on the native sources: {done.stderr.strip()}")
