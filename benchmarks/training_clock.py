"""A clock of two trainers that are compared: it runs while they train, and rests meanwhile."""

import json
import time
from pathlib import Path

import psutil

CLOCKS = ("cpu", "wall")


def seconds_now() -> tuple[float, float]:
    """Gives (seconds of all processors, by the clock): of this process and all it started.

    Children that still live are counted too: processes that read audio.
    """
    process = psutil.Process()
    own = process.cpu_times()
    cpu = own.user + own.system + own.children_user + own.children_system
    for child in process.children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        cpu += times.user + times.system + times.children_user + times.children_system
    return cpu, time.perf_counter()


class TrainingClock:
    """Adds up seconds between `start` and `stop`, and writes a line for each checkpoint.

    Args:
        path: the lines: steps, cpu and wall seconds of training so far, the checkpoint's path.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._spent = (0.0, 0.0)
        self._since = (0.0, 0.0)

    def start(self) -> None:
        """Training goes on."""
        self._since = seconds_now()

    def stop(self) -> None:
        """Training rests."""
        now = seconds_now()
        cpu, wall = (s + n - b for s, n, b in zip(self._spent, now, self._since, strict=True))
        self._spent = (cpu, wall)

    def mark(self, steps: int, checkpoint: Path) -> None:
        """Notes a checkpoint, while the clock rests."""
        cpu, wall = self._spent
        line = {"steps": steps, "cpu": cpu, "wall": wall, "checkpoint": str(checkpoint)}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
