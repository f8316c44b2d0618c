"""Bugs planted in the native backend's sources: every text is found once, the unpatched build is right, a sample is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from lnbench import config
from lnbench.errors import EnvironmentUnfit, LnbenchError
from lnbench.selftest import killing, native, native_sources
from lnbench.selftest.killing import Target
from lnbench.selftest.mutants import FAMILIES
from lnbench.selftest.native_patches import PATCHES, Edit, Patch
from lnbench.verify import runner

# One in memory, one among threads, one in vector code.
SAMPLE = ("native_workspace_too_small", "native_blocks_share_partials", "native_tail_lanes_count")
NAMES = ("short-rows-float32", "tail-5x17", "rows-45x24", "every-layout-float32")


def read(file: str) -> str:
    return (native_sources.sources() / "src" / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("patch", PATCHES, ids=lambda p: p.name)
def test_every_text_occurs_once_in_the_present_sources(patch: Patch) -> None:
    changed = native_sources.patched(patch, read)
    assert all(text != read(file) for file, text in changed.items())
    assert patch.family in FAMILIES and patch.name.startswith("native_")


def test_names_are_unique_and_no_others() -> None:
    names = [p.name for p in PATCHES]
    assert len(names) >= 12 and len(set(names)) == len(names)
    assert not set(names) & {p.name for p in native.PLANTED}


@pytest.mark.parametrize("text", ["no such text", "int64_t"])
def test_a_text_that_does_not_occur_once_is_named(text: str) -> None:
    patch = Patch("native_x", "E", "", (), (Edit("forward.c", text, ""),))
    with pytest.raises(LnbenchError, match=f"native_x: its text occurs .* times in forward.c, not once: '{text}'"):
        native_sources.patched(patch, read)


def test_without_sources_the_next_step_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native_sources, "PLACES", (tmp_path,))
    with pytest.raises(EnvironmentUnfit, match="install lnbench again"):
        native_sources.build_all(tmp_path / "out")


@pytest.mark.slow
def test_the_sources_as_they_are_pass_and_a_sample_of_bugs_is_found(tmp_path: Path) -> None:
    built = native_sources.build_all(tmp_path, [p for p in PATCHES if p.name in SAMPLE])
    cases = [c for c in config.load("ci") if c.label in NAMES]
    assert len(cases) == len(NAMES)
    for verdict in runner.run(cases, [str(built[""])], runner.Options()):
        assert verdict.accepted, f"{verdict.case.label} {verdict.check} {verdict.output}: {verdict.reason}"
    for name in SAMPLE:
        target = Target(name, "I", "", "layer_norm", str(built[name]), dies=True)
        assert not killing.hunt(target, cases).survived, name
