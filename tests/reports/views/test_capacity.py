"""The largest batch beside the formula's."""

from reports.records.record import Record
from reports.views import capacity
from reports.views.table import read
from tests import make


def record(name: str, largest: int, predicted: int) -> Record:
    metrics = {"largest_batch": largest, "predicted_batch": predicted, "limit_bytes": 8 * 10**9}
    params = {"context": 2048, "gigabytes": 8, "most": 4096}
    return make.record(make.cell("capacity", name, params), metrics, {"tried": []})


def test_a_line_a_model_and_what_was_not_tried_is_said() -> None:
    (view,) = capacity.views(read([record("pythia-160m", 45, 48), record("rwkv4-169m", 4096, 4096)]))
    lines = view.tables[0].frame.set_index("model")
    assert list(lines.loc["Pythia 160M"]) == ["2,048", "8.0", "45", "48", "94 %"]
    assert lines["sequences"]["RWKV-4 169M"] == "4,096+"
