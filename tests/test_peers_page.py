"""docs/peers.md covers every peer that ships, and explains every verdict that is not accepted."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "peers.md").read_text(encoding="utf-8")
# Our own implementations, and the one that needs a device.
OWN = ("numpy", "native", "torch-cuda")


def test_every_peer_has_a_row() -> None:
    peers = {p.name for p in entry_points(group="lnbench.backends")} - set(OWN)
    assert peers == {row.split("`")[1] for row in PAGE.splitlines() if row.startswith("| `")}


def test_nothing_is_left_unexplained() -> None:
    assert "## Not explained" not in PAGE and "Traceback" not in PAGE
