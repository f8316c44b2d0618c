"""The machine: facts are plain values, ceilings are kept, advice is given only where something is amiss."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from lnbench import machine, probe
from lnbench.errors import EnvironmentUnfit
from lnbench.machine import bandwidth, facts, noise
from lnbench.machine.bandwidth import Ceilings, Measurement
from lnbench.report import doctor


def point(size: int, speed: float, threads: int = 1, operation: str = "copy", stores: str = "ordinary") -> Measurement:
    return Measurement(operation, stores, threads, size, speed)


CURVE = Ceilings(
    (point(1 << 10, 100.0), point(1 << 20, 20.0), point(1 << 20, 30.0, stores="streaming"), point(1 << 30, 10.0, 4))
)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine on which nothing is amiss."""
    for name, value in {
        "governor": "performance",
        "turbo": False,
        "cpu_quota": None,
        "is_virtual": False,
        "processors": 4,
    }.items():
        monkeypatch.setattr(facts, name, lambda value=value: value)
    monkeypatch.setattr("os.getloadavg", lambda: (0.1, 0.1, 0.1))
    monkeypatch.setattr(noise, "pressure", lambda: 0.0)
    monkeypatch.setattr(noise, "_memory", lambda: None)
    return monkeypatch


def test_the_environment_is_json_and_names_the_processor() -> None:
    found = machine.environment()
    assert json.loads(json.dumps(found)) == found
    assert found["cpu"] and found["processors"] >= 1 and found["versions"]["python"]


def test_a_watch_says_what_was_stolen_since_the_last_look(quiet: pytest.MonkeyPatch) -> None:
    counters = iter([[10, 0, 0, 90, 0, 0, 0, 0], [60, 0, 0, 110, 0, 0, 0, 30], None])
    quiet.setattr(noise, "_cpu_times", lambda: next(counters))
    quiet.setattr(facts, "clock_mhz", lambda: 2500.0)
    watch = noise.Watch()
    assert watch.look() == {"load": 0.1, "pressure": 0.0, "steal": 0.3, "mhz": 2500.0}
    assert "steal" not in watch.look()


def test_the_clock_is_the_mean_over_processors_where_the_system_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "read_text", lambda path: "cpu MHz\t\t: 2000.0\n\nmodel\t: x\ncpu MHz\t\t: 3000.5\n")
    assert facts.clock_mhz() == 2500.25
    monkeypatch.setattr(facts, "read_text", lambda path: None)
    assert facts.clock_mhz() is None


def test_nothing_is_said_where_nothing_is_amiss(quiet: pytest.MonkeyPatch) -> None:
    assert machine.warnings(2) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("governor", "powersave", "cpupower frequency-set -g performance"),
        ("turbo", True, "turbo is on"),
        ("cpu_quota", 2.0, "raise the limit to 3"),
        ("processors", 1, "--threads 1"),
    ],
)
def test_each_disturbance_gets_its_own_advice(quiet: pytest.MonkeyPatch, name: str, value: object, words: str) -> None:
    quiet.setattr(facts, name, lambda: value)
    assert any(words in sentence for sentence in machine.warnings(2))


def test_busy_neighbours_are_noticed(quiet: pytest.MonkeyPatch) -> None:
    quiet.setattr("os.getloadavg", lambda: (3.5, 1.0, 1.0))
    [sentence] = machine.warnings(1)
    assert "load 3.50 on 4 processors" in sentence


def test_container_limits_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "read_text", lambda path: "150000 100000" if str(path).endswith("cpu.max") else None)
    assert facts.cpu_quota() == 1.5
    monkeypatch.setattr(facts, "read_text", lambda path: "max 100000" if str(path).endswith("cpu.max") else None)
    assert facts.cpu_quota() is None


def test_a_ceiling_takes_the_better_stores_and_interpolates_over_the_logarithm() -> None:
    assert CURVE.best("copy", 1, 1 << 20) == 30.0
    assert CURVE.best("copy", 1, 1 << 15) == pytest.approx(65.0)
    assert CURVE.best("copy", 1, 1) == 100.0
    assert CURVE.best("copy", 1, 1 << 40) == 30.0
    assert CURVE.best("copy", 2, 1 << 30) == 10.0
    assert CURVE.best("triad", 1, 1 << 20) is None


def test_a_disturbed_point_does_not_lower_the_ceiling() -> None:
    disturbed = Ceilings((point(1 << 10, 9.0), point(1 << 20, 20.0), point(1 << 20, 3.0, 2), point(1 << 30, 5.0, 2)))
    assert disturbed.best("copy", 1, 1 << 10) == 20.0
    assert disturbed.best("copy", 2, 1 << 20) == 20.0
    assert disturbed.best("copy", 1, 1 << 30) == 20.0 and disturbed.best("copy", 2, 1 << 30) == 5.0


class FakeLibrary:
    """Loops that take a nanosecond for every 8 bytes, twice as long without prefetching."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def __getattr__(self, name: str) -> object:
        def loop(*what: int) -> float:
            *addresses, part, threads, style, repeats = what
            self.calls.append((len(addresses), part, threads, style, repeats))
            assert len(set(addresses)) == len(addresses)
            return part / 8e9 * (1 if style & probe.PREFETCH else 2)

        return loop


def test_a_point_counts_all_arrays_and_takes_the_fastest_style(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeLibrary()
    monkeypatch.setattr(probe, "library", lambda: fake)
    monkeypatch.setattr(bandwidth, "sizes", lambda: [1 << 20])
    assert bandwidth.measure("copy", "ordinary", 2, 1 << 20) == pytest.approx(16.0)
    assert bandwidth.measure("triad", "streaming", 1, 1 << 20) == pytest.approx(24.0)
    assert bandwidth.measure("read", "ordinary", 1, 1 << 20) == pytest.approx(8.0)
    assert {call[:4] for call in fake.calls} == {
        *((2, 1 << 19, 2, style) for style in (0, 2)),
        *((3, (1 << 20) // 3 // 64 * 64, 1, style) for style in (1, 3)),
        *((2, 1 << 20, 1, style) for style in (0, 2)),
    }
    bandwidth._memory.cache_clear()


def test_what_takes_long_runs_twice_and_what_is_short_is_repeated() -> None:
    repeats: list[int] = []

    def lasts(seconds: float) -> float:
        def run(count: int) -> float:
            repeats.append(count)
            return seconds / len(repeats)

        repeats.clear()
        return bandwidth._fastest(run, 0.01)

    assert lasts(1.0) == 0.5 and repeats == [1, 1]
    assert lasts(1e-6) < 1e-6 and max(repeats) >= 1000
    assert lasts(-1.0) < 0


def test_a_machine_without_the_loops_has_no_ceilings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(probe, "library", lambda: None)
    with pytest.raises(EnvironmentUnfit, match="reinstall lnbench"):
        machine.ceilings()
    assert not list(tmp_path.iterdir())


def test_the_loops_of_the_library_move_memory() -> None:
    if probe.library() is None:
        pytest.skip("the helper was not built")
    assert all(bandwidth.measure(o, s, 2, 1 << 15, 0.0) > 0 for _, _, o, s in bandwidth.plan([1])[:5])
    assert bandwidth._memory(bandwidth.sizes()[-1])._floats[-1] > 0
    bandwidth._memory.cache_clear()


def test_working_sets_are_powers_of_two_from_the_first_cache_to_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(b == 2 * a for a, b in pairwise(bandwidth.sizes()))
    assert bandwidth.sizes()[0] == 32 << 10
    monkeypatch.setattr(facts, "memory_limit", lambda: 1 << 28)
    assert bandwidth.sizes()[-1] == 1 << 25
    monkeypatch.setattr(facts, "processors", lambda: 12)
    assert {n for n, *_ in bandwidth.plan()} == {1, 2, 4, 8, 12}


def test_ceilings_of_a_busy_machine_are_measured_again_when_it_is_quiet(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(bandwidth, "measure", lambda *what: 1.0)
    monkeypatch.setattr(bandwidth, "_load", lambda: 3.0)
    assert machine.ceilings(counts=[1]).is_doubtful and bandwidth.stored() is not None
    monkeypatch.setattr(bandwidth, "_load", lambda: 0.1)
    assert bandwidth.stored() is None
    assert not machine.ceilings(counts=[1]).is_doubtful and bandwidth.stored() is not None


def test_ceilings_are_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls: list[tuple[object, ...]] = []

    def measure(*what: object) -> float:
        calls.append(what)
        return float(len(calls))

    monkeypatch.setattr(bandwidth, "measure", measure)
    monkeypatch.setattr(bandwidth, "_load", lambda: 0.0)
    first = machine.ceilings(counts=[1, 2])
    assert len(calls) == len(machine.plan([1, 2])) == len(first.points)
    assert machine.ceilings() == first and len(calls) == len(first.points)
    assert machine.ceilings(fresh=True, counts=[1]) != first
    bandwidth.cache_file().write_text("broken")
    assert bandwidth.stored() is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(bandwidth, "measure", lambda *what: 1.0)
    assert machine.ceilings(counts=[1]).points


def test_the_chart_has_a_column_per_working_set_as_high_as_its_share() -> None:
    lines = doctor.ceilings_chart(CURVE)
    assert [line for line in lines if line.startswith("copy")] == [
        "copy, 1 thread, GB/s by working set",
        "copy, 4 threads, GB/s by working set",
    ]
    chart = lines[1 : 1 + doctor.HEIGHT]
    assert [line[2:5] for line in chart] == ["███"] * doctor.HEIGHT
    assert [line[7:10].strip() for line in chart] == ["", "", "", "▄▄▄", "███"]
    assert lines[1 + doctor.HEIGHT].split() == ["100", "30"]
    assert lines[2 + doctor.HEIGHT].split() == ["1K", "1M"]


def test_sizes_are_for_people() -> None:
    assert [doctor.size(n) for n in (0, 1023, 1 << 15, 3 << 29)] == ["0 B", "1023 B", "32 KiB", "1.5 GiB"]


def test_the_facts_are_shown_with_and_without_container_limits() -> None:
    found = machine.environment()
    for quota, limit in ((None, None), (1.5, 1 << 30)):
        rows = dict(doctor.facts({**found, "cpu_quota": quota, "memory_limit_bytes": limit}))
        assert rows.get("container limits") == (None if quota is None else "1.5 processors, 1 GiB")
        assert rows["processor"] == found["cpu"]
