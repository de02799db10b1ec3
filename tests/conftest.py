"""Triton's interpreter where there is no GPU, chosen before Triton is imported; the cores shared among processes."""

import os

import torch

from rwkv_core import machine

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # of pytest-xdist; what they start inherits it
    threads = max(1, machine.cores() // int(workers))
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
