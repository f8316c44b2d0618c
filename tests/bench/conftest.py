"""Simulated machines with known truth, and sessions that take the time their script says. No clock is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest


@dataclass(frozen=True)
class SimulatedMachine:
    """Times of `lanes` backends with known log ratios on a machine that disturbs them.

    process: luck of each process start. drift: slow wandering shared by neighbours in time. step: sudden changes of
    frequency. burst: share of samples hit by another program. slot: what the place within a round costs. noise: rest.
    """

    process: float = 0.01
    drift: float = 0.02
    step: float = 0.03
    burst: float = 0.05
    slot: float = 0.004
    noise: float = 0.01

    def log_times(
        self, runs: int, epochs: int, rounds: int, truth: tuple[float, ...], seed: int, *, in_blocks: bool = False
    ) -> np.ndarray:
        """ln of times, shape (runs, lanes, epochs, rounds); `in_blocks` measures one backend after the other."""
        rng = np.random.default_rng(seed)
        lanes = len(truth)
        slots = _slots(rng, runs, epochs, rounds, lanes)
        length = lanes * epochs * rounds
        moment = np.arange(epochs * rounds).reshape(1, 1, epochs, rounds) * lanes + slots
        if in_blocks:
            lane = np.arange(lanes).reshape(1, lanes, 1, 1)
            moment = np.broadcast_to(
                lane * epochs * rounds + np.arange(epochs * rounds).reshape(1, 1, epochs, rounds), slots.shape
            )
        phase = rng.random((runs, 1)) * length
        weather = self.drift * np.sin((np.arange(length) + phase) / 37)
        jumps = np.where(rng.random((runs, length)) < 0.02, rng.normal(0, self.step, (runs, length)), 0).cumsum(axis=1)
        times = np.take_along_axis(weather + jumps, moment.reshape(runs, -1), axis=1).reshape(slots.shape)
        times += np.asarray(truth).reshape(1, lanes, 1, 1) + self.slot * slots
        times += rng.normal(0, self.process, (runs, lanes, epochs, 1)) if not in_blocks else 0
        times += np.abs(rng.normal(0, self.noise, slots.shape))
        times += np.where(rng.random(slots.shape) < self.burst, rng.exponential(0.5, slots.shape), 0)
        return times


def _slots(rng: np.random.Generator, runs: int, epochs: int, rounds: int, lanes: int) -> np.ndarray:
    squares = rounds // lanes
    shape = (runs, 1, epochs, squares, 1)
    place = rng.random((*shape, lanes)).argsort(axis=-1).reshape(runs, epochs, squares, lanes).transpose(0, 3, 1, 2)
    shift = rng.random((*shape, lanes)).argsort(axis=-1).reshape(runs, 1, epochs, squares, lanes)
    return ((place[..., None] - shift) % lanes).reshape(runs, lanes, epochs, rounds)


@pytest.fixture
def simulated() -> Callable[..., SimulatedMachine]:
    """Makes a simulated machine; the defaults are a bad one (1 % process luck, drift, steps, 5 % bursts)."""
    return SimulatedMachine
