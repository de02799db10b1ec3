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


def _heads(shape: Shape, tokens: int, itemsize: int) -> int:
    """RWKV-5 to -7: two token-shift vectors in the model's type, and in float32 a matrix of head_size^2 for each head
    (Eagle/Finch, arXiv:2404.05892, Table 11: 66DL numbers with heads of 64).
    """
    inner = shape.get("attention_hidden_size") or shape["hidden_size"]
    return int(2 * shape["hidden_size"] * itemsize + shape["head_size"] * inner * 4)


def _rwkv5_parameters(shape: Shape) -> int:
    """2VD + 4D + L(matrices + 14D) in 5.2 (arXiv:2404.05892, App. E, where the feed-forward width is 3.5D); decay and
    bonus are one number a head in 5.0 and 5.1, and 5.0 has neither the gate nor its token shift.
    """
    vocab, width, layers = (shape[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers"))
    heads = width // shape["head_size"]
    vectors = {"5.0": 11 * width + 2 * heads, "5.1": 12 * width + 2 * heads, "5.2": 14 * width}[shape["variant"]]
    return int(2 * vocab * width + 4 * width + layers * (_rwkv5_matrices(shape) + vectors))


def _rwkv5_matrices(shape: Shape) -> int:
    """Numbers of one layer's matrices: receptance, key, value, output, and from 5.1 on the gate, D^2 each; those of the
    feed-forward, 2DF + D^2.
    """
    width = shape["hidden_size"]
    squares = 5 if shape["variant"] == "5.0" else 6
    return int(squares * width**2 + 2 * width * shape["intermediate_size"])


def _rwkv5_flops(shape: Shape) -> int:
    """2(DV + L matrices) + 6 head_size D L, the last being the recurrence (arXiv:2404.05892, App. E).

    The appendix takes twice all parameters in place of the first term, so that it counts the embedding, here a look-up
    that costs nothing, as a second head, and the vectors as matrices; its eq. 26, of training, prints 16D where three
    times this gives 24D.
    """
    return _flops(shape, shape["num_hidden_layers"] * _rwkv5_matrices(shape), 6)


def _flops(shape: Shape, matrices: int, recurrence: int) -> int:
    """Of so many numbers in all layers' matrices, and so many operations for each number of the recurrence's state."""
    vocab, width, layers = (shape[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers"))
    return int(2 * (vocab * width + matrices) + recurrence * shape["head_size"] * width * layers)


def _rwkv6_parameters(shape: Shape) -> int:
    """2VD + 4D + L(matrices + 16D) (arXiv:2404.05892, App. E)."""
    vocab, width, layers = (shape[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers"))
    return int(2 * vocab * width + 4 * width + layers * (_rwkv6_matrices(shape) + 16 * width))


def _rwkv6_matrices(shape: Shape) -> int:
    """RWKV-5.2's, and the low-rank ones: five pairs of the token shift, one of the decay."""
    ranks = 5 * shape["mix_low_rank_dim"] + shape["decay_low_rank_dim"]
    return _rwkv5_matrices({**shape, "variant": "5.2"}) + int(2 * ranks * shape["hidden_size"])


def _rwkv6_flops(shape: Shape) -> int:
    """As RWKV-5's, with the low-rank matrices."""
    return _flops(shape, shape["num_hidden_layers"] * _rwkv6_matrices(shape), 6)


def _rwkv7_parameters(shape: Shape) -> int:
    """2VD + 4D + L(matrices + 19D), less what layer 0 lacks: the value's bias D and its low-rank matrices. Counted over
    the tensors of the released models, whose sizes it gives (Goose, arXiv:2503.14456, has 12D^2 with F = 4D).
    """
    vocab, width, layers = (shape[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers"))
    return int(2 * vocab * width + 4 * width + _rwkv7_matrices(shape) + layers * 19 * width - width)


def _rwkv7_matrices(shape: Shape) -> int:
    """Numbers of all layers' matrices: receptance, key, value, output, two of the feed-forward, and the low-rank pairs
    of decay, in-context rate, value (not in layer 0) and gate.
    """
    width, layers = shape["hidden_size"], shape["num_hidden_layers"]
    ranks = sum(shape[f"{name}_low_rank_dim"] for name in ("decay", "a", "v", "gate"))
    layer = 4 * width**2 + 2 * width * shape["intermediate_size"] + 2 * width * ranks
    return int(layers * layer - 2 * width * shape["v_low_rank_dim"])


def _rwkv7_flops(shape: Shape) -> int:
    """2(DV + matrices) + 9 head_size D L: for each number of the state one for the decay, two to read by kk, four for
    two updates of rank one, two to read by r. Counted here: no formula of its authors was found.
    """
    return _flops(shape, _rwkv7_matrices(shape), 9)


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
    "rwkv5": Architecture(_heads, recurrent=True, runtime="native", parameters=_rwkv5_parameters, flops=_rwkv5_flops),
    "rwkv6": Architecture(_heads, recurrent=True, runtime="native", parameters=_rwkv6_parameters, flops=_rwkv6_flops),
    "rwkv7": Architecture(_heads, recurrent=True, runtime="native", parameters=_rwkv7_parameters, flops=_rwkv7_flops),
    "mamba": Architecture(_mamba, recurrent=True),
    "opt": Architecture(_attention, learned_positions=True),
    "bloom": Architecture(_attention, layers="n_layer"),
    "gpt_neo": Architecture(_attention, learned_positions=True, layers="num_layers"),
}
