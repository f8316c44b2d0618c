"""Ctrl-C without harm: the first one ends a run at the next place where nothing is half done, a second one at once.

An exception that is raised anywhere can be lost (Python drops it inside a weak reference's callback) or leave files and
workers between two states.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class Ending:
    """Whether the run was asked to end."""

    is_asked: bool = False

    def check(self) -> None:
        """Raises KeyboardInterrupt when the run was asked to end."""
        if self.is_asked:
            raise KeyboardInterrupt

    def ask(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signal. Raises KeyboardInterrupt when it was asked before."""
        self.check()
        self.is_asked = True


@contextmanager
def gentle() -> Iterator[Ending]:
    """Meanwhile Ctrl-C asks first. A handler that the caller has installed, and other threads, are left as they are."""
    ending = Ending()
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or not is_ours:
        yield ending
        return
    before = signal.signal(signal.SIGINT, ending.ask)
    try:
        yield ending
    finally:
        signal.signal(signal.SIGINT, before)
