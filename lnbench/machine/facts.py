"""Facts about this machine as plain values; what the system does not tell is None or left out."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from lnbench import places

# Flags that decide which kernels may run; the others of /proc/cpuinfo say nothing about speed here.
_ISA = (
    "sse2", "sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_bf16", "avx512_fp16",
    "amx_bf16", "asimd", "asimdhp", "bf16", "sve", "sve2",
)  # fmt: skip
_PACKAGES = ("lnbench", "numpy", "ml_dtypes", "torch", "jax", "onnxruntime", "keras", "tensorflow")

SYS_CPU = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, slots=True)
class Cache:
    """One cache as the first processor sees it. shared: processors that use it together."""

    level: int
    bytes: int
    shared: int


def read_text(path: Path) -> str | None:
    """The text of a file of the system, or None where there is no such file."""
    try:
        return path.read_text().strip()
    except OSError:
        return None


def processors() -> int:
    """Processors that this process may use."""
    return len(places.allowed())


def cpu_quota() -> float | None:
    """Processors' worth of time that a container allows (cgroup v2 or v1), or None without a limit."""
    text = read_text(Path("/sys/fs/cgroup/cpu.max"))
    if text is not None:
        quota, _, period = text.partition(" ")
        return None if quota == "max" else int(quota) / int(period or 100_000)
    quota_v1 = read_text(Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))
    period_v1 = read_text(Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))
    if quota_v1 is None or period_v1 is None or int(quota_v1) <= 0:
        return None
    return int(quota_v1) / int(period_v1)


def memory_limit() -> int | None:
    """Bytes that a container allows, or None without a limit."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = read_text(Path(path))
        if text is not None and text.isdigit() and int(text) < 1 << 60:
            return int(text)
    return None


def spare_memory() -> int:
    """Bytes that a benchmark may keep beside what it measures: a quarter of what is free and allowed."""
    import psutil

    return min(psutil.virtual_memory().available, memory_limit() or 1 << 60) // 4


@cache
def caches() -> tuple[Cache, ...]:
    """Data caches of the first processor, smallest level first; empty where the system does not tell."""
    found = []
    for folder in sorted((SYS_CPU / "cpu0" / "cache").glob("index*")):
        size, level = read_text(folder / "size"), read_text(folder / "level")
        if read_text(folder / "type") == "Instruction" or not size or not level:
            continue
        found.append(Cache(int(level), _bytes(size), _count(read_text(folder / "shared_cpu_list") or "0")))
    return tuple(sorted(found, key=lambda c: c.level))


def last_level_cache() -> int:
    """Bytes of the largest cache; 32 MiB where the system does not tell."""
    return max((c.bytes for c in caches()), default=32 << 20)


def _bytes(size: str) -> int:
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return int(size[:-1]) * units[size[-1]] if size[-1] in units else int(size)


def _count(ranges: str) -> int:
    """Number of processors in "0-3,8"."""
    total = 0
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        total += int(last or first) - int(first) + 1
    return total


@cache
def _cpuinfo() -> dict[str, str]:
    """Fields of the first processor in /proc/cpuinfo."""
    first = (read_text(Path("/proc/cpuinfo")) or "").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def isa_flags() -> list[str]:
    """Instruction sets that matter to normalization kernels."""
    info = _cpuinfo()
    present = set((info.get("flags") or info.get("Features") or "").split())
    return [flag for flag in _ISA if flag in present]


def clock_mhz() -> float | None:
    """The clock now, mean over processors, or None where the system does not tell."""
    lines = (read_text(Path("/proc/cpuinfo")) or "").splitlines()
    found = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    return sum(found) / len(found) if found else None


def governor() -> str | None:
    """How the clock frequency is chosen, such as performance or powersave."""
    return read_text(SYS_CPU / "cpu0" / "cpufreq" / "scaling_governor")


def turbo() -> bool | None:
    """Whether the processor may exceed its base clock."""
    no_turbo = read_text(SYS_CPU / "intel_pstate" / "no_turbo")
    if no_turbo is not None:
        return no_turbo == "0"
    boost = read_text(SYS_CPU / "cpufreq" / "boost")
    return None if boost is None else boost == "1"


def is_virtual() -> bool:
    """Whether this is a virtual machine."""
    return "hypervisor" in _cpuinfo().get("flags", "").split()


def is_container() -> bool:
    """Whether this is a container, as far as the usual marks tell."""
    return Path("/.dockerenv").exists() or Path("/run/.containerenv").exists() or "container" in os.environ


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter, of those installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, Any]:
    """Everything that a stored result should say about where it was made."""
    import psutil

    memory = psutil.virtual_memory()
    return {
        "cpu": cpu_model(),
        "isa": isa_flags(),
        "processors": processors(),
        "cores": psutil.cpu_count(logical=False),
        "caches": [{"level": c.level, "bytes": c.bytes, "shared": c.shared} for c in caches()],
        "governor": governor(),
        "turbo": turbo(),
        "virtual": is_virtual(),
        "container": is_container(),
        "cpu_quota": cpu_quota(),
        "memory_bytes": memory.total,
        "memory_available_bytes": memory.available,
        "memory_limit_bytes": memory_limit(),
        "os": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "byteorder": sys.byteorder,
        "load": list(os.getloadavg()),
        "versions": versions(),
    }
