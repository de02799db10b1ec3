"""No number from NaN or infinity: who reads logits or losses asks here, and is told which layer went wrong first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter

from rwkv_core.errors import BadInput
from rwkv_core.spec import LanguageModel
from rwkv_core.torch_model import arithmetic

PART = 64  # positions whose logits are held at once, and that are read again at once: little beside what is measured
MEND = {
    torch.float16: "write `dtype: bfloat16` or `dtype: float32`, whose range is larger",
    torch.bfloat16: "see whether `dtype: float32` is finite; if not, copy or download the weights again",
    torch.float32: "the weights are damaged or of another model: copy or download them again",
}
TRAINED = "training has gone astray; try a smaller learning rate"  # of weights that came from no checkpoint


def rows(logits: Tensor) -> Tensor:
    """logits [..., V] -> [...], whether all of a row are finite; nothing waits for the device."""
    return logits.amin(-1).isfinite() & logits.amax(-1).isfinite()


def check(model: LanguageModel, hidden: Tensor, tokens: Tensor) -> None:
    """The logits of hidden [B, T, C] are finite. tokens [B, S]: all that was fed so far. Raises BadInput."""
    for part in hidden.flatten(0, 1).split(PART):
        if not bool(rows(model.logits(part)).all()):
            refuse(model, tokens)


def refuse(model: LanguageModel, tokens: Any) -> NoReturn:
    """Raise BadInput naming the layer whose values are the first that are not finite when `tokens`, [T] or [B, T],
    are read again; of a runtime that shows no layers, that its logits are not.
    """
    if not isinstance(model, nn.Module):
        raise BadInput(f"{model.spec.name}: its logits in {model.spec.runtime} have values that are not finite")
    like = next(model.parameters())
    fed = torch.as_tensor(tokens, dtype=torch.long, device=like.device)
    mend = TRAINED if model.spec.fresh else ""
    raise fault(model.spec.name, model, lambda: _read(model, fed.view(-1, fed.shape[-1])), mend)


def fault(name: str, module: nn.Module, again: Callable[[], object], mend: str = "") -> BadInput:
    """The error that says which layer of `module` is the first to give a value that is not finite when `again` is
    called. mend: what to do about it, unless the type is to blame or the checkpoint.
    """
    dtype = arithmetic(module)
    layer = first_layer(module, again)
    where = f"{layer} is the first layer with values" if layer else "its logits have values"
    return BadInput(f"{name}: {where} that are not finite in {_named(dtype)}; {mend or MEND[dtype]}")


def first_layer(module: nn.Module, again: Callable[[], object]) -> str:
    """The name of the first layer that makes of finite values others; empty where none does."""
    wrong: list[str] = []

    def watch(name: str, layer: nn.Module) -> Any:
        def see(_: nn.Module, args: tuple[Any, ...], options: Mapping[str, Any], result: Any) -> None:
            if not wrong and not _whole([result]) and _whole([args, options.get("hidden_states"), options]):
                wrong.append(name.removeprefix("causal."))

        return layer.register_forward_hook(see, with_kwargs=True)

    handles = [watch(name, layer) for name, layer in module.named_modules() if name]
    try:
        with torch.no_grad():
            again()
    finally:
        for handle in handles:
            handle.remove()
    return wrong[0] if wrong else ""


def check_weights(name: str, module: nn.Module) -> None:
    """Raises BadInput naming the first of a checkpoint's weights that hold NaN or infinity. name: the model's."""
    wrong = [(key, p) for key, p in module.named_parameters() if not _whole([p.detach()])]
    if wrong:
        key, p = wrong[0]
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        mend = MEND[torch.float32 if bool(p.isnan().any()) else p.dtype]
        raise BadInput(
            f"{name}: of its weights, {key.removeprefix('causal.')}{more} hold values that are not finite "
            f"in {_named(p.dtype)}; {mend}"
        )


def _whole(parts: Iterable[Any]) -> bool:
    """Whether the first tensor of floats in there, the activations, is finite throughout."""
    for one in tree_iter(list(parts)):
        if isinstance(one, Tensor) and one.is_floating_point() and one.numel():
            low, high = one.aminmax()
            return bool(low.isfinite() & high.isfinite())
    return True


def _read(model: LanguageModel, tokens: Tensor) -> None:
    """tokens [B, T] once more, a part at a time where the model can go on by many."""
    state = None
    for part in tokens.split(PART if model.ragged else tokens.shape[1], 1):
        hidden, state = model.hidden(part, state)
        model.logits(hidden)


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
