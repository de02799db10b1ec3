"""Sequence mixers by name: each a small module x [B, T, C], valid [B, T] -> [B, T, C], in a file of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

import configs
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
    rwkv5_to_7,
    s4,
    sru,
)
from evals.lra.mixers.shape import Shape


@dataclass(frozen=True)
class Kind:
    """causal, bidirectional: in which directions it can be run. fixed_length: what it computes depends on the length
    that it was built for, and it takes no longer sequence. ordered: it tells positions apart by itself; the others are
    given learned ones. Its name in tables is in configs/mixers.yaml.
    """

    build: Callable[[Shape], nn.Module]
    causal: bool = True
    bidirectional: bool = True
    fixed_length: bool = False
    ordered: bool = False


KINDS: dict[str, Kind] = {
    "rwkv4": Kind(rwkv4.Mixer, ordered=True),
    "rwkv5": Kind(rwkv5_to_7.rwkv5, ordered=True),
    "rwkv6": Kind(rwkv5_to_7.rwkv6, ordered=True),
    "rwkv7": Kind(rwkv5_to_7.rwkv7, ordered=True),
    "attention": Kind(attention.Mixer),
    "attention-shift": Kind(attention_shift.Mixer),
    "longformer": Kind(longformer.Mixer),
    "bigbird": Kind(bigbird.Mixer, causal=False, fixed_length=True),
    "reformer": Kind(reformer.Mixer, causal=False),
    "linformer": Kind(linformer.Mixer, causal=False, fixed_length=True),
    "performer": Kind(performer.Mixer),
    "linear": Kind(linear_transformer.Mixer),
    "nystromformer": Kind(nystromformer.Mixer, causal=False, fixed_length=True),
    "fnet": Kind(fnet.Mixer, causal=False, fixed_length=True),
    "luna": Kind(luna.Mixer, causal=False),
    "s4": Kind(s4.Mixer, ordered=True),
    "aft": Kind(aft.Mixer, fixed_length=True),
    "mega": Kind(mega.Mixer, ordered=True),
    "lstm": Kind(recurrent.LSTM, ordered=True),
    "gru": Kind(recurrent.GRU, ordered=True),
    "qrnn": Kind(qrnn.Mixer, ordered=True),
    "sru": Kind(sru.Mixer, ordered=True),
    "retnet": Kind(retnet.Mixer, bidirectional=False, ordered=True),
    "hyena": Kind(hyena.Mixer, bidirectional=False, fixed_length=True, ordered=True),
    "mamba": Kind(mamba.Mixer, bidirectional=False, ordered=True),
}


def label(mixer: str) -> str:
    """A mixer's name in tables."""
    return str(configs.read("mixers")[mixer]["label"])
