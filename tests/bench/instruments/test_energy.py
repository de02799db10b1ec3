"""Joules from counters: whose they are, and what is said where none can be read."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.instruments.energy import Meter


def zone(folder: Path, name: str, microjoules: str) -> Path:
    counter = folder / name / "energy_uj"
    counter.parent.mkdir(parents=True)
    counter.write_text(microjoules)
    return counter


def test_a_processors_packages_are_added_and_not_their_parts(tmp_path: Path) -> None:
    first, second = zone(tmp_path, "intel-rapl:0", "5000000\n"), zone(tmp_path, "intel-rapl:1", "1000000\n")
    part = zone(tmp_path, "intel-rapl:0:0", "7000000\n")
    meter = Meter("cpu", tmp_path)
    assert not meter.missing and meter.since() == 6.0
    before = meter.since()
    first.write_text("5500000\n"), second.write_text("1250000\n"), part.write_text("9000000\n")
    assert meter.since(before) == pytest.approx(0.75)
    first.write_text("0\n")  # the counter has run over
    assert meter.since(before) is None


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    assert "no counter" in (meter := Meter("cpu", tmp_path)).missing and meter.since(meter.since()) is None
    zone(tmp_path, "intel-rapl:0", "not a number")
    assert "holds no number" in Meter("cpu", tmp_path).missing


def test_a_gpus_counter_is_in_millijoules(monkeypatch: pytest.MonkeyPatch) -> None:
    class NVMLError(Exception):
        pass

    used = [4000]

    def read(handle: Any) -> int:
        if not used:
            raise NVMLError("Not Supported")
        return used[0]

    fake = SimpleNamespace(NVMLError=NVMLError, nvmlDeviceGetTotalEnergyConsumption=read)
    monkeypatch.setattr("reports.records.provenance.nvml", lambda: fake)
    monkeypatch.setattr("bench.instruments.energy.gpu_handle", lambda nvml: 0)
    meter = Meter("cuda")
    before = meter.since()
    used[0] = 6500
    assert meter.since(before) == 2.5
    used.clear()
    assert Meter("cuda").missing == "NVML: Not Supported"
    monkeypatch.setattr("reports.records.provenance.nvml", lambda: None)
    assert Meter("cuda").missing == "no NVML"
