"""Attention of the next token in C and of a chunk without a mask: as in float64, at odd sizes, in a longer cache."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rwkv_core import attention

BOUND = 2e-6  # of outputs of the size of 1, in float32
needs_c = pytest.mark.skipif(attention.LIBRARY.loaded is None, reason="no C here")
SHAPES = [  # B, H, G, S, D
    (1, 12, 12, 300, 64),
    (2, 9, 3, 65, 64),
    (1, 4, 2, 1000, 12),
    (3, 2, 1, 257, 80),
    (1, 1, 1, 64, 7),
    (2, 8, 8, 511, 128),
    (1, 16, 1, 4097, 96),
]


def draw(shape: tuple[int, int, int, int, int], tokens: int, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, and keys and values as the first tokens of longer buffers, behind which no number is."""
    batch, heads, groups, keys, width = shape
    generator = torch.Generator().manual_seed(keys)
    query = scale * torch.randn(batch, heads, tokens, width, generator=generator)
    buffers = torch.randn(2, batch, groups, keys + 5, width, generator=generator)
    buffers[:, :, :, keys:] = torch.nan
    return query, buffers[0, :, :, :keys], buffers[1, :, :, :keys]


def exact(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """In float64: the last tokens of all, each of which sees those before it and itself."""
    tokens, keys, each = query.shape[2], key.shape[2], query.shape[1] // key.shape[1]
    seen = torch.ones(tokens, keys, dtype=torch.bool).tril(keys - tokens)
    keys_of, values_of = (x.double().repeat_interleave(each, 1) for x in (key, value))
    scores = (scale * query.double() @ keys_of.mT).masked_fill(~seen, -torch.inf)
    return scores.softmax(-1) @ values_of


@needs_c
@torch.inference_mode()
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_next_token_sees_all(shape: tuple[int, int, int, int, int], threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for sharp in (0.0, 1.0, 30.0):  # the largest weight is nearly all of it
            query, key, value = draw(shape, 1, sharp)
            assert attention.next_token_served(query, key, value)
            y = attention.next_token(query, key, value, 0.3)
            torch.testing.assert_close(y.double(), exact(query, key, value, 0.3), rtol=0, atol=BOUND * max(1.0, sharp))
    finally:
        torch.set_num_threads(before)


@needs_c
@torch.inference_mode()
def test_a_largest_score_that_comes_last_or_first_is_the_largest() -> None:
    query, key, value = draw((1, 2, 2, 700, 16), 1)
    for place in (0, 15, 16, 255, 256, 699):
        at = key.clone()
        at[:, :, place] = 40 * query[:, :, 0]
        y = attention.next_token(query, at, value, 1.0)
        torch.testing.assert_close(y.double(), exact(query, at, value, 1.0), rtol=0, atol=BOUND)
        assert not torch.allclose(y, value[:, :, (place + 1) % 700, None])


@needs_c
@torch.inference_mode()
def test_scores_far_below_zero_count_as_any_others() -> None:
    query, _, value = draw((1, 2, 2, 700, 16), 1)
    key = -40 * query.expand(1, 2, 700, 16).contiguous()
    y = attention.next_token(query, key, value, 1.0)
    torch.testing.assert_close(y, value.mean(2, keepdim=True), rtol=0, atol=1e-5)


@needs_c
@torch.inference_mode()
@pytest.mark.parametrize("place", [3, 290, 699])
def test_what_is_no_number_reaches_its_heads_and_no_others(place: int) -> None:
    for which in (0, 1):
        query, key, value = draw((1, 4, 2, 700, 16), 1)
        (key, value)[which][0, 1, place, 2] = torch.nan
        y = attention.next_token(query, key, value, 1.0)
        assert bool(y[0, :2].isfinite().all()) and not bool(y[0, 2:].isfinite().all(-1).any())


def test_what_torch_is_left_to_do() -> None:
    def served(tokens: int = 1, keys: int = 100, dtype: torch.dtype = torch.float32, turned: bool = False) -> bool:
        query, key, value = (x.to(dtype) for x in draw((1, 2, 2, keys, 16), tokens))
        return attention.next_token_served(query, key.mT.contiguous().mT if turned else key, value)

    with torch.inference_mode():
        assert served() is (attention.LIBRARY.loaded is not None)
        assert not any((served(tokens=2), served(keys=5), served(dtype=torch.bfloat16), served(turned=True)))
    assert not served(), "a gradient may be recorded"


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [2, 33, 64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_chunk_sees_what_was_before_it(
    shape: tuple[int, int, int, int, int], tokens: int, dtype: torch.dtype
) -> None:
    if tokens == shape[3]:
        pytest.skip("nothing is before it")
    query, key, value = (x.to(dtype) for x in draw(shape, tokens))
    scale = shape[4] ** -0.5
    y = attention.chunk(query, key, value, scale)
    bound = BOUND if dtype == torch.float32 else 0.03
    torch.testing.assert_close(y.double(), exact(query, key, value, scale), rtol=0, atol=bound)


@torch.inference_mode()
def test_a_chunk_is_as_torch_has_it_with_a_mask() -> None:
    query, key, value = draw((2, 6, 6, 500, 32), 200)
    mask = torch.ones(200, 500, dtype=torch.bool).tril(300)
    wanted = F.scaled_dot_product_attention(query, key, value, mask, scale=0.3)
    torch.testing.assert_close(attention.chunk(query, key, value, 0.3), wanted, rtol=1e-5, atol=1e-5)
