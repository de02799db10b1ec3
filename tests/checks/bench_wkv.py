"""Times of the WKV implementations that this machine has, of few tokens: `make bench`. Not collected by `make test`.

A look for whoever works on a kernel, at what a decoder and short prompts ask of it. It prints and leaves no record:
every published number is of the experiment `kernels`, which compares the results first and watches the machine
(configs/kernels-cpu.yaml), at the shapes that stand there and not here.
"""

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.speed import kernels
from rwkv_core.wkv.wkv4 import WKV4

SHAPES = [(1, 1, 768), (32, 1, 768), (1, 64, 768), (32, 64, 768)]
CONTENDERS = ["floor", "c", "torch", "loop", "transformers"]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CONTENDERS)
def test_forward(benchmark: BenchmarkFixture, shape: tuple[int, int, int], name: str) -> None:
    torch.set_num_threads(1)
    inputs, dy = WKV4.example(shape, "cpu", torch.float32)
    calls = {"floor": kernels.floor("cpu", inputs)[0], **kernels.contenders(WKV4, "cpu", "forward", inputs, dy)}
    if name not in calls:
        pytest.skip(f"there is no {name} here")
    benchmark.group = f"forward {shape}, one thread"
    benchmark.pedantic(calls[name], rounds=5 if name in ("loop", "transformers", "torch") else 50, warmup_rounds=2)
