"""Throughput of batches, what of it a latency leaves, and what fits: of times and bytes that are known beforehand."""

import pandas as pd

from reports.records.record import Record
from reports.views import batches
from reports.views.table import read
from reports.views.view import View
from tests.make import altered
from tests.reports.views.test_decode import record

GB = 1e9


def of_batch(name: str, batch: int, cache: float) -> Record:
    """Steps of 20 ms, 3 ms a sequence, and `cache` seconds for each token of each."""
    made = altered(record(name, 0.02 + 0.003 * batch, cache * batch), batch=batch)
    for point in made.samples["points"]:
        for key in ("state_bytes", "chunk_bytes", "step_bytes"):
            point[key] *= batch
    return made


def section(*of: int) -> View:
    caches = {"rwkv4-169m": 0.0, "pythia-160m": 1e-6, "opt-125m": 1e-6}
    (view,) = batches.views(read([of_batch(name, batch, cache) for name, cache in caches.items() for batch in of]))
    return view


def shown(view: View, name: str) -> pd.DataFrame:
    (table,) = (table for table in view.tables if table.name == name)
    return table.frame.set_index("model")


def test_tokens_a_second_grow_with_the_batch_and_end_at_a_latency() -> None:
    view = section(1, 8, 32)
    goodput = shown(view, "goodput")
    assert list(goodput["within 25 ms"][["RWKV-4 169M", "Pythia 160M"]]) == ["43.5 (batch 1)", "none"]
    assert goodput["within 100 ms"]["RWKV-4 169M"] == "181.8 (batch 8)", "32 take longer"
    assert goodput["any latency"]["RWKV-4 169M"] == "275.9 (batch 32)"
    (panel,) = view.pictures[0].panels
    (ours,) = (series for series in panel.series if series.family == "rwkv4")  # type: ignore[union-attr]
    assert list(ours.x) == [1, 8, 32] and [round(y, 1) for y in ours.y] == [43.5, 181.8, 275.9]


def test_one_batch_has_no_throughput_to_show() -> None:
    view = section(1)
    assert [table.name for table in view.tables] == ["fits"] and not view.pictures


def test_what_fits_is_as_large_as_it_may_be() -> None:
    fits = shown(section(1, 8), "fits")
    spec = of_batch("pythia-160m", 1, 0).cell.model
    assert spec is not None
    longest = int(fits["context in 8 GB"]["Pythia 160M"].replace(",", ""))
    beyond = 4 * spec.parameters + (3 << 20)
    assert spec.state_bytes(longest) + beyond <= 8 * GB < spec.state_bytes(longest + 1) + beyond
    many = int(fits["sequences in 16 GB"]["Pythia 160M"].replace(",", ""))
    each = spec.state_bytes(8192) + (3 << 20)
    assert 4 * spec.parameters + many * each <= 16 * GB < 4 * spec.parameters + (many + 1) * each
    assert fits["context in 8 GB"]["RWKV-4 169M"] == "any"
    assert fits["context in 80 GB"]["OPT 125M"] == "2,048" and fits["sequences in 80 GB"]["OPT 125M"] == "-"


def test_steps_stand_under_the_roof_that_was_measured() -> None:
    throughput, roofs = section(1, 8, 32).pictures
    assert (throughput.name, roofs.name) == ("throughput", "roofline")
    *models, roof = roofs.panels[0].series  # type: ignore[union-attr]
    assert max(roof.y) == 100 and roof.y[0] == roof.x[0] * 10, "100 billion operations a second, and 10 GB"
    ours = next(series for series in models if series.family == "rwkv4")
    spec = of_batch("rwkv4-169m", 1, 0).cell.model
    assert spec is not None
    products = 2 * (spec.parameters - spec.lookup_parameters)
    assert [round(y, 3) for y in ours.y] == [round(n * products / (0.02 + 0.003 * n) / 1e9, 3) for n in (1, 8, 32)]
    assert ours.x[0] < 0.5 < ours.x[1] / 4, "weights are read once for all sequences"


def test_the_context_is_one_at_which_there_are_several_batches() -> None:
    short = of_batch("rwkv4-169m", 8, 0.0)
    short.samples["points"] = short.samples["points"][:2]
    (view,) = batches.views(read([of_batch("rwkv4-169m", 1, 0.0), short, of_batch("pythia-160m", 1, 1e-6)]))
    assert all("1,024 tokens of context" in picture.footer for picture in view.pictures)
    (panel,) = view.pictures[0].panels
    assert [list(series.x) for series in panel.series] == [[1, 8]], "of one that has no other batch nothing is drawn"  # type: ignore[union-attr]


def test_the_context_is_that_of_most_models() -> None:
    both = [of_batch(name, batch, 0.0) for name in ("rwkv4-169m", "pythia-160m", "opt-125m") for batch in (1, 8)]
    for one in both[:4]:
        one.samples["points"] = one.samples["points"][:1]
    (view,) = batches.views(read(both))
    assert "· 16 tokens of context" in view.pictures[0].footer, "one alone reaches 4,096"
    assert len(view.pictures[0].panels[0].series) == 3  # type: ignore[union-attr]
