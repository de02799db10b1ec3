"""What tests of races share."""

import pytest

from bench.instruments import disturbance


@pytest.fixture
def single(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample is one call, and no round is measured again: tests share their cores."""
    monkeypatch.setattr("bench.instruments.race.SHORTEST_S", 1e-9)
    monkeypatch.setattr(disturbance, "AGAIN", 0)
