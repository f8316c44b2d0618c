"""The command group: finds commands by their files, and turns every way to fail into one sentence and an exit code."""

from __future__ import annotations

import os
import pkgutil
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from lnbench.errors import Exit, LnbenchError, nearest

TRACEBACK = "LNBENCH_TRACEBACK"


class Commands(click.Group):
    """A group whose commands are the modules of `lnbench.cli`, imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        import lnbench.cli as package

        return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command = import_module(f"lnbench.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        names = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in names:
            raise click.UsageError(
                f"no such command {args[0]!r}{nearest(args[0], names)}; commands: {', '.join(names)}", ctx
            )
        return super().resolve_command(ctx, args)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        return _leave(self._guarded(args, prog_name, complete_var, **extra))

    def _guarded(
        self, args: Sequence[str] | None, prog_name: str | None, complete_var: str | None, **extra: Any
    ) -> int:
        try:
            return int(super().main(args, prog_name, complete_var, standalone_mode=False, **extra) or 0)
        except click.ClickException as error:
            return _complain(_one_line(error), error.exit_code)
        except click.Abort:
            return Exit.INTERRUPTED
        except LnbenchError as error:
            return _complain(str(error), error.exit_code)
        except Exception as error:
            return _bug(error)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader, `head` for example, has seen enough
            return Exit.OK


def _one_line(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{text}; see '{context.command_path} --help'" if context is not None else text


def _complain(sentence: str, code: int) -> int:
    if os.environ.get(TRACEBACK):
        import traceback

        traceback.print_exc()
    click.echo(f"lnbench: error: {' '.join(sentence.split())}", err=True)
    return int(code)


def _bug(error: Exception) -> int:
    """An exception that no user can cause: said to be ours, without a traceback unless asked for."""
    kind = f"{type(error).__name__}: {error}".rstrip(": ")
    hint = "" if os.environ.get(TRACEBACK) else f"; set {TRACEBACK}=1 to see where, and please report it"
    return _complain(f"internal error, a bug of lnbench ({kind}){hint}", Exit.FAILED)


def _leave(code: int) -> NoReturn:
    """Exits; a reader that has gone away must not turn the exit code into another one."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        import lnbench

        click.echo(f"lnbench {lnbench.__version__}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Print the version and exit."
)
def app() -> None:
    """Verify and benchmark implementations of layer normalization and its relatives.

    \b
    lnbench verify                        check the shipped backends on the suite `ci`
    lnbench verify models --backend B     check one backend (a name, file.py, module:attribute or lib.so)
    lnbench bench models --baseline B     measure and compare
    """
