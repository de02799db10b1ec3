"""When each token was done: a clock for the CPU, events for CUDA."""

from __future__ import annotations

import time

import torch


class CpuClock:
    """Seconds after the start at each mark. CPU operations have ended when their call returns."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._marks: list[float] = []

    def mark(self) -> None:
        self._marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        return [round(mark - self._start, 7) for mark in self._marks]


class CudaClock:
    """The same with CUDA events, so that the host never waits for the device between tokens."""

    def __init__(self) -> None:
        torch.cuda.synchronize()
        self._start = self._event()
        self._marks: list[torch.cuda.Event] = []

    def mark(self) -> None:
        self._marks.append(self._event())

    def seconds(self) -> list[float]:
        torch.cuda.synchronize()
        return [round(self._start.elapsed_time(mark) / 1e3, 7) for mark in self._marks]

    @staticmethod
    def _event() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def start(device: str) -> CpuClock | CudaClock:
    """A clock of the device, started now."""
    return CudaClock() if device == "cuda" else CpuClock()
