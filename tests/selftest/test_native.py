"""The bugs that live in C: the kernel without a macro is right, a macro makes it wrong, and no compiler is no crash."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lnbench import config
from lnbench.errors import EnvironmentUnfit
from lnbench.selftest import killing, native, run
from lnbench.selftest.killing import Target
from lnbench.verify import runner

NAMES = ("short-rows-float32", "tail-5x17", "rows-0x24", "rows-45x24", "every-layout-float32", "no-gamma")


def target(library: Path) -> Target:
    return Target(library.stem, "I", "", "layer_norm", str(library), dies=True)


def test_the_kernel_without_a_macro_is_right(tmp_path: Path) -> None:
    cases = [c for c in config.load("ci") if c.label in NAMES]
    assert len(cases) == len(NAMES)
    library = native.build(tmp_path)
    for verdict in runner.run(cases, [str(library)], runner.Options()):
        assert verdict.accepted, f"{verdict.case.label} {verdict.check} {verdict.output}: {verdict.reason}"


@pytest.mark.parametrize("name", ["c_reads_past_row", "c_race_on_dgamma"])
def test_a_macro_plants_a_bug_that_is_found(name: str, tmp_path: Path) -> None:
    planted = next(p for p in native.PLANTED if p.name == name)
    cases = [c for c in config.load("ci") if c.label in ("tail-5x17", "rows-45x24")]
    assert not killing.hunt(target(native.build(tmp_path, planted.macro, planted.name)), cases).survived


def test_macros_of_the_list_and_of_the_file_are_the_same() -> None:
    used = set(re.findall(r"MUTANT_[A-Z_]*[A-Z]", native.SOURCE.read_text(encoding="utf-8")))
    assert used == {p.macro for p in native.PLANTED}


def test_without_a_compiler_the_rest_is_planted_and_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(EnvironmentUnfit, match="install gcc or clang"):
        native.build(tmp_path)
    targets, reason = run.targets(tmp_path)
    assert len(targets) >= 110
    assert "no C compiler" in reason


def test_a_compiler_that_fails_is_told_with_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "cc -no-such-flag-of-cc")
    with pytest.raises(EnvironmentUnfit, match="no-such-flag"):
        native.build(tmp_path)
