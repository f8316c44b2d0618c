"""docs/cli.md says what the command line takes: every command and every long option, and nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from lnbench.cli._app import app

TEXT = (Path(__file__).parents[1] / "docs" / "cli.md").read_text(encoding="utf-8")
CONTEXT = click.Context(app)
COMMANDS = {name: app.get_command(CONTEXT, name) for name in app.list_commands(CONTEXT)}


def long_options(command: click.Command | None) -> set[str]:
    assert command is not None
    return {o for p in command.params if isinstance(p, click.Option) for o in p.opts if o.startswith("--")}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_each_of_its_long_options_is_on_the_page(name: str) -> None:
    assert re.search(rf"^\| `{name}\b", TEXT, re.MULTILINE), f"{name} is not in the table of commands"
    missing = sorted(o for o in long_options(COMMANDS[name]) if not re.search(rf"{o}(?![\w-])", TEXT))
    assert not missing, f"{name}: {', '.join(missing)}"


def test_no_option_is_on_the_page_that_no_command_has() -> None:
    known = {o for command in COMMANDS.values() for o in long_options(command)} | {"--help", "--version"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT)) <= known


def test_every_option_says_what_it_does() -> None:
    for name, command in COMMANDS.items():
        assert command is not None
        assert command.help, name
        assert not [p.name for p in command.params if isinstance(p, click.Option) and not p.help], name
