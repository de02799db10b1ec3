"""Our RWKV beside independent implementations, on random weights: one line a comparison.

`python -m tests.checks.parity` prints each largest difference, relative to the largest logit, and exits
with 1 where one passes the bound.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rwkv_core.runtimes import pip_rwkv, transformers_rwkv
from rwkv_core.rwkv import init, layouts, v7
from rwkv_core.rwkv.model import RWKV
from rwkv_core.spec import ModelSpec

BOUND = 1e-5
SIZES = {"tiny": (2, 64, 96), "small": (5, 192, 301), "medium": (8, 384, 1003)}  # layers, width, vocabulary
TOKENS = 75
HEAD_SIZES = {"tiny": 64, "small": 32, "medium": 16}
FFN_BLOCK = 32  # to which RWKV-5 and 6 round their feed-forward width
VECTORS = ("time_decay", "time_faaaa", "r_k")  # though they are stored as [H, N]
LOW_RANKS = {"decay_low_rank_dim": 24, "a_low_rank_dim": 16, "v_low_rank_dim": 8, "gate_low_rank_dim": 40}
SHAPES: dict[str, dict[str, Any]] = {  # but for the sizes, by the names of what is compared
    "rwkv4": {"model_type": "rwkv"},
    "rwkv5.0": {"model_type": "rwkv5", "variant": "5.0"},
    "rwkv5.1": {"model_type": "rwkv5", "variant": "5.1"},
    "rwkv5": {"model_type": "rwkv5", "variant": "5.2"},
    "rwkv6": {"model_type": "rwkv6", "mix_low_rank_dim": 12, "decay_low_rank_dim": 24},
    "rwkv7": {"model_type": "rwkv7", **LOW_RANKS},
}


def make(size: str, seed: int = 0, version: str = "rwkv4") -> RWKV:
    """A model whose every weight matters: wide random matrices, decays and shifts near the initialisation."""
    layers, width, vocab = SIZES[size]
    shape = {**SHAPES[version], "vocab_size": vocab, "num_hidden_layers": layers}
    if version != "rwkv4":
        width = max(width, 2 * HEAD_SIZES[size])
        inner = 4 * width if version == "rwkv7" else int(3.5 * width) // FFN_BLOCK * FFN_BLOCK
        shape |= {"head_size": HEAD_SIZES[size], "intermediate_size": inner}
    shape["hidden_size"] = width
    model = RWKV.of(ModelSpec(size, version.partition(".")[0], shape)).to_empty(device="cpu").eval()
    init.random(model, seed, std=width**-0.5)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.squeeze().dim() < 2 or name.endswith(VECTORS):
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
            if name.endswith("att.key.weight"):
                p.mul_(0.1)  # as training begins; large first values are rounded where their group norm cancels them
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


def rwkv7_hf(model: RWKV, norm_eps: float = 1e-5) -> Any:
    """RWKV-7 as pip `rwkv7-hf` has it, in flash-linear-attention's layout, with the same weights."""
    from rwkv7_hf.configuration_rwkv7 import RWKV7Config
    from rwkv7_hf.modeling_rwkv7 import RWKV7ForCausalLM

    shape = {key: value for key, value in model.spec.architecture.items() if key not in ("model_type", "head_size")}
    heads = {"head_dim": model.spec.architecture["head_size"], "norm_eps": norm_eps}
    peer = RWKV7ForCausalLM(RWKV7Config(**shape, **heads)).eval()
    tensors = model.tensors()
    weights = {}
    for name, tensor in peer.state_dict().items():
        (ours,) = layouts.from_fla({name: tensor}, v7.SHIFTED)
        turned = "_lora." in name and name.endswith("weight")
        weights[name] = (tensors[ours].t() if turned else tensors[ours]).reshape(tensor.shape)
    peer.load_state_dict(weights)
    return peer


def rwkv7_hf_logits(model: RWKV, tokens: Tensor) -> Tensor:
    """Logits [B, T, V] of pip `rwkv7-hf`."""
    peer = rwkv7_hf(model)
    for module in peer.modules():
        if isinstance(module, nn.GroupNorm):
            module.eps = 64e-5  # the author's; there it is 1e-5 times the size of a head
    return peer(tokens).logits


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
    """Logits of our model with the recurrence one token at a time, in float64."""
    slow = RWKV.of(model.spec, impl="reference")
    slow.load_state_dict(model.state_dict(), assign=True)
    return slow(tokens)


PEERS: dict[str, Callable[[RWKV, Tensor], Tensor]] = {
    "transformers RwkvForCausalLM": transformers_logits,
    "pip rwkv": pip_rwkv_logits,
    "pip rwkv7-hf": rwkv7_hf_logits,
    "chunks of 1 (tokens)": chunked(1),
    "chunks of 7": chunked(7),
    "chunks of 64": chunked(64),
    "WKV one token at a time": reference_wkv,
}
ONLY = {"transformers RwkvForCausalLM": "rwkv4", "pip rwkv7-hf": "rwkv7"}  # peers of one version


def comparisons() -> list[tuple[str, str, str]]:
    """(version, size, peer) of all that are compared."""
    return [(v, size, peer) for v in SHAPES for size in SIZES for peer in PEERS if ONLY.get(peer, v) == v]


@torch.inference_mode()
def difference(version: str, size: str, peer: str, seed: int = 0) -> float:
    """The largest difference of the logits, relative to the largest logit."""
    model = make(size, seed, version)
    tokens = torch.randint(model.spec.vocab_size, (2, TOKENS), generator=torch.Generator().manual_seed(seed))
    ours, theirs = model(tokens), PEERS[peer](model, tokens)
    return float((ours - theirs).abs().max() / theirs.abs().max())


def main() -> int:
    failed = 0
    for version, size, peer in comparisons():
        layers, _, vocab = SIZES[size]
        width = make(size, version=version).spec.width
        head_size = "" if version == "rwkv4" else f" N={HEAD_SIZES[size]}"
        far = difference(version, size, peer)
        near = far <= BOUND  # False for NaN too
        failed += not near
        verdict = "ok" if near else "TOO FAR"
        shape = f"{version:7} L={layers} D={width:3}{head_size} V={vocab:4}"
        print(f"{shape}  ours vs {peer:30} {far:.1e}  (bound {BOUND:.0e})  {verdict}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
