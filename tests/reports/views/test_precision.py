"""Fewer bits beside float32: means over documents, and the times of the same model in both types."""

from reports.records.record import Record
from reports.views import precision
from reports.views.table import read
from tests import make
from tests.make import altered
from tests.reports.views import test_decode


def record(dtype: str, kl: list[float], agreement: list[float], loss: list[float]) -> Record:
    samples = {"kl": kl, "agreement": agreement, "loss": loss, "loss_float32": [2.0, 2.5]}
    made = make.record(make.cell("precision", "rwkv4-169m", {"text": "pocket:1", "tokens": 512}), {}, samples)
    return altered(made, dtype=dtype)


def test_a_line_a_type_beside_float32() -> None:
    measured = [record("float32", [0, 0], [1, 1], [2.0, 2.5]), record("bfloat16", [1e-3, 3e-3], [0.98, 1], [2.1, 2.5])]
    timed = [
        altered(test_decode.record("rwkv4-169m", base), dtype=dtype, weights="pretrained")
        for base, dtype in ((0.05, "float32"), (0.025, "bfloat16"))
    ]
    (view,) = precision.views(read([*measured, *timed]))
    lines = view.tables[0].frame.set_index("type")
    assert lines["KL"]["bfloat16"] == "0.002 ± 0.001" and lines["KL"]["float32"] == "0 ± 0"
    assert (
        lines["same likeliest, %"]["bfloat16"] == "99.00 ± 1.00" and lines["loss"]["bfloat16"] == "+0.05000 ± 0.05000"
    )
    assert (
        lines["a token, ms"]["bfloat16"] == "25 (24.5-25.5)" and lines["x float32's"]["bfloat16"] == "0.50 (0.48-0.52)"
    )
    (alone,) = precision.views(read(measured))
    assert set(alone.tables[0].frame["a token, ms"]) == {"-"}
