"""The model as lm-eval sees it, entered by its smallest door, TemplateLM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lm_eval.api.model import TemplateLM

from evals.ask.asker import Asker
from rwkv_core.errors import BadInput

ROLLING = "no task of configs/tasks.yaml is scored by rolling log-likelihood"


class AskedModel(TemplateLM):
    """lm-eval's model over an Asker."""

    def __init__(self, asker: Asker) -> None:
        super().__init__()
        self.asker = asker

    @property
    def eot_token_id(self) -> int:
        return self.asker.eot_token_id

    @property
    def prefix_token_id(self) -> int:
        return self.asker.prefix_token_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self.asker.tok_encode(string, add_special_tokens)

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return self.asker.score([instance.args for instance in requests])

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        return self.asker.score_tokens([(context, continuation) for _, context, continuation in requests])

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        raise BadInput(ROLLING)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        return self.asker.generate([instance.args for instance in requests])
