"""One class per way to fail, each with its exit code; the text is one sentence that ends with the next step.

Knows nothing else of lnbench. Only the command line turns these into printed text and an exit.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the command line; one meaning each."""

    OK = 0
    FAILED = 1
    USAGE = 2
    SLOWER = 3
    UNRESOLVED = 4
    ENVIRONMENT = 5
    CRASHED = 6
    NOTHING_RUN = 7
    INTERRUPTED = 130


# When several conditions hold at once, the first of this order is the exit code.
SEVERITY = (
    Exit.INTERRUPTED,
    Exit.USAGE,
    Exit.CRASHED,
    Exit.FAILED,
    Exit.SLOWER,
    Exit.ENVIRONMENT,
    Exit.NOTHING_RUN,
    Exit.UNRESOLVED,
)


def worst(codes: set[Exit]) -> Exit:
    """The exit code that stands for all of `codes`."""
    for code in SEVERITY:
        if code in codes:
            return code
    return Exit.OK


class LnbenchError(Exception):
    """Base of every error that a user can cause."""

    exit_code: Exit = Exit.FAILED


class UsageError(LnbenchError):
    """A wrong option, value or file."""

    exit_code = Exit.USAGE


class ConfigError(UsageError):
    """A wrong case file: names the file, the line and the key.

    `line` counts from 1; it and `file` are None for a case given inline.
    """

    def __init__(self, message: str, *, file: str | None = None, line: int | None = None, key: str | None = None):
        place = "" if file is None else f"{file}:{line}: " if line is not None else f"{file}: "
        super().__init__(f"{place}{f'key {key!r}: ' if key else ''}{message}")
        self.file, self.line, self.key = file, line, key


class ResultsError(UsageError):
    """A results folder that cannot be read, written or resumed."""


class EnvironmentUnfit(LnbenchError):
    """No such backend, not installed, or a machine that cannot do what was asked."""

    exit_code = Exit.ENVIRONMENT


class UnknownBackend(EnvironmentUnfit):
    """A backend name that resolves to nothing."""


class Unavailable(EnvironmentUnfit):
    """A backend whose framework is not installed; the text holds the install command."""


class BackendBroken(LnbenchError):
    """A backend that raised on import, crashed, hung or exited outside any case."""

    exit_code = Exit.CRASHED


class NothingRun(LnbenchError):
    """The selection left nothing to do."""

    exit_code = Exit.NOTHING_RUN


class Unsupported(Exception):
    """Raised by a backend: the case is SKIPPED with this reason (a sentence). Not an error."""


def nearest(word: str, allowed: list[str]) -> str:
    """A hint such as " (did you mean 'axis'?)", or an empty string."""
    from difflib import get_close_matches

    found = get_close_matches(word, allowed, n=1, cutoff=0.6)
    return f" (did you mean {found[0]!r}?)" if found else ""
