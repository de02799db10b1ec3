"""Models' weights as llama.cpp reads them: GGUF files, written by the package `gguf` of llama.cpp's own project.

A file has no tokenizer: what is raced are tokens. Names and layouts of the tensors are those that llama.cpp's model
files ask for; where they differ from ours, a comment says how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rwkv_core.errors import Unsupported
from rwkv_core.rwkv import heads, v7

KINDS = ("F32", "Q8_0", "Q4_0")  # of matrices; the last two hold a scale for each 32 weights of a row
BLOCK = 32
IN_FULL = (  # matrices that llama.cpp's own quantising leaves in float32 (llama-quant.cpp): small ones of RWKV
    "time_mix_first.weight",
    *(f"time_mix_{letter}{i}.weight" for letter in "wavg" for i in range(3)),
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
)

Facts = dict[str, int | float | bool]  # the file's keys, without the architecture that stands before each
Tensors = Iterator[tuple[str, Tensor]]


def write(model: Any, path: Path, kind: str) -> None:
    """A file with the weights of an RWKV or an HFModel whose architecture has a row in LAYOUTS.

    kind: of KINDS, of every matrix with rows of whole blocks, the embedding and the head among them; what is in IN_FULL
        and every vector is in float32. Raises Unsupported where llama.cpp would compute something else.
    """
    import gguf  # here, because it is optional

    name, facts, tensors = LAYOUTS[model.spec.architecture["model_type"]](model)
    writer = gguf.GGUFWriter(path, name)
    adders: dict[type, Callable[[str, Any], None]] = {
        int: writer.add_uint32,
        float: writer.add_float32,
        bool: writer.add_bool,
    }
    for key, value in facts.items():
        adders[type(value)](f"{name}.{key}", value)
    writer.add_tokenizer_model("no_vocab")
    for tensor_name, tensor in tensors:
        values = tensor.detach().cpu().float().contiguous().numpy()
        matrix = values.ndim == 2 and values.shape[1] % BLOCK == 0 and not tensor_name.endswith(IN_FULL)
        stored = gguf.GGMLQuantizationType[kind if matrix else "F32"]
        writer.add_tensor(tensor_name, gguf.quants.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _rwkv(model: Any) -> Facts:
    """Keys that RWKV-6 and 7 share. Raises Unsupported."""
    shape = model.spec.architecture
    if heads.width(shape) != shape["hidden_size"] or model.blocks[0].att.ln_x.eps != heads.EPSILON:
        raise Unsupported(f"{model.spec.name}: llama.cpp has one width and one epsilon of the group norm")
    return {
        "vocab_size": model.spec.vocab_size,
        "context_length": model.spec.context_length,
        "embedding_length": model.spec.width,
        "block_count": model.spec.layers,
        "feed_forward_length": int(shape["intermediate_size"]),
        "attention.head_count": 0,
        "attention.layer_norm_epsilon": float(model.ln_out.eps),
        "wkv.head_size": int(shape["head_size"]),
        "token_shift_count": 2,
    }


def _rwkv6(model: Any) -> tuple[str, Facts, Tensors]:
    shape = model.spec.architecture
    ranks = {"time_mix_extra_dim": "mix_low_rank_dim", "time_decay_extra_dim": "decay_low_rank_dim"}
    facts = _rwkv(model) | {key: int(shape[ours]) for key, ours in ranks.items()}
    return "rwkv6", {**facts, "rescale_every_n_layers": 0}, _rwkv_tensors(model, _rwkv6_layer)


def _rwkv7(model: Any) -> tuple[str, Facts, Tensors]:
    shape = model.spec.architecture
    ranks = dict(zip(("decay", "iclr", "value_residual_mix", "gate"), v7.LOW_RANK, strict=True))
    facts = _rwkv(model)
    facts |= {f"attention.{key}_lora_rank": int(shape[ours]) for key, ours in ranks.items()}
    return "rwkv7", facts, _rwkv_tensors(model, _rwkv7_layer)


def _rwkv_tensors(model: Any, layer: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]) -> Tensors:
    """All of them. layer: what is particular to a version, of the weights of one block by their names in it."""
    weights = model.tensors()
    yield "token_embd.weight", weights["emb.weight"]
    yield "output.weight", weights["head.weight"]
    for theirs, ours in (("token_embd_norm", "blocks.0.ln0"), ("output_norm", "ln_out")):
        yield from ((f"{theirs}.{end}", weights[f"{ours}.{end}"]) for end in ("weight", "bias"))
    for i in range(model.spec.layers):
        begin = f"blocks.{i}."
        block = {name.removeprefix(begin): weight for name, weight in weights.items() if name.startswith(begin)}
        for theirs, ours in (("attn_norm", "ln1"), ("attn_norm_2", "ln2"), ("time_mix_ln", "att.ln_x")):
            yield from ((f"blk.{i}.{theirs}.{end}", block[f"{ours}.{end}"]) for end in ("weight", "bias"))
        for part, ours in (("time_mix", "att"), ("channel_mix", "ffn")):
            for name in ("receptance", "key", "value", "gate", "output"):
                if f"{ours}.{name}.weight" in block:
                    yield f"blk.{i}.{part}_{name}.weight", block[f"{ours}.{name}.weight"]
        yield from ((f"blk.{i}.{name}.weight", weight) for name, weight in layer(block).items())


def _fused(weights: list[Tensor]) -> Tensor:
    """Shares of token shifts, each [1, 1, C], as one tensor [S, 1, 1, C]."""
    return torch.stack([weight.view(1, 1, -1) for weight in weights])


def _rwkv6_layer(block: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        "time_mix_lerp_x": block["att.time_maa_x"].flatten(),
        "time_mix_lerp_fused": _fused([block[f"att.time_maa_{letter}"] for letter in "wkvrg"]),
        "time_mix_w1": block["att.time_maa_w1"].mT,  # low-rank matrices are [out, in] there
        "time_mix_w2": block["att.time_maa_w2"].mT,
        "time_mix_decay": block["att.time_decay"].flatten(),
        "time_mix_decay_w1": block["att.time_decay_w1"].mT,
        "time_mix_decay_w2": block["att.time_decay_w2"].mT,
        "time_mix_first": block["att.time_faaaa"],
        "channel_mix_lerp_k": block["ffn.time_maa_k"].flatten(),
        "channel_mix_lerp_r": block["ffn.time_maa_r"].flatten(),
    }


def _rwkv7_layer(block: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors = {f"time_mix_{name}": block[f"att.{name}"].flatten() for name in ("w0", "a0", "k_k", "k_a", "r_k")}
    tensors |= {f"time_mix_{name}": block[f"att.{name}"].mT for name in ("w1", "w2", "a1", "a2", "g1", "g2")}
    for i in range(3):  # of the first layer it asks for them too, in the shapes of the rate's, and reads none
        weight = block.get(f"att.v{i}")
        weight = torch.zeros_like(block[f"att.a{i}"]) if weight is None else weight
        tensors[f"time_mix_v{i}"] = weight.mT if i else weight.flatten()
    tensors["time_mix_lerp_fused"] = _fused([block[f"att.x_{letter}"] for letter in "rwkvag"])
    return {**tensors, "channel_mix_lerp_k": block["ffn.x_k"].flatten()}


def _transformer(model: Any, activation: str) -> Facts:
    """Keys that Transformers with rotary positions share. Raises Unsupported where these or the activation are others
    than llama.cpp computes for the architecture.
    """
    config = model.causal.config
    if config.rope_parameters["rope_type"] != "default" or config.hidden_act != activation:
        raise Unsupported(f"{model.spec.name}: its positions or {config.hidden_act} are not written for llama.cpp")
    width = config.hidden_size // config.num_attention_heads
    return {
        "vocab_size": config.vocab_size,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "rope.dimension_count": int(width * config.rope_parameters.get("partial_rotary_factor", 1)),
        "rope.freq_base": float(config.rope_parameters["rope_theta"]),
    }


def _renamed(model: Any, outer: Mapping[str, str], inner: Mapping[str, str]) -> Iterator[tuple[str, str, Tensor]]:
    """(the name in the file, the name in a layer or that of the module, the weight) of every weight, tied ones once.

    outer, inner: our modules' names, those of layers from the layer on -> the file's. Raises Unsupported for a weight
    that the file has no place for.
    """
    for name, weight in model.causal.named_parameters():
        module, _, end = name.rpartition(".")
        _, between, rest = module.partition(".layers.")
        number, _, ours = rest.partition(".")
        known = inner.get(ours) if between else outer.get(module)
        if known is None:
            raise Unsupported(f"{model.spec.name}: llama.cpp's file has no place for {name}")
        yield (f"blk.{number}.{known}.{end}" if between else f"{known}.{end}"), ours or module, weight


def _gpt_neox(model: Any) -> tuple[str, Facts, Tensors]:
    config = model.causal.config
    facts: Facts = {
        "use_parallel_residual": bool(config.use_parallel_residual),
        "attention.layer_norm_epsilon": float(config.layer_norm_eps),
    }
    return "gptneox", _transformer(model, "gelu") | facts, _gpt_neox_tensors(model, config.num_attention_heads)


def _gpt_neox_tensors(model: Any, count: int) -> Tensors:
    outer = {"gpt_neox.embed_in": "token_embd", "gpt_neox.final_layer_norm": "output_norm", "lm_head": "output"}
    inner = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "attention.query_key_value": "attn_qkv",
        "attention.dense": "attn_output",
        "mlp.dense_h_to_4h": "ffn_up",
        "mlp.dense_4h_to_h": "ffn_down",
    }
    for name, ours, weight in _renamed(model, outer, inner):
        if ours == "attention.query_key_value":  # head by head, query, key and value of each; there all queries first
            weight = weight.unflatten(0, (count, 3, -1)).transpose(0, 1).flatten(0, 2)
        yield name, weight


def _llama(model: Any) -> tuple[str, Facts, Tensors]:
    config = model.causal.config
    if config.head_dim * config.num_attention_heads != config.hidden_size:
        raise Unsupported(f"{model.spec.name}: heads of another width are not written for llama.cpp")
    facts: Facts = {
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
    }
    return "llama", _transformer(model, "silu") | facts, _llama_tensors(model, config.head_dim)


def _llama_tensors(model: Any, head_size: int) -> Tensors:
    outer = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    inner = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        **{f"self_attn.{letter}_proj": f"attn_{letter}" for letter in "qkv"},
        "self_attn.o_proj": "attn_output",
        **{f"mlp.{name}_proj": f"ffn_{name}" for name in ("gate", "up", "down")},
    }
    for name, ours, weight in _renamed(model, outer, inner):
        if ours in ("self_attn.q_proj", "self_attn.k_proj"):  # it turns neighbours (0, 1), ours the halves (0, N/2)
            weight = weight.unflatten(0, (-1, 2, head_size // 2)).transpose(1, 2).flatten(0, 2)
        yield name, weight


LAYOUTS: dict[str, Callable[[Any], tuple[str, Facts, Tensors]]] = {
    "rwkv6": _rwkv6,
    "rwkv7": _rwkv7,
    "gpt_neox": _gpt_neox,
    "llama": _llama,
}
