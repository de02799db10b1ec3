import pytest
import torch

from rwkv_core.wkv.wkv6 import WKV6, wkv6


@pytest.mark.skipif(WKV6.implementations["c"].lacks(torch.device("cpu"), torch.float32) is not None, reason="no C here")
def test_one_decay_for_all_tokens_is_read_as_it_is():
    """RWKV-5's w, expanded from [H, N]: results and its gradient are those of a w of every token."""
    (u, r, w, k, v), dy = WKV6.example((2, 21, 128), "cpu", torch.float32)
    steady = w[0, 0].clone().requires_grad_()
    results = []
    for all_tokens in (steady.expand(w.shape), steady.expand(w.shape).contiguous()):
        y, state = wkv6(u, r, all_tokens, k, v, lengths=torch.tensor([21, 5]), impl="c")
        valid = y * torch.ones(2, 21).masked_fill(torch.arange(21) >= torch.tensor([[21], [5]]), 0)[..., None, None]
        results.append((valid, state, *torch.autograd.grad((valid * dy).sum() + state.sum(), steady)))
    for ours, wanted in zip(*results, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-6 * float(wanted.detach().abs().max()))
