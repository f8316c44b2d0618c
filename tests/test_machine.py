"""The machine: facts are plain values, ceilings are kept, advice is given only where something is amiss."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lnbench import machine
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
    assert CURVE.best("copy", 2, 1 << 20) == 10.0
    assert CURVE.best("triad", 1, 1 << 20) is None


def test_ceilings_are_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls: list[tuple[object, ...]] = []

    def measure(*what: object) -> float:
        calls.append(what)
        return float(len(calls))

    monkeypatch.setattr(bandwidth, "measure", measure)
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


def test_the_chart_has_a_bar_per_place_as_long_as_its_share() -> None:
    lines = doctor.ceilings_chart(CURVE)
    assert len(lines) == 3
    assert lines[0].count("█") == doctor.BAR and lines[1].count("█") == round(doctor.BAR * 0.3)
    assert doctor.bar(0.0).strip() == "" and len(doctor.bar(0.51)) == doctor.BAR


def test_sizes_are_for_people() -> None:
    assert [doctor.size(n) for n in (0, 1023, 1 << 15, 3 << 29)] == ["0 B", "1023 B", "32 KiB", "1.5 GiB"]


def test_the_facts_are_shown_with_and_without_container_limits() -> None:
    found = machine.environment()
    for quota, limit in ((None, None), (1.5, 1 << 30)):
        rows = dict(doctor.facts({**found, "cpu_quota": quota, "memory_limit_bytes": limit}))
        assert rows.get("container limits") == (None if quota is None else "1.5 processors, 1 GiB")
        assert rows["processor"] == found["cpu"]
