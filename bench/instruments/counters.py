"""Counters of the system, read around what is timed: this process's, its cores', its GPU's.

Each may be missing (another system, a sandbox such as gVisor, a container that numbers cores anew): it is None then.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.instruments import memory
from reports.records import provenance
from rwkv_core import machine

PROC = Path("/proc")
SOURCES = {  # the figures that a missing source leaves out
    "waited": "/proc/self/task/*/schedstat",
    "others_cores": "/proc/stat (cores)",
    "steal": "/proc/stat (steal)",
    "sm_mhz": "NVML (clocks)",
    "throttle": "NVML (throttle reasons)",
    "gpu_processes": "NVML (processes)",
}
Figures = dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """began, ended: seconds at which reading did. waits: {thread: seconds it has waited for a core}. switches:
    involuntary ones. busy_s, steal_s: of the `cores` that the process may use, for anybody, and taken by the host.
    """

    began: float
    cpu_s: float
    switches: int
    waits: Mapping[str, float] | None
    busy_s: float | None
    steal_s: float | None
    cores: int
    ended: float


def read(proc: Path = PROC) -> Reading:
    """The counters now, in less than a millisecond."""
    began = time.perf_counter()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cores = machine.affinity()
    busy, steal = _cores(proc / "stat", cores)
    waits, cpu = _waits(proc / "self/task"), usage.ru_utime + usage.ru_stime
    return Reading(began, cpu, usage.ru_nivcsw, waits, busy, steal, len(cores), time.perf_counter())


def _waits(folder: Path) -> dict[str, float] | None:
    ran, waits = 0, {}
    try:
        with os.scandir(folder) as threads:
            for thread in threads:
                try:
                    running, waiting, _ = map(int, Path(thread.path, "schedstat").read_text(encoding="ascii").split())
                except (FileNotFoundError, ProcessLookupError):  # the thread has ended, or the system has no such file
                    continue
                ran += running
                waits[thread.name] = waiting / 1e9
    except (OSError, ValueError):
        return None
    return waits if ran else None  # some kernels show zeros


def _cores(stat: Path, cores: Iterable[int]) -> tuple[float | None, float | None]:
    """Seconds that these cores were busy for anybody, and that the host took from them."""
    names = {f"cpu{core}" for core in cores}
    try:
        with stat.open(encoding="ascii") as file:
            lines = [line.split() for line in file if line.startswith("cpu")]
        ticks = [[int(n) for n in numbers] for name, *numbers in lines if name in names]
        busy = sum(user + nice + system + irq + soft for user, nice, system, _, _, irq, soft, *_ in ticks)
    except (OSError, ValueError):
        return None, None
    if len(ticks) < len(names) or not busy:  # cores of the container's own, or nothing but zeros
        return None, None
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    steal = sum(numbers[7] for numbers in ticks) * tick_s if min(map(len, ticks)) > 7 else None
    return busy * tick_s, steal


def between(before: Reading, after: Reading) -> Figures:
    """What happened between two readings.

    wall_s; waited and worst_waited: by all threads together and by the worst one, of the wall time; switches and
    switches_per_s: involuntary; cores: that the process may use; cores_used: by this process; others_cores: by
    everybody else; steal: of one core's time. A thread that begins meanwhile counts from then on; one that ends
    does not count.
    """
    wall = after.began - before.ended
    used = (after.cpu_s - before.cpu_s) / wall
    switches = after.switches - before.switches
    figures: Figures = {"wall_s": wall, "waited": None, "worst_waited": None, "others_cores": None, "steal": None}
    figures |= {"switches": switches, "switches_per_s": switches / wall, "cores": after.cores, "cores_used": used}
    if before.waits is not None and after.waits is not None:
        waits = [max(0.0, wait - before.waits.get(thread, 0.0)) / wall for thread, wait in after.waits.items()]
        figures |= {"waited": sum(waits), "worst_waited": max(waits)}
    if before.busy_s is not None and after.busy_s is not None:
        figures["others_cores"] = (after.busy_s - before.busy_s) / wall - used
    if before.steal_s is not None and after.steal_s is not None:
        figures["steal"] = (after.steal_s - before.steal_s) / wall
    return figures


def gpu() -> Figures:
    """sm_mhz; throttle (NVML's bits); slowed: those bits that are not the load's own, in words; gpu_processes of
    others; None for what the driver does not tell."""
    figures: Figures = {"sm_mhz": None, "throttle": None, "slowed": [], "gpu_processes": None}
    nvml = provenance.nvml()
    if nvml is None:
        return figures
    with contextlib.suppress(nvml.NVMLError):
        handle = memory.gpu_handle(nvml)
        with contextlib.suppress(nvml.NVMLError):
            figures["sm_mhz"] = nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)
        with contextlib.suppress(nvml.NVMLError):
            figures["throttle"] = bits = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
            slowing = {
                "hardware": nvml.nvmlClocksThrottleReasonHwSlowdown,
                "heat": nvml.nvmlClocksThrottleReasonHwThermalSlowdown | nvml.nvmlClocksThrottleReasonSwThermalSlowdown,
                "power supply": nvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown,
            }
            figures["slowed"] = [why for why, mask in slowing.items() if bits & mask]
        with contextlib.suppress(nvml.NVMLError):
            pids = {process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)}
            hidden = os.getpid() not in pids  # in a container: this process stands there under the host's number
            figures["gpu_processes"] = max(0, len(pids - {os.getpid(), os.getppid()}) - hidden)
    return figures
