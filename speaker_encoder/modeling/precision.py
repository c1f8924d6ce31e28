"""Float32 that is float32, also on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Lets a CUDA device multiply float32 with all its bits inside.

    By torch's default cuDNN rounds what convolutions and LSTMs multiply to the 10 bits of TF32:
    then an embedding is another one on a CPU, and beside other utterances. The switches are
    those of the whole process, and are put back.

    Args:
        device: where the inference runs; on anything but a CUDA device nothing is switched.
    """
    if device.type != "cuda":
        yield
        return
    backends: Any = torch.backends
    switches = (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)
    before = [switch.fp32_precision for switch in switches]
    for switch in switches:
        switch.fp32_precision = "ieee"
    try:
        yield
    finally:
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision
