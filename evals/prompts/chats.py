"""The form in which a model tuned to chat is asked (configs/chats.yaml)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import configs
from rwkv_core.errors import Unsupported
from rwkv_core.spec import ModelSpec


def template(spec: ModelSpec) -> str:
    """What stands around a prompt, with {prompt} in its place. Raises Unsupported for a family that was taught none."""
    return str(_form(spec)["template"])


def stop(spec: ModelSpec) -> str:
    """What begins the next turn, which a model may go on to write itself."""
    return str(_form(spec)["stop"])


def _form(spec: ModelSpec) -> Mapping[str, Any]:
    for form in configs.read("chats").values():
        if spec.family in form["families"]:
            return form
    raise Unsupported(f"{spec.name} was not tuned to chat; leave `form` out (configs/chats.yaml has who was)")


def filled(form: str, text: str) -> str:
    """The text as a turn of its own, without empty lines, which would end it."""
    return form.format(prompt=re.sub(r"\s*\n\s*\n", "\n", text.strip().replace("\r\n", "\n")))
