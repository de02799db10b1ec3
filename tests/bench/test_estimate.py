"""What a cell takes at least: of a machine whose limits are known."""

import pytest

from bench import cells, estimate
from reports.records.cell import Cell
from rwkv_core import models

BANDWIDTH, OPERATIONS = 1e9, 1e10  # of the machine


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.instruments.limits.bandwidth", lambda device: BANDWIDTH)
    monkeypatch.setattr("bench.instruments.limits.operations", lambda device, dtype: OPERATIONS)


def cell(experiment: str, name: str, dtype: str = "float32", device: str = "cpu", **params: object) -> Cell:
    return cells.make(experiment, models.find(name, weights="random:0"), device, dtype, params)


def of(made: Cell) -> estimate.Estimate:
    least = estimate.least(made)
    assert least
    return least


def test_a_token_reads_weights_and_what_is_carried() -> None:
    spec = models.find("pythia-160m")
    read = spec.parameters - spec.vocab_size * spec.width
    for dtype, size in (("float32", 4), ("bfloat16", 2)):
        least = of(cell("decode", "pythia-160m", dtype, contexts="16, 512, 8192"))
        assert least.shortest == pytest.approx((size * read + spec.state_bytes(16, size)) / BANDWIDTH)
        assert least.longest == pytest.approx((size * read + spec.state_bytes(8192, size)) / BANDWIDTH)
        prompts = 3 * (16 + 512) + 8192
        steps = sum((size * read + spec.state_bytes(n, size)) / BANDWIDTH for n in (16, 512, 8192))
        assert least.total == pytest.approx(prompts * 2 * read / OPERATIONS + 3 * 16 * steps)


def test_many_sequences_are_bound_by_arithmetic() -> None:
    spec = models.find("rwkv4-169m")
    least = of(cell("decode", "rwkv4-169m", batch=256))
    assert least.shortest == pytest.approx(512 * (spec.parameters - spec.lookup_parameters) / OPERATIONS)


def test_positions_end_the_curve_and_a_missing_cache_costs_the_whole_sequence() -> None:
    reached, beyond = (of(cell("decode", "opt-125m", contexts=f"16, 1024{more}")) for more in ("", ", 8192"))
    assert reached == beyond
    spec = models.find("opt-125m")
    operations = 2 * (spec.parameters - spec.lookup_parameters)
    paper = of(cell("inference", "opt-125m", protocol="paper", new_tokens=4))
    assert paper.longest == pytest.approx(19 * operations / OPERATIONS)


def test_what_is_not_known_is_not_said() -> None:
    for made in (cell("kernels", "rwkv4-169m"), cell("decode", "rwkv4-169m", device="cuda")):
        assert estimate.line(made) == ""
    assert estimate.total([cell("kernels", "rwkv4-169m")]) == ""
    assert "1 cells of generation" in estimate.total([cell("kernels", "rwkv4-169m"), cell("decode", "rwkv4-169m")])
