"""The tracker of live tensors counts storages, not views; resident growth sees what is held."""

import torch

from bench.memory import Peak


def test_live_tensors_are_counted_exactly() -> None:
    before = torch.ones(500)
    peak = Peak("cpu")
    with peak.tracking(), peak.watch():
        a = torch.zeros(1000)
        b = a + 1  # 8000 bytes live
        view = b.view(10, 100)[3:].t()
        del b
        assert peak._tracker.live == 8000  # the view keeps the storage
        del view
        assert peak._tracker.live == 4000
        a.add_(1)
        alias = before[10:]  # made before: not ours
        assert peak._tracker.live == 4000
        del a, alias
        assert peak._tracker.live == 0
    assert peak.metrics()["peak_live_bytes"] == 8000


def test_only_what_is_watched_counts_and_what_lives_on_does() -> None:
    peak = Peak("cpu")
    with peak.tracking():
        torch.zeros(10_000).sum()
        kept = torch.zeros(100)
        with peak.watch():
            torch.zeros(1000)
    assert peak.metrics()["peak_live_bytes"] == 4400
    assert len(kept) == 100


def test_resident_growth_sees_a_large_block() -> None:
    peak = Peak("cpu")
    with peak.watch():
        block = torch.ones(64 << 20, dtype=torch.uint8)
    del block
    assert 64 << 20 <= peak.metrics()["resident_growth_bytes"] < 90 << 20
