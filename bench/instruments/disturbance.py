"""Whether something else took the machine while a cell was timed, and measuring again where it did.

Each interval (a repeat, a round of a race) is watched: counters are read at its ends, and a fixed computation and a
copy are timed before and after it for what counters cannot see (a slower host, memory bandwidth taken by another
guest). The limits come from a virtual machine of 2 cores (AMD EPYC, family 25) with RWKV-4 169M and Pythia 160M in
intervals of 8 tokens, 0.35 s; `make disturbance-check` counts what they find.
"""

from __future__ import annotations

import functools
import mmap
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bench.instruments import counters
from bench.instruments.counters import Figures

AGAIN = 1  # of the intervals that a cell consists of, at most so many times as many are measured again

# Quiet, the worst thread waited at most 1.9 % (2 threads); beside one busy loop on the same core 28 % and more, beside
# one that is busy 10 % of the time 6 %, beside one at nice 19, which costs nothing, 1.4 %.
WAITED = 0.04  # of the interval, by the worst thread
WAITED_S = 0.005  # and so long: one slice of a kernel's thread is 3 ms
# Quiet at most 24 a second and core in use, beside others who used a fifth of a core, at no cost in time, 78; beside a
# busy loop that shares its cores with two threads 90 and more.
SWITCHES = 80.0  # involuntary ones, a second and core in use
FEWEST_SWITCHES = 10
# Quiet at most 0.08 cores, which is what ticks of 10 ms make; beside a busy loop 0.97 and more with one thread, 0.8
# and more with two, which share their cores with it. Others who used 0.22 cores cost no time.
OTHERS_CORES = 0.3
OTHERS_SHARE = 0.05  # of the cores that the process may use, where that is more
OTHERS_S = 0.04  # four ticks
# Quiet 0 and seldom one tick or two; there was no second guest to measure with.
STEAL = 0.05  # of one core
STEAL_S = 0.03  # three ticks
# Of the best so far in the process. With nothing else in the virtual machine the computation took up to 1.87 of it and
# the copy 1.6 for some milliseconds at a time, as if the host's other guests shared the core; half the speed at both
# ends of an interval is more than that.
SPIN = 2.0
COPY = 2.0
CLOCK = 0.9  # of the GPU's best clock in the cell; no GPU has been measured yet

SPIN_STEPS = 40_000  # 2 ms
SPINS, COPIES = 3, 3  # the best of so many counts, so that one interrupt does not
COPY_BYTES = 64 << 20  # 6 ms, and more than most caches hold

T = TypeVar("T")


def excess(figures: Figures, best: Mapping[str, float]) -> dict[str, float]:
    """What disturbed an interval: {in words: how many times its limit}, each at least 1; empty where nothing did.

    best: the best `spin_s` and `copy_s` so far, and on a GPU `sm_mhz`. What others do on the host's cores and with its
    memory is no reason there as long as the threads of this process need not wait.
    """
    wall, cores = figures["wall_s"], figures["cores"]
    waited, steal, others = (figures[name] or 0.0 for name in ("worst_waited", "steal", "others_cores"))
    switches, spin = figures["switches_per_s"], figures["spin_s"] / best["spin_s"]
    ratios = {
        f"a thread waited {waited:.0%} of the time for a core": min(waited / WAITED, waited * wall / WAITED_S),
        f"{switches:.0f} involuntary switches a second": min(
            switches / max(1.0, figures["cores_used"]) / SWITCHES, switches * wall / FEWEST_SWITCHES
        ),
        f"the host took {steal:.0%} of a core": min(steal / STEAL, steal * wall / STEAL_S),
        f"a fixed computation took {spin:.2f} x its best time": spin / SPIN,
    }
    if "sm_mhz" not in figures:
        most, copy = max(OTHERS_CORES, OTHERS_SHARE * cores), figures["copy_s"] / best["copy_s"]
        ratios[f"others used {others:.2f} of its {cores} cores"] = min(others / most, others * wall / OTHERS_S)
        ratios[f"a copy took {copy:.2f} x its best time"] = copy / COPY
        return {what: times for what, times in ratios.items() if times >= 1}
    if figures["sm_mhz"]:
        clock = figures["sm_mhz"] / best["sm_mhz"]
        ratios[f"the GPU's clock was at {clock:.0%} of its best"] = CLOCK / clock
    ratios |= {f"the GPU was slowed down ({why})": 1.0 for why in figures["slowed"]}
    ratios[f"processes of others on the GPU: {figures['gpu_processes']}"] = float(figures["gpu_processes"] or 0)
    return {what: times for what, times in ratios.items() if times >= 1}


class Calibration:
    """A fixed computation and a copy by one thread, and their best times so far."""

    def __init__(self) -> None:
        self.best: dict[str, float] = {}
        self._source, self._target = (memoryview(mmap.mmap(-1, COPY_BYTES)) for _ in range(2))
        self._source[:] = b"\x5a" * COPY_BYTES  # what was never written lies in one cached page of zeros
        self._copy()  # the first time it is the system that takes the time
        for _ in range(3):
            self.measure()

    def measure(self) -> dict[str, float]:
        """spin_s and copy_s in seconds, about 25 ms in all."""
        now = {
            "spin_s": min(_seconds(self._spin) for _ in range(SPINS)),
            "copy_s": min(_seconds(self._copy) for _ in range(COPIES)),
        }
        self.best = {name: min(seconds, self.best.get(name, seconds)) for name, seconds in now.items()}
        return now

    @staticmethod
    def _spin() -> None:
        value = 1
        for i in range(SPIN_STEPS):
            value = (value * 7 + i) & 0xFFFF

    def _copy(self) -> None:
        self._target[:] = self._source


def _seconds(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


@functools.cache
def calibration() -> Calibration:
    """The process's only one: every cell in it is compared with the best of all."""
    return Calibration()


class Watch:
    """Watches the intervals of one cell, one after another."""

    def __init__(self, device: str, proc: Path = counters.PROC) -> None:
        self._device, self._proc = device, proc
        self._calibration = calibration()
        self._clock = 0.0
        self._before = self._calibration.measure()

    @property
    def best(self) -> dict[str, float]:
        return {**self._calibration.best, "sm_mhz": self._clock}

    def over(self, call: Callable[[], T]) -> tuple[T, Figures]:
        """What `call` returns, and the figures of the time that it took."""
        before = counters.read(self._proc)
        result = call()
        figures = counters.between(before, counters.read(self._proc))
        if self._device == "cuda":
            figures |= counters.gpu()
            self._clock = max(self._clock, figures["sm_mhz"] or 0.0)
        after = self._calibration.measure()
        figures |= {name: min(seconds, self._before[name]) for name, seconds in after.items()}  # slow at both ends
        self._before = after
        return result, figures


def watched(attempt: Callable[[int], T], count: int, watch: Watch) -> tuple[list[T], dict[str, Any]]:
    """The results of `attempt(0)` to `attempt(count - 1)`, the most disturbed of them measured again while there are
    any, `AGAIN * count` times at most, and of each the cleaner one kept; and what a record's samples keep of it.

    `intervals`: the figures of each kept result, and as `reasons` its `excess`; `again`: how often was measured again;
    `best`: what calibrations are compared with; `not_watched`: what the system does not show.
    """
    results, figures = map(list, zip(*(watch.over(functools.partial(attempt, i)) for i in range(count)), strict=True))

    def worst(one: Figures) -> float:
        return max(excess(one, watch.best).values(), default=0.0)

    again = 0
    while again < AGAIN * count and worst(figures[i := max(range(count), key=lambda i: worst(figures[i]))]):
        again += 1
        result, again_figures = watch.over(functools.partial(attempt, i))
        if worst(again_figures) < worst(figures[i]):
            results[i], figures[i] = result, again_figures
    intervals = [{**_rounded(one), "reasons": _rounded(excess(one, watch.best))} for one in figures]
    lacking = [where for name, where in counters.SOURCES.items() if figures[0].get(name, "") is None]
    return results, {"intervals": intervals, "again": again, "best": _rounded(watch.best), "not_watched": lacking}


def joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a record's samples keep of several calls of `watched` in one process, each of them a part of the cell."""
    return {
        "intervals": [{**interval, "part": i} for i, part in enumerate(parts) for interval in part["intervals"]],
        "again": sum(part["again"] for part in parts),
        "best": dict(parts[-1]["best"]),
        "not_watched": list(parts[-1]["not_watched"]),
    }


def _rounded(figures: Mapping[str, Any]) -> Figures:
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in figures.items()}


def verdict(samples: Mapping[str, Any]) -> str:
    """What disturbed a cell with these samples, in a line; empty where nothing did, or it was not watched.

    A cell of several parts is disturbed where one of them has no interval that is not.
    """
    watch = samples.get("disturbance", {"intervals": []})
    disturbed = [interval["reasons"] for interval in watch["intervals"] if interval["reasons"]]
    quiet = {interval["part"] for interval in watch["intervals"] if "part" in interval and not interval["reasons"]}
    if all(interval.get("part") in quiet for interval in watch["intervals"] if interval["reasons"]):
        return ""
    gravest = max(disturbed, key=lambda reasons: max(reasons.values()))
    what = "; ".join(sorted(gravest, key=lambda reason: -gravest[reason]))
    return f"{len(disturbed)} of {len(watch['intervals'])} intervals, after {watch['again']} more; the worst: {what}"
