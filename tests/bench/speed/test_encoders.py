"""Encoders beside attention: one budget, both timed in one process, peaks that grow with the length."""

import pytest

from bench.speed import encoders
from rwkv_core.errors import BadInput, Unsupported

SMALL = {"layers": 1, "width": 16, "heads": 2, "inner": 64, "rounds": 3}


def test_both_encoders_are_timed_and_their_peaks_grow_with_the_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.instruments.race.LEAST_S", 0.1)
    peaks = {}
    for tokens in (64, 256):
        metrics, samples = encoders.run(device="cpu", dtype="float32", mixer="rwkv4", tokens=tokens, **SMALL)
        assert samples["seconds"].keys() == {"rwkv4", "attention"}
        assert {len(seconds) for seconds in samples["seconds"].values()} == {5}
        assert all(second > 0 for seconds in samples["seconds"].values() for second in seconds)
        ours, attention = metrics["budget"].values()
        assert ours == pytest.approx(attention, rel=0.1)
        peaks[tokens] = metrics["peak_bytes"]
    assert all(2 * peaks[64][name] < peaks[256][name] for name in ("rwkv4", "attention"))


def test_what_cannot_be_had_says_why() -> None:
    with pytest.raises(Unsupported, match="cannot be run in both directions"):
        encoders.run(device="cpu", dtype="float32", mixer="mamba", **SMALL)
    with pytest.raises(BadInput, match="float32"):
        encoders.run(device="cpu", dtype="bfloat16", mixer="rwkv4", **SMALL)
