"""What disturbs a timed cell: counters read from files made here, limits, measuring again, and a real neighbour."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.instruments import counters, disturbance, memory
from bench.instruments.disturbance import excess, verdict, watched
from reports.records import provenance

BEST = {"spin_s": 2e-3, "copy_s": 6e-3, "sm_mhz": 1980.0}
QUIET = {  # the worst of what quiet intervals showed
    "wall_s": 0.35,
    "waited": 0.019,
    "worst_waited": 0.019,
    "others_cores": 0.08,
    "steal": 0.028,
    "switches": 16,
    "switches_per_s": 47.0,
    "cores": 2,
    "cores_used": 1.98,
    "spin_s": 3.74e-3,
    "copy_s": 9.6e-3,
}
GPU = {"sm_mhz": 1950, "throttle": 4, "slowed": [], "gpu_processes": 0}


def system(folder: Path, waits: dict[int, int], busy: int, steal: int, columns: int = 10) -> Path:
    """A /proc of this process: nanoseconds that each thread has waited, ticks of each of its cores."""
    for thread, wait in waits.items():
        (folder / f"self/task/{thread}").mkdir(parents=True, exist_ok=True)
        (folder / f"self/task/{thread}/schedstat").write_text(f"5000000 {wait} 7\n")
    ticks = [busy - 9, 4, 3, 100_000, 50, 1, 1, steal, 0, 0][:columns]
    cores = sorted(os.sched_getaffinity(0))
    lines = [f"cpu{core} {' '.join(map(str, ticks))}" for core in [*cores, max(cores) + 1]]
    (folder / "stat").write_text("\n".join(["cpu  9 9 9 9 9 9 9 9 9 9", *lines, "intr 1 2 3", ""]))
    return folder


def test_counters_are_those_of_the_process_and_its_cores(tmp_path: Path) -> None:
    cores, tick = len(os.sched_getaffinity(0)), 1 / os.sysconf("SC_CLK_TCK")
    before = counters.read(system(tmp_path, {1: 10**9, 2: 10**9}, 1000, 5))
    assert before.waits == {"1": 1.0, "2": 1.0} and before.cores == cores
    assert before.busy_s == pytest.approx(cores * 1000 * tick) and before.steal_s == pytest.approx(cores * 5 * tick)
    for file in (tmp_path / "self/task/2").iterdir():
        file.unlink()  # this thread ends, another one begins
    after = counters.read(system(tmp_path, {1: 1_100_000_000, 3: 300_000_000}, 1100, 8))
    wall = after.began - before.ended
    figures = counters.between(before, after)
    assert figures["wall_s"] == pytest.approx(wall)
    assert figures["waited"] * wall == pytest.approx(0.4) and figures["worst_waited"] * wall == pytest.approx(0.3)
    assert figures["steal"] * wall == pytest.approx(cores * 3 * tick)
    assert (figures["others_cores"] + figures["cores_used"]) * wall == pytest.approx(cores * 100 * tick)


@pytest.mark.parametrize(
    "missing,lacking",
    [
        ("self", {"/proc/self/task/*/schedstat"}),
        ("zero waits", {"/proc/self/task/*/schedstat"}),
        ("stat", {"/proc/stat (cores)", "/proc/stat (steal)"}),
        ("zero ticks", {"/proc/stat (cores)", "/proc/stat (steal)"}),
        ("cores of a container", {"/proc/stat (cores)", "/proc/stat (steal)"}),
        ("old kernel", {"/proc/stat (steal)"}),
        ("all", {"/proc/self/task/*/schedstat", "/proc/stat (cores)", "/proc/stat (steal)"}),
    ],
)
def test_what_a_system_does_not_show_is_not_watched(tmp_path: Path, missing: str, lacking: set[str]) -> None:
    system(tmp_path, {1: 10**9}, 1000, 5, columns=7 if missing == "old kernel" else 10)
    if missing in ("self", "all"):
        (tmp_path / "self/task/1/schedstat").unlink()
    if missing in ("stat", "all"):
        (tmp_path / "stat").unlink()
    if missing == "zero waits":
        (tmp_path / "self/task/1/schedstat").write_text("0 0 0\n")
    if missing == "zero ticks":
        (tmp_path / "stat").write_text("".join(f"cpu{core}{10 * ' 0'}\n" for core in os.sched_getaffinity(0)))
    if missing == "cores of a container":
        (tmp_path / "stat").write_text("cpu99999 1 2 3 4 5 6 7 8 9 10\n")
    _, samples = watched(lambda i: i, 3, disturbance.Watch("cpu", tmp_path))
    assert set(samples["not_watched"]) == lacking
    names = {name for name, where in counters.SOURCES.items() if where in lacking}
    assert all(interval[name] is None for interval in samples["intervals"] for name in names)


def test_a_system_that_shows_everything_is_watched_wholly() -> None:
    before = counters.read()
    if before.waits is None or before.busy_s is None or before.steal_s is None:
        pytest.skip("this system shows less")
    _, samples = watched(lambda i: time.sleep(0.01), 3, disturbance.Watch("cpu"))
    assert samples["not_watched"] == [] and {"waited", "steal", "spin_s", "copy_s"} <= samples["intervals"][0].keys()


@pytest.mark.parametrize(
    "changes,what",
    [
        ({"worst_waited": 0.041}, "a thread waited 4% of the time"),
        ({"others_cores": 0.31}, "others used 0.31 of its 2 cores"),
        ({"others_cores": 0.9, "wall_s": 0.06}, "others used 0.90"),
        ({"steal": 0.09}, "the host took 9% of a core"),
        ({"switches": 60, "switches_per_s": 171.0}, "171 involuntary switches a second"),
        ({"switches": 28, "switches_per_s": 81.0, "cores_used": 0.5}, "81 involuntary switches a second"),
        ({"spin_s": 4.2e-3}, "a fixed computation took 2.10 x its best time"),
        ({"copy_s": 12.6e-3}, "a copy took 2.10 x its best time"),
        ({**GPU, "sm_mhz": 1500}, "the GPU's clock was at 76% of its best"),
        ({**GPU, "slowed": ["heat"]}, "the GPU was slowed down (heat)"),
        ({**GPU, "gpu_processes": 2}, "processes of others on the GPU: 2"),
    ],
)
def test_beyond_its_limit_each_figure_is_a_reason(changes: dict[str, Any], what: str) -> None:
    found = excess({**QUIET, **changes}, BEST)
    assert [reason for reason in found if reason.startswith(what)] == list(found) and len(found) == 1
    assert all(times >= 1 for times in found.values())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        GPU,
        {"worst_waited": 0.039},
        {"worst_waited": 0.06, "wall_s": 0.06},  # 3.6 ms: one slice of a kernel's thread
        {"others_cores": 0.29},
        {"others_cores": 0.6, "wall_s": 0.06},  # less than four ticks
        {"steal": 0.3, "wall_s": 0.06},  # less than three
        {"switches": 9, "switches_per_s": 150.0, "wall_s": 0.06},
        {"switches": 400, "switches_per_s": 400.0, "cores_used": 16.0},  # as many as with 1 of 1
        {"others_cores": 0.79, "cores": 16},
        {**GPU, "others_cores": 5.0, "copy_s": 1.0},  # no concern of a GPU
        {"worst_waited": None, "others_cores": None, "steal": None},
    ],
)
def test_below_its_limit_nothing_is_a_reason(changes: dict[str, Any]) -> None:
    assert excess({**QUIET, **changes}, BEST) == {}


class Script:
    """A watch that sees, one interval after the other, how long a thread waited."""

    best = BEST

    def __init__(self, *waited: float) -> None:
        self.waited = list(waited)

    def over(self, call: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
        return call(), {**QUIET, "worst_waited": self.waited.pop(0)}


@pytest.mark.parametrize(
    "waited,calls,kept,again,disturbed",
    [
        ([0.0, 0.0, 0.0], [0, 1, 2], [0, 1, 2], 0, 0),
        ([0.0, 0.5, 0.0, 0.0], [0, 1, 2, 1], [0, 3, 2], 1, 0),
        ([0.3, 0.5, 0.0, 0.0, 0.0], [0, 1, 2, 1, 0], [4, 3, 2], 2, 0),  # the worst first
        ([0.5, 0.5, 0.5, 0.6, 0.0, 0.4], [0, 1, 2, 0, 0, 1], [4, 5, 2], 3, 2),  # never more than three more
        ([0.5, 0.0, 0.0, 0.6, 0.7, 0.8], [0, 1, 2, 0, 0, 0], [0, 1, 2], 3, 1),  # the cleanest is kept
    ],
)
def test_a_disturbed_interval_is_measured_again(
    waited: list[float], calls: list[int], kept: list[int], again: int, disturbed: int
) -> None:
    called: list[int] = []

    def attempt(number: int) -> int:
        called.append(number)
        return len(called) - 1

    results, samples = watched(attempt, 3, Script(*waited))  # type: ignore[arg-type]
    assert called == calls and results == kept and samples["again"] == again
    assert [interval["worst_waited"] for interval in samples["intervals"]] == [waited[i] for i in kept]
    assert sum(bool(interval["reasons"]) for interval in samples["intervals"]) == disturbed
    line = verdict({"disturbance": samples})
    assert line.startswith(f"{disturbed} of 3 intervals, after {again} more; ") if disturbed else line == ""


def test_the_verdict_names_the_worst_interval_gravest_reason_first() -> None:
    intervals = [{"reasons": {"a": 1.5, "b": 1.2}}, {"reasons": {}}, {"reasons": {"c": 2.0, "d": 9.0}}]
    assert verdict({"disturbance": {"intervals": intervals, "again": 3}}).endswith(
        "2 of 3 intervals, after 3 more; the worst: d; c"
    )
    assert verdict({}) == ""


def test_an_earlier_interval_is_compared_with_a_later_calibration() -> None:
    script = Script(*[0.0] * 6)

    def attempt(number: int) -> None:
        if number == 2:
            script.best = {**BEST, "copy_s": 2e-3}  # so long the host was slow

    _, samples = watched(attempt, 3, script)  # type: ignore[arg-type]
    assert samples["again"] == 3 and samples["best"]["copy_s"] == 2e-3
    assert all("a copy took 4.80 x its best time" in interval["reasons"] for interval in samples["intervals"])


def test_a_calibration_counts_that_is_slow_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = disturbance.Watch("cpu")
    slow, fast = {"spin_s": 0.5, "copy_s": 0.7}, {"spin_s": 2e-3, "copy_s": 6e-3}
    ends = iter([slow, slow, fast, slow])
    monkeypatch.setattr(watch._calibration, "measure", lambda: next(ends))
    samples = [watch.over(lambda: time.sleep(0.001))[1] for _ in range(4)]
    assert [figures["spin_s"] > 0.1 for figures in samples] == [False, True, False, False]


def test_nvml_is_asked_for_clock_throttling_and_others(monkeypatch: pytest.MonkeyPatch) -> None:
    pids = [os.getpid(), os.getppid(), 7, 8]
    nvml = SimpleNamespace(
        NVMLError=ZeroDivisionError,
        NVML_CLOCK_SM=1,
        nvmlClocksThrottleReasonHwSlowdown=8,
        nvmlClocksThrottleReasonHwThermalSlowdown=64,
        nvmlClocksThrottleReasonSwThermalSlowdown=32,
        nvmlClocksThrottleReasonHwPowerBrakeSlowdown=128,
        nvmlDeviceGetClockInfo=lambda handle, kind: 1980,
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: 32 | 4,
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [SimpleNamespace(pid=pid) for pid in pids],
    )
    monkeypatch.setattr(provenance, "nvml", lambda: nvml)
    monkeypatch.setattr(memory, "gpu_handle", lambda nvml: "handle")
    assert counters.gpu() == {"sm_mhz": 1980, "throttle": 36, "slowed": ["heat"], "gpu_processes": 2}
    pids[:] = [7]  # a container's own process, under the host's number
    assert counters.gpu()["gpu_processes"] == 0
    nvml.nvmlDeviceGetClockInfo = lambda handle, kind: 1 // 0
    assert counters.gpu()["sm_mhz"] is None and counters.gpu()["throttle"] == 36
    monkeypatch.setattr(provenance, "nvml", lambda: None)
    _, samples = watched(lambda i: None, 2, disturbance.Watch("cuda"))
    assert {"NVML (clocks)", "NVML (throttle reasons)", "NVML (processes)"} <= set(samples["not_watched"])


def test_a_neighbour_on_the_same_core_is_seen() -> None:
    cores = os.sched_getaffinity(0)
    neighbour = None
    try:
        os.sched_setaffinity(0, {min(cores)})  # what is started here inherits it
        neighbour = subprocess.Popen(
            [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
        )
        assert neighbour.stdout is not None and neighbour.stdout.readline()
        before = counters.read()
        if before.waits is None or before.busy_s is None:
            pytest.skip("this system does not show who waits")
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            pass
        figures = counters.between(before, counters.read())
    finally:
        os.sched_setaffinity(0, cores)
        if neighbour is not None:
            neighbour.kill()
            neighbour.communicate()
    assert figures["worst_waited"] > 3 * disturbance.WAITED and figures["others_cores"] > disturbance.OTHERS_CORES
    reasons = " ".join(excess({**figures, "spin_s": 2e-3, "copy_s": 6e-3}, BEST))
    assert "a thread waited" in reasons and "others used" in reasons


def test_a_part_without_a_quiet_interval_disturbs_its_cell() -> None:
    def part(*reasons: bool) -> dict[str, Any]:
        intervals = [{"reasons": {"others used 1 of its 2 cores": 2.0} if one else {}} for one in reasons]
        return {"intervals": intervals, "again": 1, "best": {}, "not_watched": []}

    quiet, some, none = part(False, False), part(True, False), part(True, True)
    assert disturbance.verdict({"disturbance": disturbance.joined([quiet, some])}) == ""
    line = disturbance.verdict({"disturbance": disturbance.joined([some, none, quiet])})
    assert line.startswith("3 of 6 intervals, after 3 more; ")
    assert disturbance.verdict({"disturbance": some}).startswith("1 of 2"), "of repeats of one number each counts"
