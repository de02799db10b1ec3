"""Sequence mixers by name: each a small module x [B, T, C], valid [B, T] -> [B, T, C], in a file of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from evals.lra.mixers import (
    aft,
    attention,
    attention_shift,
    bigbird,
    fnet,
    hyena,
    linear_transformer,
    linformer,
    longformer,
    luna,
    mamba,
    mega,
    nystromformer,
    performer,
    qrnn,
    recurrent,
    reformer,
    retnet,
    rwkv4,
    s4,
    sru,
)
from evals.lra.mixers.shape import Shape


@dataclass(frozen=True)
class Kind:
    """title: in tables. causal, bidirectional: in which directions it can be run. published: its row in the paper's
    table. fixed_length: what it computes depends on the length that it was built for, and it takes no longer sequence.
    ordered: it tells positions apart by itself; the others are given learned ones.
    """

    title: str
    build: Callable[[Shape], nn.Module]
    causal: bool = True
    bidirectional: bool = True
    fixed_length: bool = False
    published: str = ""
    ordered: bool = False


KINDS: dict[str, Kind] = {
    "rwkv4": Kind("RWKV-4", rwkv4.Mixer, published="RWKV", ordered=True),
    "attention": Kind("attention", attention.Mixer, published="Transformer"),
    "attention-shift": Kind("attention + shift", attention_shift.Mixer),
    "longformer": Kind("Longformer", longformer.Mixer),
    "bigbird": Kind("BigBird", bigbird.Mixer, causal=False, fixed_length=True, published="BigBird"),
    "reformer": Kind("Reformer", reformer.Mixer, causal=False, published="Reformer"),
    "linformer": Kind("Linformer", linformer.Mixer, causal=False, fixed_length=True, published="Linformer"),
    "performer": Kind("Performer", performer.Mixer, published="Performer"),
    "linear": Kind("Linear Transformer", linear_transformer.Mixer, published="Linear Trans."),
    "nystromformer": Kind(
        "Nystromformer", nystromformer.Mixer, causal=False, fixed_length=True, published="Nyströmformer"
    ),
    "fnet": Kind("FNet", fnet.Mixer, causal=False, fixed_length=True, published="FNet"),
    "luna": Kind("Luna-16", luna.Mixer, causal=False),
    "s4": Kind("S4 (S4D)", s4.Mixer, published="S4", ordered=True),
    "aft": Kind("AFT", aft.Mixer, fixed_length=True),
    "mega": Kind("MEGA", mega.Mixer, ordered=True),
    "lstm": Kind("LSTM", recurrent.LSTM, ordered=True),
    "gru": Kind("GRU", recurrent.GRU, ordered=True),
    "qrnn": Kind("QRNN", qrnn.Mixer, ordered=True),
    "sru": Kind("SRU", sru.Mixer, ordered=True),
    "retnet": Kind("RetNet", retnet.Mixer, bidirectional=False, ordered=True),
    "hyena": Kind("Hyena", hyena.Mixer, bidirectional=False, fixed_length=True, ordered=True),
    "mamba": Kind("Mamba", mamba.Mixer, bidirectional=False, ordered=True),
}
