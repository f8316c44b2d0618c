"""A plain C kernel in the style of llm.c, wrapped in a few lines, is verified like any other backend."""

from __future__ import annotations

import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

import lnbench
from lnbench import Status

SOURCE = Path(__file__).parents[2] / "docs" / "examples" / "llmc_style.c"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    made = tmp_path_factory.mktemp("llmc") / "libllmc.so"
    include = files("lnbench_backends") / "include"
    subprocess.run(
        [compiler, "-std=c11", "-O2", "-fPIC", "-shared", "-Wall", "-Werror", f"-I{include}", "-o", made, SOURCE, "-lm"],
        check=True, timeout=60,
    )  # fmt: skip
    return str(made)


def test_the_wrapper_is_short() -> None:
    kernel, wrapper = SOURCE.read_text().split("/* --- wrapper --- */")
    assert len(wrapper.strip().splitlines()) < 60
    assert "lnb_" not in kernel


def test_it_passes(library: str) -> None:
    verdicts = lnbench.verify(library, "smoke")
    assert {v.status for v in verdicts} == {Status.PASSED, Status.SKIPPED}
    assert {v.output for v in verdicts if v.status is Status.PASSED} >= {"y", "mean", "rstd", "dx", "dgamma", "dbeta"}
    assert {v.backend for v in verdicts} == {library}


def test_what_the_kernel_cannot_do_is_skipped_with_its_reason(library: str) -> None:
    cases = [lnbench.Case(shape=(3, 4), epsilon=0.5), lnbench.Case(shape=(3, 4), layout="row_padded")]
    reasons = {v.reason for v in lnbench.verify(library, cases) if v.check == "bound"}
    assert reasons == {"the kernel's epsilon is 1e-5", "the kernel takes contiguous rows only"}
