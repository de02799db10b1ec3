"""Logits against independent implementations; `make parity` prints the same numbers."""

import math

import pytest

from tests.checks import parity

SIZES = ("tiny", "small")  # the largest takes twice the time of both, and `make parity` has it too


@pytest.mark.parametrize(("version", "size", "peer"), [one for one in parity.comparisons() if one[1] in SIZES])
def test_logits_agree(version: str, size: str, peer: str) -> None:
    assert parity.difference(version, size, peer) <= parity.BOUND


def test_a_wrong_model_is_noticed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(parity, "PEERS", {"far": lambda model, tokens: model(tokens) * 1.001})
    assert parity.main() == 1
    monkeypatch.setattr(parity, "PEERS", {"nan": lambda model, tokens: model(tokens) * math.nan})
    assert parity.main() == 1
    assert "TOO FAR" in capsys.readouterr().out
