"""The names of weights in published files -> BlinkDL's, and back: two layouts of the hub."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

HUB_PREFIX = "rwkv."  # before every name but the head's
FLA = {  # flash-linear-attention's names of RWKV-7, in the order in which they are replaced
    r"^model\.embeddings\.": "emb.",
    r"^lm_head\.": "head.",
    r"^model\.norm\.": "ln_out.",
    r"^model\.layers\.": "blocks.",
    r"\.pre_norm\.": ".ln0.",
    r"\.attn_norm\.": ".ln1.",
    r"\.ffn_norm\.": ".ln2.",
    r"\.attn\.g_norm\.": ".att.ln_x.",
    r"\.attn\.r_proj\.": ".att.receptance.",
    r"\.attn\.k_proj\.": ".att.key.",
    r"\.attn\.v_proj\.": ".att.value.",
    r"\.attn\.o_proj\.": ".att.output.",
    r"\.attn\.([wavg])_lora\.lora\.0\.weight$": r".att.\g<1>1",
    r"\.attn\.([wavg])_lora\.lora\.2\.weight$": r".att.\g<1>2",
    r"\.attn\.([wav])_lora\.lora\.2\.bias$": r".att.\g<1>0",
    r"\.attn\.": ".att.",
}


def from_hub(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Of transformers' layout, or of BlinkDL's own. names: parts of BlinkDL's names -> of transformers'."""
    return {_from_hub(name, names): tensor for name, tensor in tensors.items()}


def to_hub(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The same tensors under transformers' names."""
    return {_to_hub(name, names): tensor for name, tensor in tensors.items()}


def from_fla(tensors: Mapping[str, Tensor], shifted: str) -> dict[str, Tensor]:
    """Of flash-linear-attention's layout of RWKV-7, whose low-rank matrices lie the other way round. shifted: the order
    of the rows of x_x [6, C], in which older folders keep all token-shift weights.
    """
    named: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(".attn.x_x"):
            rows = tensor.reshape(len(shifted), -1) if tensor.numel() % len(shifted) == 0 else tensor[None]
            block = _from_fla(name).removesuffix("x_x")
            named |= {f"{block}x_{letter}": row for letter, row in zip(shifted, rows, strict=False)}
        else:
            turned = re.search(r"_lora\.lora\.[02]\.weight$", name) and tensor.ndim == 2
            named[_from_fla(name)] = tensor.t().contiguous() if turned else tensor
    return named


def _from_fla(name: str) -> str:
    for theirs, ours in FLA.items():
        name = re.sub(theirs, ours, name)
    return name


def _from_hub(name: str, names: Mapping[str, str]) -> str:
    name = name.removeprefix(HUB_PREFIX)
    for blinkdl, hub in names.items():
        name = name.replace(hub, blinkdl) if hub.startswith(".") else re.sub(f"^{re.escape(hub)}", blinkdl, name)
    return name


def _to_hub(name: str, names: Mapping[str, str]) -> str:
    for blinkdl, hub in names.items():
        name = name.replace(blinkdl, hub) if hub.startswith(".") else re.sub(f"^{re.escape(blinkdl)}", hub, name)
    return name if name.startswith("head.") else HUB_PREFIX + name
