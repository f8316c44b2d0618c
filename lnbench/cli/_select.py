"""The language of `-k`: words joined by `and`, `or`, `not` and parentheses; a word matches where it occurs."""

from __future__ import annotations

import re
from collections.abc import Callable

from lnbench.errors import UsageError

Matcher = Callable[[str], bool]
_TOKEN = re.compile(r"\s*([()]|[^\s()]+)")


def matcher(expression: str | None) -> Matcher:
    """A function that says whether a text matches; everything matches no expression.

    Case does not matter. `not` binds tighter than `and`, `and` tighter than `or`. Raises UsageError.
    """
    if expression is None or not expression.strip():
        return lambda text: True
    parser = _Parser(expression)
    found = parser.either()
    parser.end()
    return lambda text: found(text.lower())


class _Parser:
    """Recursive descent; each method returns a matcher for what it has read."""

    def __init__(self, expression: str):
        self._expression = expression
        self._tokens = _TOKEN.findall(expression)

    def either(self) -> Matcher:
        left = self._both()
        while self._next_is("or"):
            left = _or(left, self._both())
        return left

    def end(self) -> None:
        if self._tokens:
            raise self._error(f"did not expect {self._tokens[0]!r}; join words with 'and' or 'or'")

    def _both(self) -> Matcher:
        left = self._negated()
        while self._next_is("and"):
            left = _and(left, self._negated())
        return left

    def _negated(self) -> Matcher:
        if self._next_is("not"):
            inner = self._negated()
            return lambda text: not inner(text)
        return self._word()

    def _word(self) -> Matcher:
        if not self._tokens:
            raise self._error("ends where a word should be")
        token = self._tokens.pop(0)
        if token == "(":
            inner = self.either()
            if not self._next_is(")"):
                raise self._error("a ')' is missing")
            return inner
        if token in (")", "and", "or"):
            raise self._error(f"did not expect {token!r}")
        word = token.lower()
        return lambda text: word in text

    def _next_is(self, word: str) -> bool:
        if self._tokens and self._tokens[0] == word:
            del self._tokens[0]
            return True
        return False

    def _error(self, what: str) -> UsageError:
        return UsageError(f"-k {self._expression!r}: {what}")


def _or(a: Matcher, b: Matcher) -> Matcher:
    return lambda text: a(text) or b(text)


def _and(a: Matcher, b: Matcher) -> Matcher:
    return lambda text: a(text) and b(text)
