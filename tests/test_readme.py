"""The README is true: its commands parse, those that are quick run, its example verifies, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from lnbench.cli._app import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """Lines of shell blocks that call lnbench, up to a pipe, and calls within a sentence that name an option."""
    text = page.read_text(encoding="utf-8")
    lines = [line.partition(" | ")[0] for block in blocks("sh", text) for line in block.splitlines()]
    inline = re.findall(r"`(lnbench [a-z]+ [^`|]*--[^`|]*)`", text)
    return list(dict.fromkeys(c for c in (*lines, *inline) if c.startswith("lnbench ") and "..." not in c))


def parsed(command: str) -> tuple[click.Command, list[str]]:
    """The click command and its arguments; raises click's UsageError for what it would refuse."""
    _, name, *arguments = shlex.split(command, comments=True)
    found = app.get_command(click.Context(app), name)
    assert found is not None, f"no command {name!r}"
    return found, arguments


@pytest.mark.parametrize(("page", "command"), [(p.name, c) for p in PAGES for c in commands(p)])
def test_every_command_in_the_pages_is_one_that_lnbench_takes(page: str, command: str) -> None:
    found, arguments = parsed(command)
    if "--help" not in arguments:
        found.make_context(str(found.name), list(arguments))


RUNNABLE = [c for c in commands(ROOT / "README.md") if re.match(r"lnbench (verify smoke|list|show)\b", c)]
SHORT = [
    *RUNNABLE,
    "lnbench show layer_norm",
    *(f"lnbench list {w}" for w in ("operators", "laws", "layouts", "suites")),
]


@pytest.mark.parametrize("command", SHORT)
def test_quick_commands_of_the_readme_work(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, shlex.split(command, comments=True)[1:])
    assert result.exit_code == 0, result.output


def test_the_readme_still_names_the_commands_that_are_tried_here() -> None:
    assert RUNNABLE and "`lnbench show layer_norm`" in README
    assert "`lnbench list backends|operators|cases|laws|layouts|suites`" in README


def test_the_example_of_a_backend_verifies(tmp_path: Path) -> None:
    [example] = [b for b in blocks("python") if "FunctionBackend" in b]
    (tmp_path / "mine.py").write_text(example, encoding="utf-8")
    command = [sys.executable, "-m", "lnbench", "verify", "smoke", "--backend", "mine.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.search(r": [1-9]\d* PASSED(, \d+ SKIPPED)? in ", done.stderr.splitlines()[-1])


def anchors(page: Path) -> set[str]:
    """What a link to a heading of a page may be called."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_to_pages_that_are_there_lead_to_headings_that_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path) if path else page
        assert there.exists() or there.parent == ROOT / "docs", f"{page.name} links to {target}"
        if anchor and there.exists():
            assert anchor in anchors(there), f"{page.name} links to {target}"


def test_the_readme_names_every_page() -> None:
    for page in PAGES[1:]:
        assert f"(docs/{page.name})" in README, f"{page.name} is in no table of the README"


def test_exit_codes_are_those_of_the_program() -> None:
    from lnbench.errors import Exit

    for page in (ROOT / "README.md", ROOT / "docs" / "cli.md"):
        codes = {int(n) for n in re.findall(r"^\| (\d+) \|", page.read_text(encoding="utf-8"), re.MULTILINE)}
        assert codes == {int(e) for e in Exit}
