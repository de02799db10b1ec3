"""The pass over growing contexts, on small models: what it reports, where it ends, and no time of a wrong state."""

from typing import Any

import pytest
import torch

from bench.instruments import cuda_graph
from bench.speed import decode, sweep
from rwkv_core.errors import BadInput, Unsupported
from rwkv_core.load import load
from rwkv_core.models import find
from rwkv_core.spec import LanguageModel
from tests.checks import parity
from tests.rwkv_core.runtimes.test_hf import small

CONTEXTS = "3, 8, 9, 30"


def models() -> list[Any]:
    return [parity.make("small"), small("pythia"), small("bloom"), small("mamba")]


def points(model: LanguageModel, **more: Any) -> list[dict[str, Any]]:
    arguments: dict[str, Any] = {"contexts": CONTEXTS, "steps": 4, "chunk": 8, "batch": 2}
    _, samples = decode.run(model, device="cpu", **arguments | more)
    return samples["points"]


@pytest.mark.parametrize("model", models(), ids=lambda m: m.spec.family)
def test_each_context_has_its_times_and_bytes(model: LanguageModel) -> None:
    metrics, samples = decode.run(model, device="cpu", contexts=CONTEXTS, steps=4, chunk=8, batch=2)
    assert metrics["parameter_bytes"] == 4 * metrics["parameters"]
    assert metrics["bandwidth"] > 1e8 and metrics["operations"] > 1e8 and "ended" not in metrics
    assert [point["context_tokens"] for point in samples["points"]] == [3, 8, 9, 30]
    for point in samples["points"]:
        in_one_piece = point["context_tokens"] <= 8 or not model.ragged
        assert len(point["first_token_seconds"]) == (3 if in_one_piece else 1)
        assert len(point["first_token_disturbed"]) == len(point["first_token_seconds"])
        assert len(point["step_disturbed"]) == 3
        assert [len(run) for run in point["step_seconds"]] == [4, 4, 4] == [len(point["joules"]) + 1] * 3
        assert min(map(min, [point["first_token_seconds"], *point["step_seconds"]])) > 0
        assert point["state_bytes"] == model.spec.state_bytes(point["context_tokens"], batch=2)
        assert point["chunk_bytes"] > 0 < point["step_bytes"] and point["disagreement"] < 1e-4
    watched = samples["disturbance"]["intervals"]
    assert len(watched) == sum(len(point["first_token_seconds"]) + 3 for point in samples["points"])


@pytest.mark.parametrize("model", models(), ids=lambda m: m.spec.family)
def test_a_context_is_read_once_in_chunks(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside what is short, what is checked, and the steps."""
    lengths: list[int] = []
    hidden = model.hidden

    def spy(tokens: Any, state: Any = None, *rest: Any, keep: bool = True, **more: Any) -> Any:
        if keep and tokens.shape[1] > 1:
            lengths.append(tokens.shape[1])
        return hidden(tokens, state, *rest, keep=keep, **more)

    monkeypatch.setattr(model, "hidden", spy)
    monkeypatch.setattr("bench.instruments.memory.working", lambda device, call: 1)
    monkeypatch.setattr("bench.instruments.disturbance.AGAIN", 0)
    points(model, contexts="3, 16, 30")
    assert lengths[1:] == ([3] * 3 + [8, 8] + [8, 6] if model.ragged else [3] * 3 + [16] * 3 + [30] * 3)


def test_the_first_token_of_a_longer_prompt_comes_after_the_shorter_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time holds that of what was read before, but not what was done at the stop before."""

    class Clock:
        now = 0.0

        def __init__(self) -> None:
            self.start, self.marks = Clock.now, list[float]()

        def mark(self) -> None:
            self.marks.append(Clock.now - self.start)

        def seconds(self) -> list[float]:
            return self.marks

    model = small("pythia")
    hidden, logits = model.hidden, model.logits

    def read(tokens: torch.Tensor, *rest: Any, **more: Any) -> Any:
        Clock.now += tokens.shape[1]
        return hidden(tokens, *rest, **more)

    def head(x: torch.Tensor) -> torch.Tensor:
        Clock.now += 1000
        return logits(x)

    monkeypatch.setattr(model, "hidden", read)
    monkeypatch.setattr(model, "logits", head)
    monkeypatch.setattr("bench.instruments.clock.start", lambda device: Clock())
    measured = points(model, batch=1)
    assert [point["first_token_seconds"][-1] for point in measured] == [1003, 1008, 1009, 1030]
    assert all(point["step_seconds"] == [[1001] * 4] * 3 for point in measured)


def test_the_curve_ends_where_positions_do() -> None:
    metrics, samples = decode.run(small("opt"), device="cpu", contexts="3, 60, 61, 500", steps=4, chunk=8)
    assert [point["context_tokens"] for point in samples["points"]] == [3, 60]
    assert metrics["ended"] == "64 learned positions"
    with pytest.raises(Unsupported, match=r"64 learned positions; 61 \+ 4 do not fit"):
        decode.run(small("opt"), device="cpu", contexts="61", steps=4)


def test_the_curve_ends_where_memory_does(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("pythia")
    room = model.spec.state_bytes(20)
    monkeypatch.setattr("bench.speed.sweep.free_memory", lambda device: room)
    metrics, samples = decode.run(model, device="cpu", contexts="3, 8, 16, 64", steps=4, chunk=8)
    assert [point["context_tokens"] for point in samples["points"]] == [3, 8, 16]
    assert metrics["ended"] == "no memory for more than 16 tokens"
    with pytest.raises(MemoryError, match=r"of cache or state, .* free at 3 tokens of context"):
        decode.run(model, device="cpu", contexts="3", batch=100)


def test_on_cuda_steps_are_replayed_where_they_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the graph, and the CPU for the device."""
    replays: list[int] = []

    def capture(call: Any, before: Any) -> cuda_graph.Captured:
        before()
        output = call()

        def replay() -> None:
            replays.append(1)
            output.copy_(call())

        return cuda_graph.Captured(replay, output)

    monkeypatch.setattr(cuda_graph, "capture", capture)
    monkeypatch.setattr("bench.instruments.disturbance.AGAIN", 0)
    tokens = torch.randint(100, (2, 31), generator=torch.Generator().manual_seed(0))
    for model in (parity.make("small"), small("pythia"), small("llama")):
        made = []
        for graph in (True, False):
            swept = sweep.Sweep(model, "cpu", tokens, 4, 3, 8, graph)
            replays.clear()
            measured = list(swept.points([3, 8, 9, 30]))  # the logits are compared with those of one pass
            assert len(replays) == (4 * 4 * 3 if graph else 0) and swept.graphed is graph
            assert all(point["disagreement"] < 1e-4 for point in measured)
            made.append(swept.replayed is not None)
        assert made == [True, False]
    swept = sweep.Sweep(small("bloom"), "cpu", tokens, 4, 3, 8, True)
    assert len(list(swept.points([3, 8]))) == 2 and not swept.graphed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("family", ["rwkv4", "rwkv7", "pythia", "opt", "llama"])
def test_a_captured_step_is_the_step(family: str) -> None:
    """Its logits are compared with those of one pass."""
    ours = family.startswith("rwkv")
    spec = find(f"pocket-{family}", weights="random:0") if ours else small(family).spec
    metrics, samples = decode.run(
        load(spec, device="cuda"), device="cuda", contexts="16, 40", steps=4, chunk=24, batch=2
    )
    assert metrics["graphed"] and all(point["disagreement"] < 1e-3 for point in samples["points"])


@pytest.mark.parametrize("context", ["20", "3, 5000"])
def test_a_wrong_state_is_not_timed(context: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = parity.make("tiny")
    right = model.hidden

    def forgetful(tokens: torch.Tensor, state: Any = None, *rest: Any, **more: Any) -> Any:
        return right(tokens, None if tokens.shape[1] == 1 else state, *rest, **more)

    monkeypatch.setattr(model, "hidden", forgetful)
    with pytest.raises(RuntimeError, match="disagree"):
        points(model, contexts=context)


def test_a_logit_that_is_not_finite_is_no_result() -> None:
    model = parity.make("tiny")
    with torch.no_grad():
        model.blocks[0].ffn.value.weight[0, 0] = torch.nan
    with pytest.raises(BadInput, match="not finite"):
        points(model)


def test_beyond_what_one_pass_reads_the_steps_alone_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "ONE_PASS", 10)
    for model in (small("pythia"), parity.make("small")):
        assert [0 <= point["disagreement"] < 1e-4 for point in points(model)] == [True] * 4
    assert points(small("mamba"))[-1]["disagreement"] is None, "which cannot go on by many tokens"
