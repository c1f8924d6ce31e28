"""The process in which a `BackgroundPlotter` draws: `python -m speaker_encoder.plots.worker`."""

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from speaker_encoder.plots.background import CLOSE_FILE, POLL_SECONDS
from speaker_encoder.plots.curve import plot_curve
from speaker_encoder.plots.umap_plot import plot_umap

PLOTS: dict[str, Callable[..., Path]] = {"umap": plot_umap, "curve": plot_curve}
NICENESS = 19
PARENT_POLL_SECONDS = 1.0
PLOT_ERRORS = (
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def main(folder: Path, parent_id: int) -> None:
    """Draws the jobs of a folder, oldest first, until it is told to close or is orphaned.

    Args:
        folder: shared with the training process, see `background`.
        parent_id: the training process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    for watch in (_watch_input, _watch_parent):
        threading.Thread(target=watch, args=(folder, parent_id), daemon=True).start()
    while True:
        # Looked for before the jobs: jobs written before the closing are then drawn.
        is_closing = (folder / CLOSE_FILE).exists()
        running = _claim(folder)
        if running is not None:
            _draw(running)
        elif is_closing:
            return
        else:
            time.sleep(POLL_SECONDS)


def _claim(folder: Path) -> Path | None:
    """The oldest waiting job, now ours; None when there is none."""
    for waiting in sorted(folder.glob("*.json")):
        running = waiting.with_suffix(".running")
        with contextlib.suppress(FileNotFoundError):
            os.replace(waiting, running)
            return running
    return None


def _draw(running: Path) -> None:
    """Draws one job and leaves its answer."""
    error_text = None
    try:
        job = json.loads(running.read_text(encoding="utf-8"))
        with np.load(running.with_suffix(".npz"), allow_pickle=False) as arrays:
            PLOTS[job["kind"]](path=job["path"], **arrays, **job["options"])
    except PLOT_ERRORS as error:
        error_text = f"{type(error).__name__}: {error}"
    partial = running.with_suffix(".partial")
    partial.write_text(json.dumps({"error": error_text}), encoding="utf-8")
    running.with_suffix(".npz").unlink(missing_ok=True)
    os.replace(partial, running.with_suffix(".done"))
    running.unlink()


def _watch_input(folder: Path, parent_id: int) -> None:
    """Ends this process, in the middle of a plot too, when the parent's end of the pipe closes."""
    while os.read(0, 1024):
        pass
    _quit(folder)


def _watch_parent(folder: Path, parent_id: int) -> None:
    """The same when the parent is gone but its children hold the pipe open."""
    while os.name == "nt" or os.getppid() == parent_id:
        time.sleep(PARENT_POLL_SECONDS)
    _quit(folder)


def _quit(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
