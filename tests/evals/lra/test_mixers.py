"""Mixers of Long Range Arena: what each may see, against slow twins of their published equations."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench import matrix
from evals.lra.encoder import ALIKE, Encoder, Problem, Size, matched
from evals.lra.mixers import KINDS, linear_transformer, mamba, mega, qrnn, retnet, s4
from evals.lra.mixers.shape import Shape, convolved, rotated, scan, turned
from rwkv_core.errors import Unsupported

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
BATCH, TOKENS, WIDTH, VALID = 2, 150, 32, 110
WAYS = [
    (name, both)
    for name, kind in KINDS.items()
    for both in (True, False)
    if (kind.bidirectional if both else kind.causal)
]


def built(name: str, both: bool, seed: int = 0) -> tuple[torch.nn.Module, Tensor, Tensor]:
    torch.manual_seed(seed)
    mixer = KINDS[name].build(Shape(WIDTH, 2, TOKENS, 1, 3, both))
    valid = torch.ones(BATCH, TOKENS, dtype=torch.bool)
    valid[1, VALID:] = False
    return mixer, torch.randn(BATCH, TOKENS, WIDTH), valid


@pytest.mark.parametrize(("name", "both"), WAYS)
def test_a_mixer_learns_everywhere_and_never_from_padding_or_the_future(name: str, both: bool) -> None:
    mixer, x, valid = built(name, both)
    x.requires_grad_()
    y = mixer(x, valid)
    assert y.shape == x.shape and y.isfinite().all()
    (torch.randn_like(y)[valid] * y[valid]).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in mixer.parameters())
    assert x.grad is not None and x.grad[1, VALID:].abs().max() < 1e-5 < x.grad[1, :VALID].abs().max()
    with torch.no_grad():
        assert torch.allclose(mixer(x, valid), y, atol=1e-6)
        padded = x.clone()
        padded[1, VALID:] = 9
        assert torch.allclose(mixer(padded, valid)[valid], y[valid], atol=1e-5)
        short = mixer(x[1:, :VALID], valid[1:, :VALID])
        assert torch.allclose(short[0], y[1, :VALID], atol=1e-5)
        later = x.clone()
        later[0, 90:] = torch.randn(TOKENS - 90, WIDTH)
        moved = (mixer(later, valid) - y)[0, :90].abs().max()
        assert moved > 1e-4 if both else moved < 1e-5
    mixer(x[:1], valid[:1]).sum().backward()  # no batch, as some layouts have copies where this one has views


def test_rows_are_turned_within_their_valid_part() -> None:
    x = torch.arange(10).view(2, 5, 1).float()
    valid = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    assert turned(x, valid)[..., 0].tolist() == [[4, 3, 2, 1, 0], [7, 6, 5, 8, 9]]


def test_a_scan_is_the_recurrence() -> None:
    a, b = torch.rand(2, 37, 3, dtype=torch.float64), torch.randn(2, 37, 3, dtype=torch.float64)
    state, slow = torch.zeros(2, 3, dtype=torch.float64), []
    for t in range(37):
        state = a[:, t] * state + b[:, t]
        slow.append(state)
    assert torch.allclose(scan(a, b), torch.stack(slow, 1))


def test_a_convolution_is_its_sum() -> None:
    x, kernel = torch.randn(2, 20, 3, dtype=torch.float64), torch.randn(20, 3, dtype=torch.float64)
    slow = torch.stack([sum(kernel[j] * x[:, t - j] for j in range(t + 1)) for t in range(20)], 1)  # type: ignore[misc]
    assert torch.allclose(convolved(x, kernel), slow)


def test_linear_attention_in_chunks_is_the_sum_over_all_before() -> None:
    q, k, v = (torch.rand(2, 3, 100, 4, dtype=torch.float64) for _ in range(3))
    weights = (q @ k.transpose(-1, -2)).tril()
    slow = weights @ v / weights.sum(-1, keepdim=True)
    assert torch.allclose(linear_transformer.linear_attention(q, k, v, causal=True), slow)
    whole = q @ k.transpose(-1, -2)
    both = linear_transformer.linear_attention(q, k, v, causal=False)
    assert torch.allclose(both, whole @ v / whole.sum(-1, keepdim=True))


def test_retention_in_chunks_is_the_sum_over_all_before() -> None:
    q, k, v = (torch.randn(2, 3, 2 * retnet.CHUNK + 9, 4, dtype=torch.float64) for _ in range(3))
    decay = torch.log1p(-(2.0 ** -torch.arange(5.0, 8.0))).double()
    place = torch.arange(q.shape[2])
    powers = torch.exp(decay[:, None, None] * (place[:, None] - place)).tril()
    slow = (q @ k.transpose(-1, -2) * powers) @ v / powers.sum(-1, keepdim=True).sqrt()
    assert torch.allclose(retnet.retention(q, k, v, decay), slow)


def test_s4_is_its_state_space() -> None:
    torch.manual_seed(0)
    kernel = s4._Kernel(3).double()
    a = torch.complex(-torch.exp(kernel.log_decay), kernel.turn)
    step = torch.exp(kernel.log_step)[:, None]
    bar, inward = torch.exp(a * step), (torch.exp(a * step) - 1) / a
    x = torch.randn(1, 30, 3, dtype=torch.float64)
    state, slow = torch.zeros_like(a), []
    for t in range(30):
        state = bar * state + inward * x[0, t][:, None]
        slow.append(2 * (torch.view_as_complex(kernel.c) * state).sum(-1).real)
    assert torch.allclose(convolved(x, kernel(30))[0], torch.stack(slow))


def test_megas_average_is_its_recurrence() -> None:
    torch.manual_seed(0)
    average = mega._Average(3).double()
    assert torch.allclose(average.widen, torch.tensor([1.0, -1]).repeat(8).double(), atol=0.2)
    alpha, damp = torch.sigmoid(average.alpha), torch.sigmoid(average.damp)
    x = torch.randn(1, 30, 3, dtype=torch.float64)
    state, slow = torch.zeros_like(alpha), []
    for t in range(30):
        state = alpha * average.widen * x[0, t][:, None] + (1 - alpha * damp) * state
        slow.append((average.join * state).sum(-1))
    assert torch.allclose(convolved(x, average(30))[0], torch.stack(slow))


def test_qrnn_is_fo_pooling() -> None:
    mixer, x, _ = built("qrnn", False)
    (gates,) = mixer.ways  # type: ignore[misc]
    z, f, o = gates(x.transpose(1, 2))[..., :TOKENS].transpose(1, 2).chunk(3, -1)
    state, slow = torch.zeros(BATCH, WIDTH), []
    for t in range(TOKENS):
        keep = torch.sigmoid(f[:, t])
        state = keep * state + (1 - keep) * torch.tanh(z[:, t])
        slow.append(torch.sigmoid(o[:, t]) * state)
    assert torch.allclose(qrnn._run(gates, x), torch.stack(slow, 1), atol=1e-5)


def test_mamba_is_transformers() -> None:
    from transformers import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer

    ours, x, valid = built("mamba", False)
    assert isinstance(ours, mamba.Mixer)
    config = MambaConfig(
        hidden_size=WIDTH, state_size=16, expand=2, conv_kernel=4, time_step_rank=math.ceil(WIDTH / 16)
    )
    theirs = MambaMixer(config, 0)
    theirs.in_proj.load_state_dict(ours.inward.state_dict())
    theirs.conv1d.load_state_dict(ours.short.state_dict())
    theirs.x_proj.load_state_dict(ours.select.state_dict())
    theirs.dt_proj.load_state_dict(ours.step.state_dict())
    theirs.out_proj.load_state_dict(ours.outward.state_dict())
    theirs.A_log.data, theirs.D.data = ours.log_a.data, ours.skip.data
    assert torch.allclose(ours(x, valid), theirs(x), atol=1e-4)


def test_nystromformers_inverse_is_one() -> None:
    from evals.lra.mixers.nystromformer import _inverse

    a = torch.softmax(torch.randn(2, 2, 8, 8, dtype=torch.float64) + 4 * torch.eye(8), -1)
    assert torch.allclose(_inverse(a) @ a, torch.eye(8, dtype=torch.float64).expand_as(a), atol=1e-3)


def test_windows_see_as_far_as_they_say() -> None:
    from evals.lra.mixers.longformer import WINDOW

    mixer, x, valid = built("longformer", True)
    moved = x.clone()
    moved[0, 10] += 1
    changed = ((mixer(moved, valid) - mixer(x, valid))[0].abs().amax(-1) > 1e-6).nonzero().flatten()
    assert changed.min() == 0 and changed.max() == 10 + WINDOW


@pytest.mark.parametrize(("name", "both"), WAYS)
def test_every_mixer_has_attentions_budget_or_says_why_not(name: str, both: bool) -> None:
    size, problem = Size(2, 48, 4, 192), Problem(15, 10, 256)
    budget = Encoder("attention", size, problem, bidirectional=both).budget
    found = Encoder(name, matched(name, size, problem, bidirectional=both), problem, bidirectional=both)
    assert abs(found.budget / budget - 1) <= ALIKE


def test_what_cannot_be_matched_is_refused() -> None:
    with pytest.raises(Unsupported, match="cannot be run causally"):
        matched("fnet", Size(2, 48, 4, 192), Problem(15, 10, 256), bidirectional=False)
    with pytest.raises(Unsupported, match="more than 10% apart"):
        matched("s4", Size(1, 32, 4, 32), Problem(256, 2, 1024), bidirectional=True)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("lra*.yaml")), ids=lambda path: path.stem)
def test_every_cell_of_the_protocols_has_its_budget_but_narrow_s4(path: Path) -> None:
    keys = ("mixer", "direction", "layers", "width", "heads", "inner")
    refused = set()
    for mixer, direction, *size in {tuple(cell.params[key] for key in keys) for cell in matrix.read(path)}:
        try:
            found = matched(mixer, Size(*size), Problem(256, 10, 1024), bidirectional=direction == "both")
        except Unsupported:
            refused.add((mixer, size[1]))
        else:
            assert found.inner > 0.4 * size[-1]
    assert refused == ({("s4", 32)} if path.stem == "lra" else set())


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if not kind.ordered])
def test_a_fresh_encoder_tells_orders_apart(name: str) -> None:
    """Positions are of the embeddings' size, or mixers without an order of their own would begin as bags of tokens."""
    torch.manual_seed(0)
    encoder = Encoder(name, Size(2, 48, 4, 192), Problem(256, 10, 256), bidirectional=True)
    tokens, lengths = torch.randint(1, 257, (8, 256)), torch.full((8,), 256)
    with torch.no_grad():
        own = encoder.encode(tokens, lengths)
        shuffled = encoder.encode(tokens[:, torch.randperm(256)], lengths)
    assert (own - shuffled).norm() > 0.08 * (own - own.roll(1, 0)).norm()


@pytest.mark.parametrize("name", ["longformer", "bigbird"])
def test_blocks_are_attention_under_a_mask(name: str) -> None:
    from evals.lra.mixers.longformer import WINDOW

    mixer, x, valid = built(name, True)
    place = torch.arange(TOKENS)
    if name == "longformer":
        mask = (place[:, None] - place).abs() <= WINDOW
    else:
        block, table = place // mixer.block, mixer.table  # type: ignore[operator]
        mask = (table[block][:, :, None] == block).any(1)
        mask[(block == 0) | (block == len(table) - 1)] = True
    assert mask.float().mean() < 0.9
    q, k, v = mixer.project.split(x)  # type: ignore[operator, union-attr]
    scores = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(~(mask & valid[:, None, None]), -torch.inf)
    slow = mixer.project.join(torch.softmax(scores, -1) @ v)  # type: ignore[operator, union-attr]
    assert torch.allclose(mixer(x, valid)[valid], slow[valid], atol=1e-5)


def test_bigbird_is_refused_where_it_would_be_attention() -> None:
    KINDS["bigbird"].build(Shape(WIDTH, 2, 80, 0, 1, True))
    with pytest.raises(Unsupported, match="sees all of 64 tokens"):
        KINDS["bigbird"].build(Shape(WIDTH, 2, 64, 0, 1, True))


def test_attention_with_a_shift_sees_the_neighbours() -> None:
    mixer, x, valid = built("attention-shift", True)
    before, after = (torch.zeros_like(x) for _ in "ba")
    before[:, 1:], after[:, :-1] = x[:, :-1], x[:, 1:]
    after[1, VALID - 1] = 0
    with torch.no_grad():
        mixer.shares.copy_(torch.stack([torch.full((WIDTH,), 0.3), torch.full((WIDTH,), 0.6)]))  # type: ignore[operator, union-attr]
        mixed = 0.1 * x + 0.3 * before + 0.6 * after
        slow = mixer.attention(mixed, valid)  # type: ignore[operator]
        assert torch.allclose(mixer(x, valid)[valid], slow[valid], atol=1e-5)


def test_s4_steps_less_at_path_x() -> None:
    torch.manual_seed(0)
    short, long = (
        s4.Mixer(Shape(512, 1, length, 0, 1, False)).ways[0].log_step.exp().min() for length in (1024, 16384)
    )  # type: ignore[operator, union-attr]
    assert 0.001 <= short < 0.002 and 0.0001 <= long < 0.0002


@pytest.mark.parametrize("both", [True, False])
def test_mega_is_its_equations(both: bool) -> None:
    mixer, x, valid = built("mega", both)
    assert isinstance(mixer, mega.Mixer)
    x = x * valid[..., None]
    smooth = mega.convolved_each_way(mixer.ways, x, valid)
    shared = torch.nn.functional.silu(mixer.shared(smooth))
    q, k = shared * mixer.scale[0] + mixer.bias[0], shared * mixer.scale[1] + mixer.bias[1]
    one, other = rotated(mixer.relative[:, None].expand(-1, TOKENS, -1))
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + one @ other.T
    seen = valid[:, None] if both else torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
    told = torch.softmax(scores.masked_fill(~seen, -torch.inf), -1) @ torch.nn.functional.silu(mixer.value(x))
    reset, update, candidate = mixer.gates(smooth).chunk(3, -1)
    new = torch.nn.functional.silu(candidate + mixer.recall(torch.nn.functional.silu(reset) * told))
    assert torch.allclose(mixer(x, valid)[valid], (torch.sigmoid(update) * (new - x))[valid], atol=1e-5)


def test_rotations_tell_the_distance() -> None:
    one, other = rotated(torch.randn(2, 1, 8, dtype=torch.float64).expand(-1, 30, -1))
    bias = one @ other.T
    assert torch.allclose(bias[1:, 1:], bias[:-1, :-1]) and not torch.allclose(bias, bias.T)


def test_an_encoder_reads_tokens_pixels_and_pairs() -> None:
    tokens, lengths = torch.randint(1, 16, (3, 20)), torch.tensor([20, 7, 1])
    tokens[torch.arange(20) >= lengths[:, None]] = 0
    size = Size(2, 16, 2, 32)
    one = Encoder("rwkv4", size, Problem(15, 4, 20), bidirectional=False)
    assert one(tokens, lengths).shape == (3, 4)
    assert torch.allclose(one(tokens, lengths)[1:2], one(tokens[1:2, :7], lengths[1:2]), atol=1e-5)
    assert Encoder("attention", size, Problem(15, 4, 20, pixels=True), bidirectional=True)(tokens, lengths).shape == (
        3,
        4,
    )
    pair = Encoder("attention", size, Problem(15, 2, 20, pairs=True), bidirectional=True)
    answers = pair(tokens, lengths, tokens.flip(0), lengths.flip(0))
    assert answers.shape == (3, 2) and not torch.allclose(answers[0], answers[2])
