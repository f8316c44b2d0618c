"""The machine: what it is, what disturbs measurements on it, what its memory can do, and which backends it has.

Reads and advises only; never changes a setting.
"""

from lnbench.machine.bandwidth import Ceilings, Measurement, cache_file, ceilings, plan, stored
from lnbench.machine.facts import Cache, caches, environment, last_level_cache, processors, spare_memory
from lnbench.machine.installed import Installed, backends
from lnbench.machine.noise import warnings

__all__ = [
    "Cache",
    "Ceilings",
    "Installed",
    "Measurement",
    "backends",
    "cache_file",
    "caches",
    "ceilings",
    "environment",
    "last_level_cache",
    "plan",
    "processors",
    "spare_memory",
    "stored",
    "warnings",
]
