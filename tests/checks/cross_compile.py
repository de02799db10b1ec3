"""Triton's kernels compiled for GPUs that this machine need not have: `python -m tests.checks.cross_compile`.

Arguments: of sm_80-fp32, sm_80-bf16, sm_90-fp32 and sm_90-bf16 those that are meant; without one, all.

One line a kernel, target and type, with the assembler's count of registers, spilled bytes and shared memory;
exit status 1 if any kernel spills.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from rwkv_core.wkv import triton_matrix_state
from rwkv_core.wkv.wkv4 import triton_backward, triton_forward
from rwkv_core.wkv.wkv6.triton_forward import wkv6_walk
from rwkv_core.wkv.wkv7.triton_forward import wkv7_walk

CHANNELS, HEAD_SIZE = 768, 64
TARGETS = {f"sm_{sm}-{dtype}": (sm, dtype) for sm in (80, 90) for dtype in ("fp32", "bf16")}  # A100; H100 or H200
TENSORS = {"r", "k", "v", "y", "dy", "dk", "dv"}  # of the model's type
FLOATS = {"w", "u", "a", "b", "p", "da", "db", "sums", "state", "final", "carries", "initial", "partial"}
CONSTANTS = {
    "WIDTH": CHANNELS,
    "BLOCK": triton_forward.BLOCK,
    "ROWS": triton_forward.ROWS,
    "INTERVAL": triton_forward.INTERVAL,
}
MATRIX = {"SIZE": HEAD_SIZE, "BLOCK": triton_matrix_state.BLOCK}
BACKWARD = {**CONSTANTS, "ROWS": triton_forward.INTERVAL}

# With all that they can be asked for: a single launch's are the same ones without chunks, lengths and carries.
KERNELS: dict[str, tuple[Any, dict[str, int]]] = {
    "walk_chunks": (triton_forward.walk_chunks, CONSTANTS),
    "walk_back": (triton_backward.walk_back, BACKWARD),
    "sum_chunk_gradients": (triton_backward.sum_chunk_gradients, BACKWARD),
    "sum_chunks": (triton_forward.sum_chunks, CONSTANTS),
    "wkv6_walk": (wkv6_walk, MATRIX),
    "wkv7_walk": (wkv7_walk, MATRIX),
}
SEQUENCES = {"wkv7_walk": {"a", "b"}}  # of a kernel and of the model's type, where others have sums of these names


def assembly(kernel: Any, constants: dict[str, int], capability: int, dtype: str) -> tuple[str, int]:
    """PTX of a kernel of one warp, and the bytes of shared memory it takes."""
    signature, given, aligned = {}, {}, {}
    tensors = TENSORS | SEQUENCES.get(kernel.__name__, set())
    for index, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            given[(index,)] = constants[name]
        elif name in tensors | FLOATS | {"lengths"}:
            signature[name] = "*i64" if name == "lengths" else f"*{dtype}" if name in tensors else "*fp32"
            aligned[(index,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "i32"
    source = ASTSource(kernel, signature, given, aligned)
    options = {"num_warps": 1, "num_stages": 1}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return compiled.asm["ptx"], compiled.metadata.shared


def resources(ptx: str) -> tuple[int, int]:
    """Registers and spilled bytes, as the assembler that comes with Triton reports them."""
    assembler = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    target = re.search(r"^\.target (\w+)", ptx, re.MULTILINE)
    assert target
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(ptx)
        command = [assembler, "-v", f"--gpu-name={target[1]}", source, "-o", Path(folder, "kernel.cubin")]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    registers = re.search(r"Used (\d+) registers", said)
    assert registers
    return int(registers[1]), sum(int(count) for count in re.findall(r"(\d+) bytes spill", said))


def report(name: str, capability: int, dtype: str) -> tuple[str, int]:
    """One kernel's line, and its spilled bytes."""
    ptx, shared = assembly(*KERNELS[name], capability, dtype)
    registers, spills = resources(ptx)
    return f"{name:20} sm_{capability} {dtype} {registers:3} registers, {spills} spilled, {shared} shared", spills


def main() -> int:
    chosen = [TARGETS[name] for name in sys.argv[1:]] or TARGETS.values()
    work = [(name, *target) for name, target in itertools.product(KERNELS, chosen)]
    with ProcessPoolExecutor() as pool:
        reports = list(pool.map(report, *zip(*work, strict=True)))
    print("\n".join(line for line, _ in reports))
    return 1 if any(spills for _, spills in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
