"""The recurrent operators of RWKV's versions, a folder each: the only table of them."""

from __future__ import annotations

from rwkv_core.wkv.operator import Operator
from rwkv_core.wkv.wkv4 import WKV4
from rwkv_core.wkv.wkv6 import WKV6
from rwkv_core.wkv.wkv7 import WKV7

OPERATORS: dict[str, Operator] = {operator.name: operator for operator in (WKV4, WKV6, WKV7)}
