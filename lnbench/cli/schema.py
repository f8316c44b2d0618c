"""`lnbench schema`: the JSON Schema of case files, so that editors complete and check them."""

from __future__ import annotations

import click

from lnbench.cli._output import print_json


@click.command("schema")
def command() -> None:
    """Print the JSON Schema of case files.

    Point your editor at it, for example with a first line
    `# yaml-language-server: $schema=lnbench.schema.json`.
    """
    from lnbench import config

    print_json(config.schema())
