"""Where the arrays of one call lie in shared memory, what surrounds them, and which canaries a run overwrote.

The parent plans, fills and inspects; the worker only maps (`protocol.Plan`). Layouts come from `lnbench.layouts`,
faults that arrive as signals go to `lnbench.blame`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lnbench import layouts, memory
from lnbench.layouts import Form
from lnbench.memory import GUARD, PAGE, Arena, Lease, pages
from lnbench.numerics import dtypes
from lnbench.operators.schema import Tensor
from lnbench.protocol import Lies, Plan, Violation, beyond

_LINE = layouts.LINE_BYTES


@dataclass(frozen=True, slots=True)
class Island:
    """Pages [low, high) that hold the bytes [start, end) of a buffer; offsets in the segment."""

    low: int
    start: int
    end: int
    high: int


class Buffer:
    """One array in shared memory with canaries around and inside it."""

    def __init__(self, tensor: Tensor, form: Form, low: int, placement: str, alignment: int):
        self.tensor, self.form = tensor, form
        self.itemsize = _itemsize(tensor)
        self.first = _first(form, low, placement, alignment)
        last = self.first + form.span
        if form.islands:
            self.islands = tuple(_island(self.first + at, length) for at, length in form.islands)
        else:
            self.islands = (Island(low, self.first, last, max(pages(last), low + PAGE)),)
        self.high = self.islands[-1].high
        self.is_writable = False
        self.slacks: tuple[tuple[str, np.ndarray], ...] = ()

    def bind(self, segment: memory.Segment, start: int) -> None:
        """Fixes the buffer at `start` of a mapped segment and makes its views."""
        self.first += start
        self.islands = tuple(
            Island(i.low + start, i.start + start, i.end + start, i.high + start) for i in self.islands
        )
        self.view = segment.array(self.tensor.dtype, self.first, self.form.shape, self.form.strides)
        unsigned, self.pattern = memory.bits(self.view.dtype)
        slacks = []
        for island in self.islands:
            for side, low, high in (("before", island.low, island.start), ("after", island.end, island.high)):
                if high > low:
                    slacks.append((side, segment.bytes[low:high].view(unsigned)))
        for gap in self.form.gaps:
            raw = segment.array(self.tensor.dtype, self.first + gap.offset, gap.shape, gap.strides)
            slacks.append(("padding", raw.view(unsigned)))
        self.slacks = tuple(slacks)

    def fill_canaries(self) -> None:
        """Writes the pattern wherever no element lies."""
        for _, slack in self.slacks:
            slack[...] = self.pattern

    def lies(self) -> Lies:
        """The buffer as the worker needs it."""
        return Lies(self.tensor.dtype, self.form.shape, self.form.strides, self.first)

    def broken(self) -> Violation | None:
        """The first canary that was overwritten."""
        for side, slack in self.slacks:
            changed = slack != self.pattern
            if not changed.any():
                continue
            name = self.tensor.name
            if side == "padding":
                where = np.unravel_index(int(changed.argmax()), changed.shape)
                row = f" after row {where[0]}" if changed.ndim > 1 else f" after element {where[0]}"
                sentence = f"wrote into the padding{row} of {name}"
            else:
                found = np.flatnonzero(changed)
                distance = int(found[0]) if side == "after" else slack.size - int(found[-1])
                sentence = f"wrote {beyond(distance * self.itemsize, side)} {name}"
            return Violation("canary overwritten", name, side, sentence)
        return None


def _first(form: Form, low: int, placement: str, alignment: int) -> int:
    """Offset of the first element when the buffer's pages begin at `low` (all page-aligned)."""
    modulus, rest = (alignment, 0) if alignment > 1 or form.skew is None else (_LINE, form.skew)
    if placement == "end":
        first = low + pages(form.lead + form.span + _LINE) - form.span
        return first - (first - rest) % modulus
    first = low + form.lead
    return first + (rest - first) % modulus


def _itemsize(tensor: Tensor) -> int:
    return int(dtypes.numpy(tensor.dtype).itemsize)


def _island(start: int, length: int) -> Island:
    return Island(start // PAGE * PAGE, start, start + length, pages(start + length))


class Arrangement:
    """The buffers of one call: planned, leased, filled; and after the run, inspected.

    inputs, outputs: by name: the tensor, the name of its layout, and how many of its last axes make up a row.
    alias: (output, input) that share one buffer. seed: draws the offsets of private twins.
    """

    def __init__(
        self,
        arena: Arena,
        inputs: Mapping[str, tuple[Tensor, str, int]],
        outputs: Mapping[str, tuple[Tensor, str, int]],
        *,
        placement: str = "end",
        alignment: int = 1,
        alias: tuple[str, str] | None = None,
        seed: int = 0,
    ):
        self.alias = alias
        self.placement = placement
        self._top = GUARD
        self.inputs = {n: self._add(t, layout, rows, alignment) for n, (t, layout, rows) in inputs.items()}
        aliased = {alias[0]: self.inputs[alias[1]]} if alias else {}
        self.outputs = {
            n: aliased[n] if n in aliased else self._add(t, layout, rows, alignment)
            for n, (t, layout, rows) in outputs.items()
        }
        for buffer in self.outputs.values():
            buffer.is_writable = True
        self._twins, self._private = (
            self._draw_twins(inputs, outputs, seed, alignment) if placement == "private" else ({}, 0)
        )
        scratch = self._scratch({n: t for n, (t, _, _) in outputs.items()})
        self.lease: Lease = arena.take(self._top)
        start = self.lease.start
        for buffer in self.buffers:
            buffer.bind(self.lease.segment, start)
        self.scratch = {
            n: self.lease.segment.array(t.dtype, at + start, t.shape, layouts.packed(t.shape, _itemsize(t)))
            for n, (t, at) in scratch.items()
        }
        self._scratch_at = {n: at + start for n, (_, at) in scratch.items()}

    @property
    def buffers(self) -> list[Buffer]:
        """Each buffer once."""
        return list({id(b): b for b in (*self.inputs.values(), *self.outputs.values())}.values())

    def _add(self, tensor: Tensor, layout: str, rows: int, alignment: int) -> Buffer:
        plain = self.placement == "private"
        form = layouts.place("contiguous" if plain else layout, tensor.shape, _itemsize(tensor), rows)
        buffer = Buffer(tensor, form, self._top, "begin" if plain else self.placement, alignment)
        self._top = buffer.high + GUARD
        return buffer

    def _scratch(self, tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, int]]:
        found = {}
        for name, tensor in tensors.items():
            found[name] = (tensor, self._top)
            self._top += pages(math.prod(tensor.shape) * _itemsize(tensor))
        return found

    def _draw_twins(
        self,
        inputs: Mapping[str, tuple[Tensor, str, int]],
        outputs: Mapping[str, tuple[Tensor, str, int]],
        seed: int,
        alignment: int,
    ) -> tuple[dict[str, tuple[int, tuple[int, ...]]], int]:
        """Offsets and strides of the private twins; offsets are drawn so that no two buffers share their low bits."""
        draw, top, twins = random.Random(seed), 0, {}
        for name, (tensor, layout, rows) in {**inputs, **outputs}.items():
            if self.alias and name == self.alias[0]:
                continue
            form = layouts.place(layout, tensor.shape, _itemsize(tensor), rows)
            low = top + _LINE * draw.randrange(PAGE // _LINE)
            at = _first(form, low, "begin", alignment)
            twins[name] = (at, form.strides)
            top = pages(at + form.span)
        if self.alias:
            twins[self.alias[0]] = twins[self.alias[1]]
        return twins, max(top, PAGE)

    def plan(self) -> Plan:
        """What the worker has to map and protect."""
        segment = self.lease.segment
        opened = tuple((i.low, i.high - i.low, b.is_writable) for b in self.buffers for i in b.islands)
        return Plan(
            (segment.number, segment.offset, segment.length),
            self.lease.start,
            self.lease.length,
            opened,
            {n: self._lies(n, b) for n, b in self.inputs.items()},
            {n: self._lies(n, b) for n, b in self.outputs.items()},
            {
                n: Lies(memory.dtype_name(a.dtype), a.shape, a.strides, self._scratch_at[n])
                for n, a in self.scratch.items()
            },
            self.alias,
            self._private,
        )

    def _lies(self, name: str, buffer: Buffer) -> Lies:
        lies = buffer.lies()
        if name not in self._twins:
            return lies
        offset, strides = self._twins[name]
        return Lies(lies.dtype, lies.shape, lies.strides, lies.offset, offset, strides)

    def fill_canaries(self) -> None:
        """Writes canaries around and inside every buffer."""
        for buffer in self.buffers:
            buffer.fill_canaries()

    def load(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Writes arrays of logical shape into the buffers of the inputs."""
        for name, array in inputs.items():
            memory.copy(self.inputs[name].view, array)

    def poison(self) -> None:
        """Fills every output that is not an input too with the pattern that says "never written"."""
        for name, buffer in self.outputs.items():
            if not (self.alias and name == self.alias[0]):
                memory.fill(buffer.view)

    def violations(self) -> tuple[Violation, ...]:
        """Canaries that a run overwrote, around everything that a backend may write."""
        found = (b.broken() for b in self.buffers if b.is_writable)
        return tuple(v for v in found if v is not None)

    def release(self) -> int | None:
        """Gives the memory back; the number of the segment when it is gone with it."""
        return self.lease.release()
