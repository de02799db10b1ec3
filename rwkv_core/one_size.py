"""What models say of a state that has one size for any number of tokens: a part of LanguageModel, the same for all."""

from __future__ import annotations

import copy
from typing import Any

from rwkv_core.spec import FixedStep


class OneSizeState:
    """A base of models. The class adds `state_bytes`."""

    cache = "state"

    def state_bytes(self, state: Any) -> int:
        """Exact bytes of the state's tensors."""
        raise NotImplementedError

    def reserve(self, tokens: int) -> None:
        """Nothing: there is no room to make."""

    def fork(self, state: Any) -> Any:
        """A copy, since the state of a runtime may be changed in place."""
        return copy.deepcopy(state)

    def fixed(self, state: Any, steps: int) -> FixedStep | None:
        """None: a runtime that others have written keeps its tensors as it likes."""
        return None

    def held_bytes(self, state: Any) -> int:
        """The same as are used: there is no room for more."""
        return self.state_bytes(state)
