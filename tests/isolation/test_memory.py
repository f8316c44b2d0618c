"""The shared file, fill patterns, canaries and who is blamed for a fault; all without a worker."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from lnbench import layouts, memory
from lnbench.blame import blame, blame_guarded
from lnbench.buffers import Arrangement, Buffer
from lnbench.case import DTYPES
from lnbench.numerics import dtypes
from lnbench.operators.schema import Tensor

LAYOUTS = layouts.names()


def arranged(arena: memory.Arena, layout: str = "contiguous", placement: str = "end", **options: object) -> Arrangement:
    x = Tensor("x", (6, 10), "float32", "element", "data")
    y = Tensor("y", (6, 10), "float32", "element", "data")
    made = Arrangement(arena, {"x": (x, layout, 1)}, {"y": (y, layout, 1)}, placement=placement, **options)  # type: ignore[arg-type]
    made.fill_canaries()
    return made


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_pattern_is_a_quiet_nan_and_marks_what_was_never_written(dtype: str) -> None:
    array = np.zeros((4, 6), dtypes.numpy(dtype))[:, ::2]
    memory.fill(array)
    assert np.isnan(array.astype(np.float64)).all()
    assert memory.unwritten(array).all()
    array[1, 2] = 1
    array[0, 0] = np.nan
    assert memory.unwritten(array).sum() == array.size - 2


@pytest.mark.parametrize("placement", ["end", "begin"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_data_survive_every_layout_and_canaries_stay_whole(layout: str, placement: str) -> None:
    arena = memory.Arena()
    made = arranged(arena, layout, placement)
    data = layouts.as_seen(layout, np.arange(60, dtype=np.float32).reshape(6, 10))
    made.load({"x": data})
    made.poison()
    assert (made.inputs["x"].view == data).all()
    assert memory.unwritten(made.outputs["y"].view).all()
    made.outputs["y"].view[...] = 0
    assert made.violations() == ()
    arena.close()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_buffer_touches_an_inaccessible_page_on_the_asked_side(layout: str) -> None:
    arena = memory.Arena()
    for placement in ("end", "begin"):
        buffer = arranged(arena, layout, placement).inputs["x"]
        island = buffer.islands[-1 if placement == "end" else 0]
        slack = island.high - island.end if placement == "end" else island.start - island.low
        assert 0 <= slack < 64 or (layout == "offset" and slack == buffer.form.lead)
        if layout != "misaligned" and layout != "offset":
            assert slack == 0
    arena.close()


@pytest.mark.parametrize("alignment", [16, 64])
@pytest.mark.parametrize("placement", ["end", "begin"])
def test_a_declared_alignment_is_kept(alignment: int, placement: str) -> None:
    arena = memory.Arena()
    for layout in LAYOUTS:
        made = arranged(arena, layout, placement, alignment=alignment)
        assert all(b.first % alignment == 0 for b in made.buffers)
    arena.close()


def test_misaligned_starts_one_element_off_a_line() -> None:
    arena = memory.Arena()
    assert {arranged(arena, "misaligned", p).inputs["x"].first % 64 for p in ("end", "begin")} == {4}
    arena.close()


def broken(layout: str, placement: str, at: int, **options: object) -> list[tuple[str, str, str]]:
    """The violations after one float is written `at` bytes from the first element of y."""
    arena = memory.Arena()
    made = arranged(arena, layout, placement, **options)
    y: Buffer = made.outputs["y"]
    made.lease.segment.bytes[y.first + at : y.first + at + 4].view(np.float32)[0] = 1
    found = [(v.kind, v.side, v.sentence) for v in made.violations()]
    arena.close()
    return found


def test_a_write_before_or_after_or_between_is_found_and_located() -> None:
    kind = "canary overwritten"
    assert broken("contiguous", "begin", 240) == [(kind, "after", "wrote directly after the end of y")]
    assert broken("contiguous", "begin", 248) == [(kind, "after", "wrote 8 bytes after the end of y")]
    assert broken("contiguous", "end", -4) == [(kind, "before", "wrote 4 bytes before the start of y")]
    assert broken("row_padded", "end", 40 + 60) == [(kind, "padding", "wrote into the padding after row 1 of y")]
    assert broken("column_strided", "end", 4) == [(kind, "padding", "wrote into the padding after element 0 of y")]
    assert broken("contiguous", "end", 240, alignment=64) == [(kind, "after", "wrote directly after the end of y")]
    assert broken("contiguous", "end", 0) == []


def test_a_fault_is_blamed_on_the_nearest_buffer() -> None:
    arena = memory.Arena()
    made = arranged(arena)
    lease = made.lease
    arena.control.put_address(lease.segment.number, 1 << 40)

    def at(name: str, offset: int, access: int = 1) -> tuple[str, str, str, str] | None:
        buffer = {**made.inputs, **made.outputs}[name]
        found = blame([made], arena.control, access, (1 << 40) + buffer.first + offset)
        return None if found is None else (found.kind, found.tensor, found.side, found.sentence)

    assert at("x", 244) == ("read outside", "x", "after", "read 4 bytes after the end of x")
    assert at("y", 240, 2) == ("write outside", "y", "after", "wrote directly after the end of y")
    assert at("y", -5000, 2) == ("write outside", "y", "before", "wrote 5000 bytes before the start of y")
    assert at("x", 8, 2) == ("read-only written", "x", "inside", "wrote to the input x, 8 bytes from its start")
    assert blame([made], arena.control, 1, 12345) is None
    arena.close()


def test_a_fault_between_rows_far_apart_is_named() -> None:
    arena = memory.Arena()
    made = arranged(arena, "sparse_rows")
    arena.control.put_address(made.lease.segment.number, 1 << 40)
    found = blame([made], arena.control, 1, (1 << 40) + made.inputs["x"].first + (1 << 30) + 4096)
    assert found is not None
    assert (found.side, found.sentence) == ("padding", "read between rows 1 and 2 of x")
    arena.close()


def test_leases_of_small_plans_share_a_segment_and_large_ones_go_with_their_plan() -> None:
    arena = memory.Arena()
    one, two = arena.take(5000), arena.take(5000)
    assert one.segment is two.segment and two.start >= one.start + one.length
    assert one.release() is None and two.release() is None
    assert arena.take(5000).start == 0
    large = arena.take(1 << 29)
    large.segment.bytes[:8] = 1
    assert large.release() == large.segment.number
    assert not large.segment.bytes[:8].any()
    assert large.release() is None
    arena.close()


def test_guarded_memory_is_aligned_ends_at_a_page_and_is_known_to_the_parent() -> None:
    arena = memory.Arena()
    for nbytes in (0, 64, 100, 8192):
        guarded = memory.Guarded("workspace", nbytes)
        assert guarded.address % 64 == 0
        assert (guarded.address + nbytes) % memory.PAGE in (0, *range(memory.PAGE - 63, memory.PAGE))
        arena.control.put_guarded()
        found = blame_guarded(arena.control, 2, guarded.address + nbytes + 64)
        assert found is not None and found.sentence == "wrote 64 bytes after the end of the workspace"
        assert blame_guarded(arena.control, 2, 64) is None
        arena.control.clear()
    arena.close()


def test_private_buffers_do_not_share_their_low_bits() -> None:
    arena = memory.Arena()
    plans = [arranged(arena, placement="private", seed=seed).plan() for seed in range(4)]
    offsets = {(p.inputs["x"].twin_offset % 4096, p.out["y"].twin_offset % 4096) for p in plans}
    assert len(offsets) == 4
    assert all(a % 64 == 0 and b % 64 == 0 for a, b in offsets)
    arena.close()


def test_large_memory_is_private_begins_a_huge_page_and_asks_for_such_pages() -> None:
    block = memory.on_huge_pages(8 << 20)
    assert block.nbytes == 8 << 20 and block.ctypes.data % memory.HUGE_PAGE == 0 and not block.any()
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("this system has no huge pages")
    flags = dict[int, list[str]]()
    start = 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
            start = int(line.split("-")[0], 16)
        elif line.startswith("VmFlags:"):
            flags[start] = line.split()[1:]
    mine = flags[max(s for s in flags if s <= block.ctypes.data)]
    assert "hg" in mine and "sh" not in mine
