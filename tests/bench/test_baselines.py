"""Recipes: what is stored, what is run again, and what happens when the old backend has changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lnbench.bench import baselines
from lnbench.bench.record import Row, Word
from lnbench.case import Case
from lnbench.errors import EnvironmentUnfit, ResultsError, UsageError

CASE = Case(shape=(4, 8))


def rows(spec: str, seconds: float = 1e-3) -> list[Row]:
    common = {"case": CASE, "pass_": "forward", "baseline": spec, "backend": spec}
    return [Row(**common, verdict=Word.BASELINE, seconds=seconds)]  # type: ignore[arg-type]


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text("backend = 1\n")
    return path


def stored(plugin: Path, attribute: str = "") -> baselines.Recipe:
    folder = plugin.parent / "baselines"
    spec = f"{plugin}{attribute}"
    baselines.save("old", spec, rows(spec), described={"version": "1"}, folder=folder)
    return baselines.load("old", folder)


def test_a_recipe_holds_how_to_start_hashes_versions_and_numbers(plugin: Path) -> None:
    recipe = stored(plugin, ":fast")
    assert recipe.spec == f"{plugin}:fast" and recipe.copy == "mine.py:fast"
    assert recipe.files == {str(plugin): baselines.sha256(plugin)}
    assert recipe.described == {"version": "1"} and "numpy" in recipe.versions
    assert [(n.key, n.seconds) for n in recipe.numbers] == [(CASE.key, 1e-3)]


def test_an_unchanged_backend_is_run_where_it_is(plugin: Path) -> None:
    again = baselines.restart(stored(plugin), plugin.parent / "baselines")
    assert (again.spec, again.note) == (str(plugin), "")


@pytest.mark.parametrize("attribute", ["", ":fast"])
def test_a_changed_backend_is_run_from_its_copy_and_that_is_said(plugin: Path, attribute: str) -> None:
    folder = plugin.parent / "baselines"
    recipe = stored(plugin, attribute)
    plugin.write_text("backend = 2\n")
    again = baselines.restart(recipe, folder)
    assert again.spec == f"{folder / 'old' / 'mine.py'}{attribute}" and "has changed" in again.note
    plugin.unlink()
    assert "is gone" in baselines.restart(recipe, folder).note


def test_a_changed_backend_without_its_copy_cannot_be_run_again(plugin: Path) -> None:
    folder = plugin.parent / "baselines"
    recipe = stored(plugin)
    plugin.write_text("backend = 2\n")
    (folder / "old" / "mine.py").write_text("backend = 3\n")
    with pytest.raises(EnvironmentUnfit, match="--trust-stored"):
        baselines.restart(recipe, folder)


def test_an_installed_backend_of_another_version_or_build_cannot_be_run_again(tmp_path: Path) -> None:
    baselines.save("np", "numpy", rows("numpy"), described={}, folder=tmp_path)
    path = tmp_path / "np" / "recipe.json"
    assert baselines.restart(baselines.load("np", tmp_path), tmp_path).spec == "numpy"
    document = json.loads(path.read_text())
    assert "files of lnbench_backends" in document["versions"]
    document["versions"]["files of lnbench_backends"] = "0" * 16
    path.write_text(json.dumps(document))
    with pytest.raises(EnvironmentUnfit, match="files of lnbench_backends 0000000000000000 is now"):
        baselines.restart(baselines.load("np", tmp_path), tmp_path)


@pytest.mark.parametrize("name", ["../x", "", "a b", "-x", "/etc"])
def test_names_that_are_paths_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no name for a baseline"):
        baselines.load(name, tmp_path)


def test_a_missing_baseline_names_those_that_are_there(plugin: Path) -> None:
    stored(plugin)
    with pytest.raises(UsageError, match=r"there are old.*--baseline-lenient"):
        baselines.load("new", plugin.parent / "baselines")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1, "numbers": 3}'])
def test_a_broken_recipe_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "recipe.json").write_text(text)
    with pytest.raises(ResultsError):
        baselines.load("bad", tmp_path)


@pytest.mark.parametrize(("seconds", "word"), [(1.04e-3, Word.SAME), (1.2e-3, Word.SLOWER), (0.8e-3, Word.FASTER)])
def test_stored_numbers_advise_and_decide_only_when_trusted(plugin: Path, seconds: float, word: Word) -> None:
    recipe = stored(plugin)
    [advice] = baselines.historical(rows(str(plugin), seconds), recipe, 0.02, trust=False)
    assert advice.verdict is Word.UNRESOLVED and "stored numbers only advise" in advice.reason
    assert advice.baseline == "@old (historical)" and advice.ratio == pytest.approx(seconds / 1e-3)
    [decided] = baselines.historical(rows(str(plugin), seconds), recipe, 0.02, trust=True)
    assert decided.verdict is word
