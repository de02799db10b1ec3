"""Our RWKV-4 against independent implementations, on random weights: one line a comparison.

`python -m tests.checks.parity` prints each largest difference, relative to the largest logit, and exits
with 1 where one passes the bound.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from rwkv_core.runtimes import pip_rwkv, transformers_rwkv
from rwkv_core.rwkv import init
from rwkv_core.rwkv.model import RWKV
from rwkv_core.spec import ModelSpec

BOUND = 1e-5
SIZES = {"tiny": (2, 64, 96), "small": (5, 160, 301), "medium": (8, 384, 1003)}  # layers, width, vocabulary
TOKENS = 75


def make(size: str, seed: int = 0) -> RWKV:
    """A model whose every weight matters: wide random matrices, decays of the paper's initialisation."""
    layers, width, vocab = SIZES[size]
    shape = {"model_type": "rwkv", "vocab_size": vocab, "hidden_size": width, "num_hidden_layers": layers}
    model = RWKV.of(ModelSpec(size, "rwkv4", shape)).to_empty(device="cpu").eval()
    init.random(model, seed, std=width**-0.5)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".ln" in name or "ln_out" in name:
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model


def save_transformers(model: RWKV, folder: Path, safe: bool = True) -> None:
    """The checkpoint as transformers' save_pretrained writes it, through transformers' own class."""
    peer = transformers_rwkv.converted(model)
    if safe:
        peer.save_pretrained(folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        peer.config.save_pretrained(folder)
        torch.save(peer.state_dict(), folder / "pytorch_model.bin")


def transformers_logits(model: RWKV, tokens: Tensor) -> Tensor:
    """Logits [B, T, V] of transformers' RwkvForCausalLM with the same weights."""
    from transformers import RwkvForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        save_transformers(model, Path(folder))
        peer = RwkvForCausalLM.from_pretrained(folder).eval()
    return peer(tokens).logits


def pip_rwkv_logits(model: RWKV, tokens: Tensor) -> Tensor:
    """Logits [B, T, V] of pip `rwkv`, the author's inference package, row by row."""
    assert pip_rwkv.installed(), "pip rwkv is not installed"
    peer = pip_rwkv.converted(model).forward
    return torch.stack([peer(row.tolist(), None, full_output=True)[0] for row in tokens])


def chunked(size: int) -> Callable[[RWKV, Tensor], Tensor]:
    """Logits of our model fed `size` tokens at a time with carried state."""

    def run(model: RWKV, tokens: Tensor) -> Tensor:
        state, parts = None, []
        for part in tokens.split(size, 1):
            hidden, state = model.hidden(part, state)
            parts.append(model.logits(hidden))
        return torch.cat(parts, 1)

    return run


def reference_wkv(model: RWKV, tokens: Tensor) -> Tensor:
    """Logits of our model with the WKV recurrence one token at a time."""
    slow = RWKV.of(model.spec, impl="reference")
    slow.load_state_dict(model.state_dict(), assign=True)
    return slow(tokens)


PEERS: dict[str, Callable[[RWKV, Tensor], Tensor]] = {
    "transformers RwkvForCausalLM": transformers_logits,
    "pip rwkv": pip_rwkv_logits,
    "chunks of 1 (tokens)": chunked(1),
    "chunks of 7": chunked(7),
    "chunks of 64": chunked(64),
    "WKV one token at a time": reference_wkv,
}


@torch.inference_mode()
def difference(size: str, peer: str, seed: int = 0) -> float:
    """The largest difference of the logits, relative to the largest logit."""
    model = make(size, seed)
    tokens = torch.randint(model.spec.vocab_size, (2, TOKENS), generator=torch.Generator().manual_seed(seed))
    ours, theirs = model(tokens), PEERS[peer](model, tokens)
    return float((ours - theirs).abs().max() / theirs.abs().max())


def main() -> int:
    failed = 0
    for size, (layers, width, vocab) in SIZES.items():
        for peer in PEERS:
            found = difference(size, peer)
            near = found <= BOUND  # False for NaN too
            failed += not near
            verdict = "ok" if near else "TOO FAR"
            print(f"L={layers} D={width:4} V={vocab:5}  ours vs {peer:30} {found:.1e}  (bound {BOUND:.0e})  {verdict}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
