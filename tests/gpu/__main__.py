"""`python -m tests.gpu`, set by the environment: BUDGET=seconds, LIST=1, REHEARSE=1, RESULTS=folder.

Exits with 0 when all is done, with 3 when something is left to do, with 1 where something is wrong.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
BUDGET_S = 480


def main() -> int:
    rehearse, listed = (os.environ.get(name, "") not in ("", "0") for name in ("REHEARSE", "LIST"))
    started = time.monotonic() - (time.time() - psutil.Process().create_time())
    if rehearse:  # before Triton is imported; what is started inherits both
        os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    os.chdir(ROOT)

    import torch

    from rwkv_core.errors import BadInput
    from tests.gpu.steps import STEPS
    from tests.gpu.work import Queue

    if not (rehearse or listed or torch.cuda.is_available()):
        print("torch sees no CUDA device here; nothing was run (REHEARSE=1 tries all of it on the CPU)")
        return 1
    device = "rehearsal" if rehearse else torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    try:
        budget = float(os.environ.get("BUDGET") or BUDGET_S)
        queue = Queue(STEPS, Path(os.environ.get("RESULTS") or "results"), device, started + budget, rehearse)
        return queue.show() if listed else queue.run()
    except (BadInput, ValueError) as error:
        print(f"gpu: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
