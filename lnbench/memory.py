"""Memory that parent and worker share: one sparse file, its segments, who may touch which page, and the fill patterns.

Owns the file, the mappings and page protection. What lies where in a segment is `lnbench.buffers`'s.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
import tempfile
import weakref
from contextlib import suppress
from functools import cache
from typing import Any, ClassVar

import numpy as np

from lnbench.numerics import dtypes

PAGE = mmap.PAGESIZE
# Distance between buffers: addresses cost nothing in a sparse file, and a long stride outside is caught too.
GUARD = max(1 << 20, PAGE)
POOL_SEGMENT = 256 << 20
HUGE_PAGE = 2 << 20
NONE, READ, WRITE = 0, mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE

# Quiet NaNs with a payload that no arithmetic produces: they mark canaries and what was never written.
PATTERNS = {"float16": 0x7EAD, "bfloat16": 0x7FED, "float32": 0x7FDEAD5A, "float64": 0x7FFDEAD05EEDBA5E}
_UNSIGNED: dict[int, np.dtype[Any]] = {2: np.dtype(np.uint16), 4: np.dtype(np.uint32), 8: np.dtype(np.uint64)}


@cache
def dtype_name(dtype: np.dtype[Any]) -> str:
    """The config's name of a NumPy dtype; `dtype.name` takes microseconds."""
    return dtype.name


@cache
def bits(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], int]:
    """The unsigned dtype of the same size, and the fill pattern in it. Raises KeyError for no dtype of ours."""
    return _UNSIGNED[dtype.itemsize], PATTERNS[dtype.name]


def fill(array: np.ndarray) -> None:
    """Fills a float array, of any strides, with the pattern of its dtype."""
    unsigned, pattern = bits(array.dtype)
    array.view(unsigned)[...] = pattern


def unwritten(array: np.ndarray) -> np.ndarray:
    """Where `array` still holds the pattern that outputs are filled with: a boolean array of the same shape.

    NaN arithmetic may carry a payload along, so such an element was either never written or computed from itself.
    """
    unsigned, pattern = bits(array.dtype)
    found: np.ndarray = array.view(unsigned) == pattern
    return found


def copy(target: np.ndarray, source: np.ndarray) -> None:
    """Copies logical content; along axes where `target` repeats one element (stride 0) the first index is taken."""
    once = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in target.strides)
    np.copyto(target[once], source[once], casting="no")


def is_same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays of one shape and dtype hold the same bits (NaN included)."""
    unsigned, _ = bits(one.dtype)
    return bool(np.array_equal(one.view(unsigned), other.view(unsigned)))


def pages(nbytes: int) -> int:
    """`nbytes` rounded up to whole pages."""
    return -(-nbytes // PAGE) * PAGE


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc


def protect(address: int, length: int, access: int) -> None:
    """Sets what may be done to whole pages: NONE, READ or WRITE. Raises OSError."""
    if length and _libc().mprotect(address, length, access) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mprotect: {os.strerror(number)}")


class Segment:
    """A range of the shared file, mapped here: `bytes` is all of it as one array.

    The parent maps it for writing; a worker maps it too and then protects parts of it.
    """

    def __init__(self, fd: int, number: int, offset: int, length: int):
        self.number, self.offset, self.length = number, offset, length
        self._map = mmap.mmap(fd, length, mmap.MAP_SHARED, WRITE, offset=offset)
        self.bytes: np.ndarray = np.frombuffer(self._map, np.uint8)
        self.address: int = self.bytes.ctypes.data

    def array(self, name: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
        """A view of dtype `name` whose first element is at `offset`."""
        return np.ndarray(shape, dtypes.numpy(name), self._map, offset, strides)

    def protect(self, offset: int, length: int, access: int) -> None:
        """Sets what may be done to whole pages of the segment."""
        protect(self.address + offset, length, access)

    def discard(self) -> None:
        """Gives the memory back to the system; the content is lost."""
        if hasattr(mmap, "MADV_REMOVE"):
            self._map.madvise(mmap.MADV_REMOVE)


class Arena:
    """The parent's side: a sparse file that only grows, cut into segments.

    Small plans share pooled segments of POOL_SEGMENT bytes; a larger plan gets one of its own, given back with it.
    Raises OSError where the system refuses.
    """

    def __init__(self) -> None:
        self.fd = _shared_file()
        self._size = PAGE
        os.ftruncate(self.fd, self._size)
        if hasattr(fcntl, "F_ADD_SEALS"):
            # Shrinking the file under our mapping would kill the parent.
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        self.control = Control(mmap.mmap(self.fd, PAGE))
        self._number = 0
        self._pool: list[_Pooled] = []

    def take(self, length: int) -> Lease:
        """`length` bytes, page-aligned, in some segment."""
        length = pages(length)
        if length > POOL_SEGMENT // 2:
            return Lease(self._segment(length), 0, length, None)
        for pooled in self._pool:
            if pooled.top + length <= POOL_SEGMENT:
                break
        else:
            pooled = _Pooled(self._segment(POOL_SEGMENT))
            self._pool.append(pooled)
        lease = Lease(pooled.segment, pooled.top, length, pooled)
        pooled.top += length
        pooled.users += 1
        return lease

    def _segment(self, length: int) -> Segment:
        offset = self._size
        os.ftruncate(self.fd, offset + length)
        self._size += length
        self._number += 1
        return Segment(self.fd, self._number, offset, length)

    def close(self) -> None:
        """Closes the file; mappings go when the last array that uses them does."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class _Pooled:
    def __init__(self, segment: Segment):
        self.segment, self.top, self.users = segment, 0, 0


class Lease:
    """Part of a segment in use by one plan."""

    def __init__(self, segment: Segment, start: int, length: int, pooled: _Pooled | None):
        self.segment, self.start, self.length, self._pooled = segment, start, length, pooled
        self._open = True

    def release(self) -> int | None:
        """Ends the use. The number of the segment when it is gone with it, else None."""
        if not self._open:
            return None
        self._open = False
        if self._pooled is None:
            self.segment.discard()
            return self.segment.number
        self._pooled.users -= 1
        if self._pooled.users == 0:
            self._pooled.top = 0
        elif self._pooled.top == self.start + self.length:
            self._pooled.top = self.start
        return None


def private(length: int) -> mmap.mmap:
    """Fresh private memory, page-aligned and zero; pages cost nothing until they are touched."""
    return mmap.mmap(-1, length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0))


def on_huge_pages(length: int) -> np.ndarray:
    """Bytes of fresh private memory that begin a huge page where the system offers such pages, untouched and zero.

    Shared memory would not do: Linux offers it no huge pages by default.
    """
    block = private(length + HUGE_PAGE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            block.madvise(mmap.MADV_HUGEPAGE)
    flat = np.frombuffer(block, np.uint8)
    skew = -flat.ctypes.data % HUGE_PAGE
    return flat[skew : skew + length]


class Guarded:
    """Private memory between two inaccessible pages, for what a backend only borrows; its end touches one of them.

    64-byte aligned, filled with ones (NaN in every float type). `Control.put_guarded` makes it known to the parent.
    """

    _all: ClassVar[weakref.WeakSet[Guarded]] = weakref.WeakSet()

    def __init__(self, name: str, nbytes: int):
        self.name, self.nbytes = name, nbytes
        inner = pages(max(nbytes, 1) + 63)
        self._map = private(inner + 2 * PAGE)
        whole = np.frombuffer(self._map, np.uint8)
        base = whole.ctypes.data + PAGE
        self.address: int = (base + inner - nbytes) // 64 * 64
        whole[PAGE : PAGE + inner] = 0xFF
        protect(base - PAGE, PAGE, NONE)
        protect(base + inner, PAGE, NONE)
        Guarded._all.add(self)

    @classmethod
    def alive(cls) -> list[Guarded]:
        """All that are in use."""
        return list(cls._all)


def _shared_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("lnbench", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    handle, path = tempfile.mkstemp(prefix="lnbench-")
    os.unlink(path)
    return handle


class Control:
    """The first page of the shared file: what the parent can still read when the worker is dead.

    Bytes 0 to 23 are `struct fault` of probe/fault.c; then a word that says what the worker was doing, and where it
    mapped each segment, and which guarded memory of its own it has.
    """

    _FAULT = struct.Struct("=IiIIQ")
    _GUARDED = struct.Struct("=QQ32s")
    _PHASE, _TABLE, _SLOTS, _NAMED, _NAMES = 64, 128, 200, 2048, 40
    PHASES = (
        "",
        "being imported",
        "describing itself",
        "preparing",
        "loading",
        "running",
        "giving its outputs",
        "closing",
    )

    def __init__(self, memory: mmap.mmap):
        self.memory = memory

    @property
    def phase(self) -> str:
        """What the worker was doing."""
        value = self.memory[self._PHASE]
        return self.PHASES[value] if value < len(self.PHASES) else ""

    @phase.setter
    def phase(self, word: str) -> None:
        self.memory[self._PHASE] = self.PHASES.index(word)

    def fault(self) -> tuple[int, int, int, int]:
        """(signal, code, access, address) of the first fatal signal; signal 0 when there was none."""
        signal, code, access, _, address = self._FAULT.unpack_from(self.memory, 0)
        return signal, code, access, address

    def clear(self) -> None:
        """Forgets fault and phase, for a new worker."""
        self.memory[:PAGE] = bytes(PAGE)

    def put_address(self, number: int, address: int) -> None:
        """Notes where the worker mapped segment `number`."""
        struct.pack_into("=Q", self.memory, self._TABLE + 8 * (number % self._SLOTS), address)

    def address(self, number: int) -> int:
        """Where the worker mapped segment `number`; 0 if it did not."""
        found: int = struct.unpack_from("=Q", self.memory, self._TABLE + 8 * (number % self._SLOTS))[0]
        return found

    def put_guarded(self) -> None:
        """Notes where guarded memory lies: the newest that fit."""
        entries = [(g.address, g.nbytes, g.name.encode()) for g in Guarded.alive()[-self._NAMES :]]
        for slot, entry in enumerate(entries):
            self._GUARDED.pack_into(self.memory, self._NAMED + slot * self._GUARDED.size, *entry)

    def guarded(self, address: int) -> tuple[str, int, int] | None:
        """Name, length and offset of `address` in the guarded memory that it lies in or near; None without one."""
        for slot in range(self._NAMES):
            start, nbytes, name = self._GUARDED.unpack_from(self.memory, self._NAMED + slot * self._GUARDED.size)
            if start and start - 2 * PAGE <= address < start + nbytes + 2 * PAGE:
                return name.rstrip(b"\0").decode(errors="replace"), nbytes, address - start
        return None
