"""What disturbs a measurement now, as sentences that end with what can be done about it. Silent where all is well."""

from __future__ import annotations

import os
import time
from pathlib import Path

from lnbench.machine import facts

# Share of one processor that must be missing before it is worth a sentence.
_NOTICEABLE = 0.02
_BUSY = 0.25


def steal(seconds: float = 0.2) -> float | None:
    """Share of processor time that the hypervisor took away during `seconds`, or None where nobody counts it."""
    before = _cpu_times()
    time.sleep(seconds)
    return _stolen_share(before, _cpu_times())


def _stolen_share(before: list[int] | None, after: list[int] | None) -> float | None:
    if before is None or after is None:
        return None
    passed = [b - a for a, b in zip(before, after, strict=True)]
    return passed[7] / max(1, sum(passed[:8]))


class Watch:
    """What disturbs, from one look to the next. Each look gives what the system tells, of `load` (average of the last
    minute), `pressure` (percent, see `pressure`), `steal` (share of processor time since the last look) and `mhz`."""

    def __init__(self) -> None:
        self._times = _cpu_times()

    def look(self) -> dict[str, float]:
        """The disturbances now."""
        before, self._times = self._times, _cpu_times()
        found = {
            "load": os.getloadavg()[0],
            "pressure": pressure(),
            "steal": _stolen_share(before, self._times),
            "mhz": facts.clock_mhz(),
        }
        return {name: value for name, value in found.items() if value is not None}


def _cpu_times() -> list[int] | None:
    text = facts.read_text(Path("/proc/stat"))
    if text is None:
        return None
    values = [int(v) for v in text.split("\n", 1)[0].split()[1:]]
    return values if len(values) >= 8 else None


def pressure() -> float | None:
    """Percent of the last ten seconds in which something waited for a processor (pressure stall information)."""
    text = facts.read_text(Path("/proc/pressure/cpu"))
    if text is None:
        return None
    words = dict(part.split("=") for part in text.split("\n", 1)[0].split()[1:])
    return float(words["avg10"])


def warnings(threads: int = 1) -> list[str]:
    """One sentence for each disturbance that is there, none for what is in order."""
    found = [_load(threads), _threads(threads), _governor(), _turbo(), _quota(threads), _stolen(), _memory()]
    return [sentence for sentence in found if sentence]


def _load(threads: int) -> str | None:
    load, count = os.getloadavg()[0], facts.processors()
    waiting = pressure()
    if load <= max(_BUSY, count - threads) and (waiting is None or waiting < 5):
        return None
    stall = "" if waiting is None else f", something waited {waiting:.0f} % of the last 10 s"
    return (
        f"other programs are busy (load {load:.2f} on {count} processors{stall}): "
        "intervals get wider; stop them or allow more time"
    )


def _threads(threads: int) -> str | None:
    if threads <= facts.processors():
        return None
    return (
        f"{threads} threads on {facts.processors()} processors take turns: give --threads {facts.processors()} or fewer"
    )


def _governor() -> str | None:
    if facts.governor() in (None, "performance"):
        return None
    return (
        f"the frequency governor is {facts.governor()!r}, so the clock follows the load: "
        "`sudo cpupower frequency-set -g performance` fixes it"
    )


def _turbo() -> str | None:
    if not facts.turbo() or facts.is_virtual():
        return None
    return "turbo is on, so the clock depends on temperature and neighbours: interleaving cancels most of it"


def _quota(threads: int) -> str | None:
    quota = facts.cpu_quota()
    if quota is None or quota >= threads + 1:
        return None
    return (
        f"the container may use {quota:g} processors and is stopped when it used them up: "
        f"raise the limit to {threads + 1} or more"
    )


def _stolen() -> str | None:
    share = steal() if facts.is_virtual() else None
    if share is None or share < _NOTICEABLE:
        return None
    return f"the hypervisor takes {100 * share:.0f} % of the time away: measure on another machine or allow more time"


def _memory() -> str | None:
    import psutil

    if psutil.swap_memory().used < 1 << 26 or psutil.virtual_memory().percent < 90:
        return None
    return "memory is nearly full and pages are swapped: close programs or choose smaller cases"
