"""The command line: one file per command; the only place that prints or exits.

A command is a module of this package that defines `command`, a click command; a module whose name begins with an
underscore is shared by several. Modules import only click and `lnbench.errors` at their top, so that `--help` is quick.
"""

from __future__ import annotations


def main() -> None:
    """The console script: runs `lnbench ARGUMENTS...` and exits with one of `lnbench.errors.Exit`."""
    from lnbench.cli._app import app

    app.main(prog_name="lnbench")
