"""Ctrl-C asks first: the run ends at a place of its own choosing, a second signal ends it at once."""

from __future__ import annotations

import signal

import pytest

from lnbench.bench.ending import gentle


@pytest.fixture(autouse=True)
def _plain_handler() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_the_first_signal_is_kept_and_the_second_ends_at_once() -> None:
    with gentle() as ending:
        ending.check()
        signal.raise_signal(signal.SIGINT)
        assert ending.is_asked
        with pytest.raises(KeyboardInterrupt):
            ending.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_handler_of_a_caller_is_left_alone() -> None:
    heard = []
    signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    with gentle() as ending:
        signal.raise_signal(signal.SIGINT)
    assert heard == [signal.SIGINT] and not ending.is_asked
    signal.signal(signal.SIGINT, signal.default_int_handler)
