"""Joules that the device has used: by a counter of NVML on a GPU, of RAPL where the system shows a processor's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.instruments.memory import gpu_handle
from reports.records import provenance

POWERCAP = Path("/sys/class/powercap")


class Meter:
    """Reads the counter of one device. missing: why there is none; empty where there is one."""

    def __init__(self, device: str, powercap: Path = POWERCAP) -> None:
        self.missing = ""
        self._read: Callable[[], float] | None = self._gpu() if device == "cuda" else self._processor(powercap)

    def since(self, before: float | None = 0.0) -> float | None:
        """Joules that the whole device has used since the counter stood at `before`, which an earlier call without it
        returns; None where there is no counter, or where it began anew.
        """
        if self._read is None or before is None:
            return None
        used = self._read() - before
        return used if used >= 0 else None

    def _gpu(self) -> Callable[[], float] | None:
        nvml = provenance.nvml()
        if nvml is None:
            self.missing = "no NVML"
            return None
        try:
            handle = gpu_handle(nvml)
            nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except nvml.NVMLError as error:
            self.missing = f"NVML: {error}"
            return None
        return lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3  # millijoules

    def _processor(self, powercap: Path) -> Callable[[], float] | None:
        zones = (zone for zone in sorted(powercap.glob("intel-rapl:*")) if zone.name.count(":") == 1)  # no parts of one
        counters = [zone / "energy_uj" for zone in zones]
        if not counters:
            self.missing = f"{powercap} has no counter of a processor"
            return None
        try:
            _microjoules(counters)
        except (OSError, ValueError) as error:
            self.missing = f"{counters[0]}: {getattr(error, 'strerror', None) or 'holds no number'}"
            return None
        return lambda: _microjoules(counters) / 1e6


def _microjoules(counters: list[Path]) -> int:
    return sum(int(counter.read_text(encoding="ascii")) for counter in counters)
