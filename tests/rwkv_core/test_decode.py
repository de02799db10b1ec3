"""The one decoding loop."""

import pytest
import torch

from rwkv_core.decode import generate, sampler
from tests.checks import parity
from tests.rwkv_core.runtimes.test_hf import small


@pytest.mark.parametrize("family", ["rwkv4", "pythia"])
def test_with_and_without_carried_state_the_text_is_the_same(family: str) -> None:
    model = parity.make("small") if family == "rwkv4" else small(family)
    prompt = torch.randint(100, (2, 5))
    marks: list[int] = []
    carried, _ = generate(model, prompt, 12, mark=lambda: marks.append(1))
    again, _ = generate(model, prompt, 12, carry=False)
    assert torch.equal(carried, again) and carried.shape == (2, 17) and len(marks) == 12
    assert torch.equal(carried[:, :5], prompt)


def test_greedy_is_transformers_greedy() -> None:
    model = small("pythia")
    prompt = torch.randint(100, (1, 5))
    ours, _ = generate(model, prompt, 10)
    model.causal.generation_config.eos_token_id = None
    theirs = model.causal.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=10, do_sample=False, pad_token_id=0
    )
    assert torch.equal(ours, theirs)


def test_sampling_follows_its_generator() -> None:
    model = parity.make("tiny")
    prompt = torch.zeros(1, 2, dtype=torch.long)
    runs = [generate(model, prompt, 20, pick=sampler(1.0, torch.Generator().manual_seed(s)))[0] for s in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
