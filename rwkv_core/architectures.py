"""The arithmetic of each architecture: what it must keep to go on, how far it reaches, what it counts.

An architecture is what a transformers configuration calls its model_type. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Shape = Mapping[str, Any]  # the arguments of the architecture's transformers configuration


@dataclass(frozen=True)
class Architecture:
    """layer_state_bytes: what one layer keeps of one row of so many tokens, in numbers of so many bytes. recurrent: its
    size does not depend on the tokens. learned_positions: no longer sequence than there are positions. layers: what
    the configuration calls their number. runtime: who computes it where nothing else is said. parameters, flops: of the
    whole model, and of one token's forward pass, by formula, where a paper has one.
    """

    layer_state_bytes: Callable[[Shape, int, int], int]
    recurrent: bool = False
    learned_positions: bool = False
    layers: str = "num_hidden_layers"
    runtime: str = "transformers"
    parameters: Callable[[Shape], int] | None = None
    flops: Callable[[Shape], int] | None = None


def of(shape: Shape) -> Architecture:
    """The architecture of a configuration; one without a row is taken for a Transformer that attends to all."""
    return ARCHITECTURES.get(shape.get("model_type", ""), TRANSFORMER)


def _rwkv4(shape: Shape, tokens: int, itemsize: int) -> int:
    """Two token-shift vectors in the model's type and (a, b, p) in float32 (paper Table 2: 5DL numbers)."""
    inner = shape.get("attention_hidden_size") or shape["hidden_size"]
    return int(2 * shape["hidden_size"] * itemsize + 3 * inner * 4)


def _rwkv4_parameters(shape: Shape) -> int:
    """2VD + 13 D^2 L + D(11L + 4) (paper v2, sec. 4)."""
    vocab, width, layers = (shape[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers"))
    return int(2 * vocab * width + 13 * width**2 * layers + width * (11 * layers + 4))


def _rwkv4_flops(shape: Shape) -> int:
    """2(VD + 13 D^2 L), as printed in Table 2.

    The sentence in v2 says 2(2VD + 13 D^2 L); the numbers of the table follow this one, in which
    the embedding, a look-up, costs nothing.
    """
    vocab, width, layers = (shape[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers"))
    return int(2 * (vocab * width + 13 * width**2 * layers))


def _mamba(shape: Shape, tokens: int, itemsize: int) -> int:
    """A convolution window and a state."""
    inner = shape["expand"] * shape["hidden_size"]
    return int(inner * (shape["state_size"] + shape["conv_kernel"]) * itemsize)


def _attention(shape: Shape, tokens: int, itemsize: int) -> int:
    """One key and one value for each token and head, or group of heads that share them."""
    heads = shape.get("num_attention_heads", 1)
    groups = shape.get("num_key_value_heads") or heads
    head_width = shape.get("head_dim") or shape["hidden_size"] // heads
    return int(2 * groups * head_width * tokens * itemsize)


TRANSFORMER = Architecture(_attention)
ARCHITECTURES = {
    "rwkv": Architecture(_rwkv4, recurrent=True, runtime="native", parameters=_rwkv4_parameters, flops=_rwkv4_flops),
    "mamba": Architecture(_mamba, recurrent=True),
    "opt": Architecture(_attention, learned_positions=True),
    "bloom": Architecture(_attention, layers="n_layer"),
    "gpt_neo": Architecture(_attention, learned_positions=True, layers="num_layers"),
}
