"""The recurrent operators of RWKV's versions, a folder each: the only table of them."""

from __future__ import annotations

from rwkv_core.wkv.operator import Operator
from rwkv_core.wkv.wkv4 import WKV4

OPERATORS: dict[str, Operator] = {operator.name: operator for operator in (WKV4,)}
