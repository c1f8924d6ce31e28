"""How the loader's processes behave beside the one that trains."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

_NICENESS = 10


def be_a_good_worker(is_training: Any, worker: int) -> None:
    """Leaves signals to the main process, and the processor whenever that one wants it.

    While the main process trains, a Ctrl-C or a scheduler's SIGTERM that reaches a worker too is
    for the main process to answer; afterwards SIGTERM is how the worker is told to end. At equal
    priority a worker would hold up the threads of a training on the CPU, which wait for each
    other many times in a step.
    """

    def on_terminate(number: int, frame: FrameType | None) -> None:
        if not is_training.value:
            os._exit(0)

    os.nice(_NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, on_terminate)
