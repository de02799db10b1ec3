"""Triton's interpreter where there is no GPU, chosen before Triton is imported; the cores shared among processes; no
hub.
"""

import os

import pytest
import torch

from rwkv_core import machine

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # what a branch stands for would be asked there

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # of pytest-xdist; what they start inherits it
    threads = max(1, machine.cores() // int(workers))
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: says something on a CUDA device that it cannot say without one")
