"""What holds for all tests."""

from __future__ import annotations

import os

import pytest

from lnbench.bench import lock


@pytest.fixture(autouse=True)
def _own_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests in other processes, and a benchmark beside them, do not have this process's lock."""
    monkeypatch.setattr(lock, "FILE", f"lnbench-tests-{os.getpid()}.lock")
