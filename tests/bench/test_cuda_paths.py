"""What is done on a CUDA device alone, with a pretended torch.cuda: the order of calls, units, what is subtracted."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.instruments import clock, memory, race
from bench.launch import __main__ as child
from reports.records import provenance

MILLISECONDS = [0.0]  # of the pretended device


class Event:
    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = MILLISECONDS[0]

    def elapsed_time(self, later: "Event") -> float:
        return later.at - self.at


class Stream:
    def wait_stream(self, other: "Stream") -> None:
        assert isinstance(other, Stream)


class Graph:
    """Replays what `graph` was told to capture."""

    captured: Callable[[], object]

    def replay(self) -> None:
        Graph.captured()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was asked of torch.cuda, and a torch.cuda that can be asked."""
    found: list[str] = []

    def noted(name: str, value: Any = None) -> Callable[..., Any]:
        return lambda *_: found.append(name) or value

    @contextmanager
    def capture(graph: Graph) -> Iterator[None]:
        found.append("capture")
        yield

    stands = {name: noted(name) for name in ("synchronize", "empty_cache", "reset_peak_memory_stats")}
    stands |= {"memory_allocated": noted("memory_allocated", 100), "max_memory_allocated": noted("max", 450)}
    stands |= {"memory_reserved": noted("memory_reserved", 2000), "is_initialized": noted("is_initialized", True)}
    stands |= {"Event": Event, "Stream": Stream, "current_stream": Stream, "CUDAGraph": Graph, "graph": capture}
    stands |= {"stream": lambda _: nullcontext()}
    stands |= {"get_device_properties": lambda: SimpleNamespace(uuid="12-34")}
    for name, stand in stands.items():
        monkeypatch.setattr(torch.cuda, name, stand)
    return found


def take(milliseconds: float) -> None:
    MILLISECONDS[0] += milliseconds


def test_the_clock_gives_seconds_since_it_was_made(calls: list[str]) -> None:
    started = clock.start("cuda")
    for _ in range(2):
        take(4.0)
        started.mark()
    assert calls == ["synchronize"], "the host waits for the device before and after, never between"
    assert started.seconds() == pytest.approx([0.004, 0.008]) and calls == ["synchronize"] * 2


def test_a_race_times_the_graph_beside_the_call(calls: list[str]) -> None:
    out = torch.zeros(3)

    def fill() -> torch.Tensor:
        take(5.0)
        return out.fill_(1.0)

    Graph.captured = lambda: (take(1.0), out.fill_(1.0))
    samples, graphed = race.race({"ours": fill, "floor": lambda: take(2.0)}, "cuda", 3, graphs=["ours"])
    assert graphed == ["ours"] and "capture" in calls
    seconds = samples["seconds"]
    assert {name: times[0] for name, times in seconds.items()} == pytest.approx(
        {"ours eager": 5e-3, "floor": 2e-3, "ours": 1e-3}
    )
    assert {len(times) for times in seconds.values()} == {3}


def test_a_graph_that_writes_nothing_is_not_timed(calls: list[str]) -> None:
    Graph.captured = lambda: None
    with pytest.raises(RuntimeError, match="does not write"):
        race.race({"ours": lambda: torch.ones(2)}, "cuda", 3, graphs=["ours"])


def test_what_cannot_be_captured_runs_without_a_graph(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(graph: Graph) -> None:
        raise torch.AcceleratorError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    samples, graphed = race.race({"ours": lambda: take(1.0)}, "cuda", 3, graphs=["ours"])
    assert not graphed and set(samples["seconds"]) == {"ours eager"}


def test_memory_is_what_comes_beyond_what_was_there(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(uuid: str) -> str:
        assert uuid == "GPU-12-34"
        return "handle"

    processes = [SimpleNamespace(pid=1, usedGpuMemory=7), SimpleNamespace(pid=os.getpid(), usedGpuMemory=5000)]
    nvml = SimpleNamespace(
        NVMLError=OSError,
        nvmlDeviceGetHandleByUUID=handle,
        nvmlDeviceGetComputeRunningProcesses=lambda _: processes,
    )
    monkeypatch.setattr(provenance, "nvml", lambda: nvml)
    peak = memory.Peak("cuda")
    assert calls == ["synchronize", "empty_cache", "memory_allocated"]
    with peak.tracking(), peak.watch():
        torch.zeros(10)
    assert calls[3:] == ["reset_peak_memory_stats", "max"]
    assert peak.metrics() == {
        "peak_live_bytes": 40,
        "cuda_peak_bytes": 350,
        "cuda_reserved_bytes": 2000,
        "nvml_process_bytes": 5000,
    }


def test_between_cells_the_memory_is_given_back(calls: list[str]) -> None:
    child._free()
    assert calls == ["is_initialized", "empty_cache", "reset_peak_memory_stats"]
