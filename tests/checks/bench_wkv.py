"""Times of the recurrences' implementations that this machine has: `make bench`. Not collected by `make test`.

A look for whoever works on a kernel, at what a decoder and short prompts ask of it. It prints and leaves no record:
every published number is of the experiment `kernels`, which compares the results first and watches the machine
(configs/kernels-cpu.yaml), at the shapes that stand there and not here.
"""

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.speed import kernels
from rwkv_core.wkv import OPERATORS

SHAPES = {  # by operator
    "wkv4": [(1, 1, 768), (32, 1, 768), (1, 64, 768), (32, 64, 768)],
    "wkv6": [(1, 1, 768), (32, 1, 768), (1, 64, 768)],
    "wkv7": [(1, 1, 768), (32, 1, 768), (1, 64, 768)],
}
CONTENDERS = ["floor", "c", "torch", "loop", "transformers"]


@pytest.mark.parametrize(
    ("operator", "shape"), [(n, shape) for n, shapes in SHAPES.items() for shape in shapes], ids=str
)
@pytest.mark.parametrize("name", CONTENDERS)
def test_forward(benchmark: BenchmarkFixture, operator: str, shape: tuple[int, int, int], name: str) -> None:
    torch.set_num_threads(1)
    inputs, dy = OPERATORS[operator].example(shape, "cpu", torch.float32)
    calls = kernels.contenders(OPERATORS[operator], "cpu", "forward", inputs, dy)
    calls = {"floor": kernels.floor("cpu", inputs)[0], **calls}
    if name not in calls:
        pytest.skip(f"there is no {name} here")
    benchmark.group = f"{operator} forward {shape}, one thread"
    benchmark.pedantic(calls[name], rounds=5 if name in ("loop", "transformers", "torch") else 50, warmup_rounds=2)
