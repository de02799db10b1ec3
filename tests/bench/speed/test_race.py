"""Races: contenders in turn, compared before they are timed, and the goals that the report prints."""

import functools
import importlib.util
import time
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.instruments.race import FEWEST, _turns, race
from bench.run import measure
from bench.speed import compiled_loops, gguf_files, kernel_peers, kernels, llama_cpp, peers, torch_int8
from reports.records.record import Record
from reports.sentences import of_page
from reports.views import goals, races
from reports.views.table import read
from rwkv_core import machine, models
from rwkv_core.linear import products
from rwkv_core.runtimes import transformers_rwkv
from rwkv_core.spec import ModelSpec
from rwkv_core.wkv.wkv4 import WKV4, reference
from tests import make
from tests.checks import parity

SHAPE = {"model_type": "rwkv", "vocab_size": 96, "hidden_size": 40, "num_hidden_layers": 2}
SPEC = ModelSpec("tiny", "rwkv4", SHAPE, weights="random:0")


def turns(names: str, rounds: int, seed: int) -> list[str]:
    """Who was called one after another in each round of a race, after two calls of each."""
    called: list[str] = []
    race({name: functools.partial(called.append, name) for name in names}, "cpu", rounds, seed=seed)
    return ["".join(one) for one in zip(*[iter(called[2 * len(names) :])] * len(names), strict=True)]


def test_contenders_run_in_turn(single: None) -> None:
    samples, graphed = race({"a": lambda: None, "b": lambda: time.sleep(0.003)}, "cpu", rounds=4)
    seconds = samples["seconds"]
    assert len(samples["disturbance"]["intervals"]) == 4
    assert {name: len(samples) for name, samples in seconds.items()} == {"a": 4, "b": 4} and not graphed
    assert all(0.003 <= s < 1 for s in seconds["b"]) and all(0 < s < 1e-3 for s in seconds["a"])


def test_the_order_of_turns_is_drawn_by_the_seed(single: None) -> None:
    first = turns("abc", 12, seed=1)
    assert first == turns("abc", 12, seed=1) != turns("abc", 12, seed=2)
    assert {"".join(sorted(one)) for one in first} == {"abc"} and len(set(first)) > 2
    assert first[1::2] == [one[::-1] for one in first[::2]]
    assert turns("ab", 12, seed=1).count("ab") == 6, "of two each goes first as often as the other"


@pytest.mark.parametrize(
    ("short", "long", "rounds"),
    [(0.1, 0.2, 9), (0.02, 0.02, 25), (0.02, 1.0, 19), (1.0, 5.0, FEWEST), (4.0, 9.0, FEWEST)],
)
def test_a_pair_has_more_rounds_where_they_are_short(short: float, long: float, rounds: int) -> None:
    assert _turns({"a": short, "b": long}, 9, paired=True) == {"a": rounds, "b": rounds}


def test_every_round_of_a_pair_has_both(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"SHORTEST_S": 0.01, "LEAST_S": 0.06, "SLOW_S": 0.01}.items():
        monkeypatch.setattr(f"bench.instruments.race.{name}", seconds)
    samples, _ = race({"short": lambda: None, "long": lambda: time.sleep(0.05)}, "cpu", rounds=4, paired=True)
    assert {name: len(times) for name, times in samples["seconds"].items()} == {"short": 6, "long": 6}
    assert len(samples["disturbance"]["intervals"]) == 6


def test_a_slow_contender_gets_fewer_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.instruments.race.SLOW_S", 0.2)
    samples, _ = race({"slow": lambda: time.sleep(0.1), "fast": lambda: None}, "cpu", rounds=8)
    assert {name: len(times) for name, times in samples["seconds"].items()} == {"slow": FEWEST, "fast": 8}


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes a minute."""
    monkeypatch.setattr(compiled_loops, "torch_compile", lambda *_: None)


@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
def test_kernels_are_compared_and_timed(uncompiled: None, direction: Any) -> None:
    metrics, samples = kernels.run(
        SPEC, device="cpu", dtype="float32", direction=direction, batch=2, tokens=33, rounds=3
    )
    assert {"loop", "transformers", "torch"} <= metrics["errors"].keys()
    numba = direction == "forward" and importlib.util.find_spec("numba") is not None
    assert ("numba" in metrics["errors"]) == numba
    assert ("torch, output preallocated" in metrics["errors"]) == (direction == "forward")
    assert all(error < 1e-5 for error in metrics["errors"].values())
    assert samples["seconds"].keys() == {"floor", *metrics["errors"]}
    assert all(len(s) == 3 and min(s) > 0 for s in samples["seconds"].values())
    assert metrics["bytes"] == {"forward": 3, "forward+backward": 8}[direction] * 2 * 33 * 40 * 4
    assert metrics["floor_bytes"] == 3 * 2 * 33 * 40 * 4


def test_no_contender_is_given_its_output_unless_its_name_says_so(uncompiled: None) -> None:
    inputs, dy = WKV4.example((1, 5, 3), "cpu", torch.float32)
    calls = kernels.contenders(WKV4, "cpu", "forward", inputs, dy)
    for name, call in calls.items():
        first, second = call(), call()
        assert (first.data_ptr() == second.data_ptr()) == name.endswith(", output preallocated"), name


def test_loops_compiled_by_torch_equal_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_loops, "BLOCK", 2)
    inputs, dy = WKV4.example((2, 4, 8), "cpu", torch.float32)
    compiled = compiled_loops.torch_compile(reference.loop, kernel_peers._sums, 2)
    if compiled is None:
        pytest.skip("nothing can be compiled here")
    leaves = [x.double().requires_grad_() for x in inputs]
    exact, _ = WKV4.call(*leaves, impl="reference")
    gradients = torch.autograd.grad(exact, leaves, dy.double())
    for got, wanted in zip(kernels._both(compiled, inputs, dy), (exact, *gradients), strict=True):
        torch.testing.assert_close(got, wanted.float(), rtol=1e-4, atol=1e-5)


def test_loops_compiled_by_numba_equal_the_oracle() -> None:
    pytest.importorskip("numba")
    inputs, _ = WKV4.example((2, 33, 8), "cpu", torch.float32)
    compiled = compiled_loops.numba()
    assert compiled is not None
    exact, _ = WKV4.call(*(x.double() for x in inputs), impl="reference")
    torch.testing.assert_close(compiled(*inputs), exact.float(), rtol=1e-5, atol=1e-5)


def test_without_a_compiler_or_numba_their_loops_are_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_loops, "_compiles", lambda: False)
    find_spec, absent = importlib.util.find_spec, ("numba", "fla")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in absent else find_spec(name, *rest)
    )
    assert kernel_peers.wkv4("cpu", "forward", 99).keys() == {"loop", "transformers"}


def test_a_wrong_kernel_is_not_timed(uncompiled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernels._ours

    def wrong(*inputs: Any, impl: str, **options: Any) -> torch.Tensor:
        return right(*inputs, impl=impl, **options) + (1e-3 if impl == "torch" else 0)

    monkeypatch.setattr(kernels, "_ours", wrong)
    with pytest.raises(RuntimeError, match="torch is off by"):
        kernels.run(SPEC, device="cpu", dtype="float32", tokens=33, rounds=3)


def test_a_gradient_that_is_no_number_is_not_timed(uncompiled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernels._both

    def wrong(function: Any, inputs: Any, dy: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y, dw, du, dk, dv = right(function, inputs, dy)
        ours = isinstance(function, functools.partial) and function.keywords.get("impl") == "torch"
        return y, dw, du, dk.index_fill(1, torch.tensor(3), torch.nan) if ours else dk, dv

    monkeypatch.setattr(kernels, "_both", wrong)
    with pytest.raises(RuntimeError, match="torch is off by nan"):
        kernels.run(SPEC, device="cpu", dtype="float32", direction="forward+backward", tokens=9, rounds=3)


def test_a_peer_that_computes_something_else_is_left_out(uncompiled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_peers, "_transformers", lambda: lambda w, u, k, v: k * torch.nan)
    metrics, samples = kernels.run(SPEC, device="cpu", dtype="float32", tokens=9, rounds=3)
    assert metrics["refused"] == {"transformers": "nan"}
    assert "transformers" not in metrics["errors"] and "transformers" not in samples["seconds"]


def test_cells_use_no_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(machine, "cores", lambda: 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    test_a_model_without_wkv_is_unsupported()
    assert chosen[0] == 1


def test_a_model_without_wkv_is_unsupported() -> None:
    pythia = models.find("pythia-160m", weights="random:0")
    (record,) = measure([make.cell("kernels", pythia, {}, version=kernels.VERSION)])
    assert record.status == "unsupported" and "has no WKV" in record.error


@pytest.mark.parametrize("version", ["rwkv4", "rwkv6", "rwkv7"])
@pytest.mark.parametrize("task", ["token", "prompt", "train"])
def test_peers_agree_and_are_timed(monkeypatch: pytest.MonkeyPatch, task: Any, version: str) -> None:
    monkeypatch.setattr(products, "FEWEST", 1)
    model = parity.make("tiny", version=version)
    batch = 2 if task == "train" else 1
    metrics, samples = peers.run(model, device="cpu", task=task, batch=batch, tokens=20, rounds=3)
    others = {"transformers"} if version == "rwkv4" else set()
    if task != "train":
        others.add("pip rwkv")
    llama = {f"llama.cpp {kind}" for kind in gguf_files.KINDS} if llama_cpp.installed() else set()
    quantised = {torch_int8.NAME} if task == "token" else set()
    if version != "rwkv4" and task != "train":
        others |= llama & {"llama.cpp F32"}
        quantised |= llama - others
    assert metrics["errors"].keys() == {"ours", *others, *quantised}
    assert metrics["distances"].keys() == quantised
    assert all(0 < metrics["errors"][peer] < 1e-5 for peer in others)
    in_c = {"gemv in C"} if products.LIBRARY.lacks(torch.device("cpu"), torch.float32) is None else set()
    alone = {"token": {"gemv", *in_c}, "prompt": {"gemm"}, "train": {"gemm, three times"}}
    assert samples["seconds"].keys() - metrics["errors"].keys() == alone[task]
    assert metrics["implementations"].keys() == samples["seconds"].keys()
    assert f"{model.version.OPERATOR.name}:" in metrics["implementations"]["ours"]


def test_a_peer_that_disagrees_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = transformers_rwkv.converted

    def wrong(model: Any) -> Any:
        peer = right(model)
        with torch.no_grad():
            peer.head.weight.mul_(1.01)
        return peer

    monkeypatch.setattr(transformers_rwkv, "converted", wrong)
    with pytest.raises(RuntimeError, match="transformers and our results"):
        peers.run(parity.make("tiny"), device="cpu", task="prompt", tokens=5)


def raced(
    seconds: dict[str, list[float]], experiment: str = "kernels", model: str = "rwkv4-169m", **params: Any
) -> Record:
    """A record of `kernels` at (1, 1024, 768), or of `peers`, on one thread."""
    first = {"direction": "forward"} if experiment == "kernels" else {}
    params = {**first, "batch": 1, "tokens": 1024, "rounds": 3, "seed": 0, **params}
    metrics = {"errors": {"c": 1e-7, "loop": 2e-6}, "channels": 768, "graphed": [], "threads": 1}
    metrics |= {"bytes": 9437184, "floor_bytes": 9437184}
    cell = make.cell(experiment, model, params, version=kernels.VERSION, weights="random:0", threads=1)
    return make.record(cell, metrics, {"seconds": seconds}, threads=1)


def test_goals_stand_beside_the_ratios() -> None:
    record = raced({"floor": [1.0, 1.1, 0.9], "c": [1.5, 1.4, 1.8], "loop": [30.0, 28.0, 36.0]})
    table = goals.table(read([record]))
    assert table is not None
    lines = table.frame.set_index(["time of", "by that of"])[["ratio", "to be", "reached", "error"]]
    assert list(lines.loc[("ours: C", "memory floor")]) == ["1.50 (1.27-2.00)", "at most 2", "yes", "1e-07"]
    assert list(lines.loc[("plain loop in torch", "ours: C")]) == ["20.00 (20.00-20.00)", "at least 30", "NO", "1e-07"]
    assert len(lines) == 2  # nothing of what was not measured


def test_a_floor_is_scaled_to_the_bytes_that_must_move() -> None:
    record = raced({"floor": [1.0, 1.0, 1.0], "c": [4.0, 4.0, 4.0]}, direction="forward+backward")
    record.metrics["bytes"] = record.metrics["floor_bytes"] * 8 // 3
    found = {row["contender"]: row["value"] for row in read([record]).rows}
    assert found["floor"] == pytest.approx(8 / 3) and found["c"] == 4.0


def test_the_views_show_every_contender() -> None:
    record = raced({"floor": [1.0], "c": [1.5], "loop": [30.0]})
    wide = raced({"floor": [8.0], "c": [11.0], "loop": [90.0]}, batch=8)
    (view,) = races.views(read([record, wide]))
    assert list(view.tables[0].frame.contender) == ["memory floor", "ours: C", "plain loop in torch"] * 2
    assert list(view.tables[0].frame["times the floor"])[1] == "1.50"
    (panel,) = view.pictures[0].panels
    assert {series.label: list(series.x) for series in panel.series}["ours: C"] == [786432, 6291456]
    view.pictures[0].draw()


def test_a_difference_is_named_where_every_round_has_it() -> None:
    seconds = {"floor": [1.0] * 3, "c": [1.0, 2.0, 1.5], "torch": [9.0] * 3, "loop": [30.0, 60.0, 30.0]}
    (view,) = races.views(read([raced({**seconds, "numba": [1.1, 1.9, 3.0]})]))
    ((sentence, chunks),) = of_page([view.comparisons])
    assert sentence == (
        "ours: C, forward (1, 1024, 768), threads: 1: faster than plain loop in torch: 30.00 (20.00-30.00) x as fast; "
        "no difference shown from loops in numba, one thread."
    )
    assert "; slower than loops in numba, one thread: 0.21" in chunks


def test_on_a_gpu_ours_is_compared_as_a_graph_and_never_with_itself() -> None:
    names = ("floor", "triton", "triton eager", "torch eager", "transformers", "transformers eager")
    record = raced({name: [float(i + 1)] * 3 for i, name in enumerate(names)})
    record.metrics["graphed"] = ["triton", "transformers"]
    (view,) = races.views(read([record]))
    (sentences,) = of_page([view.comparisons])
    rivals = "transformers, CUDA graph: {} x as fast, transformers, eager: {} x as fast."
    assert [sentence.partition(", threads: 1: faster than ")[::2] for sentence in sentences] == [
        ("ours: Triton, CUDA graph, forward (1, 1024, 768)", rivals.format("2.50 (2.50-2.50)", "3.00 (3.00-3.00)")),
        ("ours: torch, eager, forward (1, 1024, 768)", rivals.format("1.25 (1.25-1.25)", "1.50 (1.50-1.50)")),
    ]


def test_models_of_one_shape_are_told_apart() -> None:
    records = [
        raced({"ours": [1.0] * 3, "transformers": [times] * 3}, "peers", task="token", tokens=1) for times in (2, 3)
    ]
    spec = models.find("rwkv4-430m", weights="random:0")
    records[1] = replace(records[1], cell=replace(records[1].cell, model=spec))
    (view,) = races.views(read(records))
    assert ["RWKV-4 169M" in records and "2.00" in records for records in of_page([view.comparisons])[0]] == [
        True,
        False,
    ]


def test_nobody_finds_what_another_has_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back = []
    monkeypatch.setattr("bench.instruments.race.return_freed_memory", lambda: given_back.append(1))
    calls = {"a": lambda: None, "b": lambda: None}
    race(calls, "cpu", 3)
    assert not given_back
    race(calls, "cpu", 3, fresh=True)
    assert len(given_back) >= 6  # before every sample


def test_the_view_says_what_each_contender_is() -> None:
    record = raced({"ours": [1.0], "gemv": [0.9]}, "peers", task="token", tokens=1)
    (view,) = races.views(read([record]))
    assert "peers-implementations" not in {table.name for table in view.tables}, "earlier records do not say it"
    record.metrics["implementations"] = {"ours": "this suite's", "gemv": "products"}
    (view,) = races.views(read([record]))
    (table,) = [table for table in view.tables if table.name == "peers-implementations"]
    assert table.frame.to_numpy().tolist() == [["ours", "this suite's"], ["its weights times vectors", "products"]]


def test_the_floor_of_a_model_is_its_fastest_product() -> None:
    seconds = {"ours": [1.0], "gemv": [0.8], "gemv in C": [0.5]}
    (view,) = races.views(read([raced(seconds, "peers", task="token", tokens=1)]))
    assert list(view.tables[0].frame["times the floor"]) == ["2.00", "1.60", "1.00"]


def test_a_disturbed_race_reaches_no_goal_and_is_marked() -> None:
    seconds = {"floor": [1.0], "c": [1.5], "loop": [30.0]}
    disturbed = replace(raced(seconds), status="disturbed", error="others used 1.3 of its 2 cores")
    assert goals.table(read([disturbed])) is None
    (view,) = races.views(read([disturbed]))
    (table,) = view.tables
    assert list(table.frame.ms) == ["1000 (1000-1000)†", "1500 (1500-1500)†", "30000 (30000-30000)†"]
    assert set(table.frame["times the floor"]) == {"-"} and "†" in table.note
    assert all(list(series.crossed) == [True] for series in view.pictures[0].panels[0].series)
    both = goals.table(read([disturbed, raced({**seconds, "c": [1.25]})]))
    assert both is not None and both.frame.ratio[0] == "1.25 (1.25-1.25)"


def test_a_token_against_context_is_a_line_a_contender() -> None:
    def after(context: int, ours: float) -> Record:
        return raced({"ours": [ours] * 3, "gemv": [1.0] * 3}, "peers", task="token", tokens=1, context=context)

    (view,) = races.views(read([after(2048, 3.0), after(16, 2.0)]))
    (picture,) = view.pictures
    (panel,) = picture.panels
    lines = {series.label: series for series in panel.series}  # type: ignore[union-attr]
    assert panel.title == "RWKV-4 169M" and list(lines["ours"].x) == [16, 2048]
    assert list(lines["ours"].y) == [2000, 3000] and lines["its weights times vectors"].dashed
    (alone,) = races.views(read([after(16, 2.0)]))
    assert not alone.pictures
