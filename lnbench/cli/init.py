"""`lnbench init --lang LANGUAGE DIR`: writes a small working backend project."""

from __future__ import annotations

import click

from lnbench.scaffold import LANGUAGES


@click.command("init")
@click.option("--lang", "language", type=click.Choice(LANGUAGES), required=True, help="The language to start in.")
@click.argument("directory", type=click.Path(), metavar="DIR")
def command(language: str, directory: str) -> None:
    """Write a small working backend into DIR: source, build file, cases, CI workflow.

    DIR must be new or empty. `make verify` inside it builds and verifies the backend.
    """
    import shlex

    from lnbench import scaffold

    for path in scaffold.create(language, directory):
        click.echo(path)
    click.echo(f"next: cd {shlex.quote(directory)} && make verify", err=True)
