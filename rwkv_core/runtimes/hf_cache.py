"""Where transformers' models keep keys and values: buffers that are written in place.

transformers' DynamicCache copies all keys and values at every token. Here a layer writes each token once, into a buffer
that doubles when it is full or that has room for the whole text from the start. No gradient passes through a cache that
is written again: training uses keep=False.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer


@dataclass
class CacheState:
    """A cache that transformers extends in place; `mask` [B, S] marks the true tokens, None where all are."""

    cache: Any
    mask: Tensor | None
    tokens: int


class PreallocatedLayer(DynamicLayer):
    """Keys and values [B, H, n, D]: views of the used part of two buffers [B, H, capacity, D].

    The first write makes buffers for `capacity` tokens, or for as many as it brings; full ones double. Where something
    else was put in place of `keys` and `values` (rows were taken), the next write moves it to new buffers.
    """

    def __init__(self, capacity: int = 0) -> None:
        super().__init__()
        self.capacity = capacity
        self._buffers: tuple[Tensor, ...] = ()
        self._views: tuple[Tensor, ...] = ()

    def room(self, capacity: int) -> tuple[Tensor, Tensor]:
        """Keys and values with room for so many tokens [B, H, capacity, D], zero behind the used ones: the buffers, or
        copies where they hold less.
        """
        if self._in_place() and capacity <= self.capacity:
            keys, values = (buffer.narrow(2, 0, capacity) for buffer in self._buffers)
        else:
            keys, values = (_with_room(used, capacity) for used in (self.keys, self.values))
        for part in (keys, values):
            part[:, :, self.keys.shape[2] :] = 0.0  # a masked number counts nothing, but nothing times NaN is NaN
        return keys, values

    def _in_place(self) -> bool:
        """Whether keys and values are the views of the buffers that the last write made."""
        return bool(self._views) and self.keys is self._views[0] and self.values is self._views[1]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new keys and values [B, H, t, D] behind the used ones; all of them [B, H, n + t, D]."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        used = (self.keys, self.values)
        begin, new = used[0].shape[2], key_states.shape[2]
        end = begin + new
        inside = self._in_place()
        if end > self.capacity:
            self.capacity = max(end, 2 * self.capacity) if inside else end
            inside = False
        if not inside:
            self._buffers = tuple(_with_room(t, self.capacity) for t in used)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer.narrow(2, begin, new).copy_(states)
        self.keys, self.values = self._views = tuple(buffer.narrow(2, 0, end) for buffer in self._buffers)
        return self.keys, self.values


KEEP_ALL = (DynamicLayer, PreallocatedLayer)  # layers that keep the keys and values of all tokens


def _with_room(used: Tensor, capacity: int) -> Tensor:
    """A buffer [B, H, capacity, D] that begins with `used` [B, H, n, D]."""
    batch, heads, tokens, width = used.shape
    buffer = used.new_empty(batch, heads, capacity, width)
    buffer[:, :, :tokens] = used
    return buffer


def only_attends_to_all(config: Any) -> bool:
    """Whether every layer that transformers would cache for this configuration keeps all keys and values: none has a
    sliding window, a state or an index.
    """
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)


def empty(config: Any, kind: str, room: int) -> Cache:
    """A cache before the first token, "preallocated" with room for `room` tokens, or transformers' "dynamic" one."""
    cache = DynamicCache(config=config)
    return Cache(layers=[PreallocatedLayer(room) for _ in cache.layers]) if kind == "preallocated" else cache


def fork(cache: Cache) -> Cache:
    """A cache with the same tokens, which grows apart from `cache`: where that has room, behind its tokens in the same
    buffers.
    """
    if all(type(layer) in KEEP_ALL for layer in cache.layers):
        return Cache(layers=[copy.copy(layer) for layer in cache.layers])
    return copy.deepcopy(cache)


def take(cache: Cache, rows: Tensor, first: int = 0) -> Cache:
    """A new cache of the given rows [N], repeated where asked, from slot `first` on; its room ends where that of
    `cache` does. Layers that do not keep all keys are taken whole: `first` must be 0.
    """
    if not all(type(layer) in KEEP_ALL for layer in cache.layers):
        reordered = copy.deepcopy(cache)
        reordered.reorder_cache(rows)
        return reordered
    layers = []
    for layer in cache.layers:
        new = PreallocatedLayer(layer.capacity - first) if isinstance(layer, PreallocatedLayer) else DynamicLayer()
        new.lazy_initialization(layer.keys, layer.values)
        new.keys, new.values = layer.keys[rows, :, first:], layer.values[rows, :, first:]
        layers.append(new)
    return Cache(layers=layers)


def align_right(cache: Cache, mask: Tensor | None, lengths: Tensor, past: int, new: int) -> Tensor:
    """Roll the last `new` slots' padding to the far left of each row; the mask [B, past+new] that results."""
    batch, total = len(lengths), past + new
    if mask is None:
        mask = torch.ones(batch, total, dtype=torch.long, device=lengths.device)
    slots = torch.arange(total, device=lengths.device)
    mask = mask * (slots < past + lengths[:, None])
    source = (slots - (new - lengths[:, None])) % total  # [B, S]: which old slot each new slot takes
    for layer in cache.layers:
        index = source[:, None, :, None]
        for states in (layer.keys, layer.values):
            states.copy_(states.gather(2, index.expand_as(states)))
    return mask.gather(1, source)


def used_bytes(cache: Cache) -> int:
    """Bytes of the keys and values of all tokens, or of a recurrent model's states."""
    return sum({t.data_ptr(): t.nbytes for t in _tensors(cache)}.values())


def held_bytes(cache: Cache) -> int:
    """Bytes that are allocated for them, the room for tokens to come among them."""
    storages = (t.untyped_storage() for t in _tensors(cache))
    return sum({s.data_ptr(): s.nbytes() for s in storages}.values())


def _tensors(cache: Cache) -> list[Tensor]:
    values: list[Any] = []
    for layer in cache.layers:
        for value in vars(layer).values():
            values += value.values() if isinstance(value, dict) else [value]
    return [t for t in values if isinstance(t, Tensor)]
