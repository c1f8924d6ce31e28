"""Plots drawn in a process of their own, so that training never waits for one.

The two processes share a folder. A job is `<number>.json` (what to draw) and `<number>.npz` (its
arrays); the plotting process claims it by renaming it to `<number>.running`, and answers with
`<number>.done`. Whoever renames or removes a file first has it, so nobody ever waits.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

logger = logging.getLogger(__name__)

MAX_PENDING = 16
MAX_STARTS = 3
CLOSE_SECONDS = 120.0
POLL_SECONDS = 0.05
CLOSE_FILE = "close"
LOG_FILE = "worker.log"
KINDS = ("umap", "curve")
DROPPABLE_KINDS = ("umap",)
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


class FinishedPlot(NamedTuple):
    """A plot that now lies on disk.

    Attributes:
        path: the picture.
        name: what it shows, for experiment tracking.
        step: the training step that it belongs to.
    """

    path: Path
    name: str
    step: int | None


@dataclass(frozen=True, slots=True)
class _Job:
    kind: str
    plot: FinishedPlot


class BackgroundPlotter:
    """Draws plots in one low-priority process with one thread, started at the first plot.

    Nothing here blocks, raises for a plot that fails, or imports matplotlib or umap: failures are
    warnings in the log. When more plots are asked for than can be drawn, the oldest waiting UMAP
    is dropped with a warning. A waiting plot is replaced by a newer one of the same path. The
    process ignores Ctrl-C, which is for training to handle, and ends when this one does, however
    that happens.

    Args:
        max_pending: the most plots that may wait, besides the one being drawn.
    """

    def __init__(self, max_pending: int = MAX_PENDING) -> None:
        self._max_pending = max_pending
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._num_starts = 0
        self._num_jobs = 0
        self._jobs: dict[int, _Job] = {}
        self._finished: list[FinishedPlot] = []
        self._is_closed = False

    def submit(
        self,
        kind: str,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        step: int | None = None,
        **arguments: Any,
    ) -> None:
        """Asks for a plot and returns at once.

        Args:
            kind: "umap" or "curve".
            path: the picture to write.
            name: what it shows; the file's stem by default.
            step: the training step that it belongs to.
            arguments: of `plot_umap` or `plot_curve`: arrays, tensors, and plain JSON data.

        Raises:
            ValueError: unknown kind, or after `close`.
        """
        if kind not in KINDS:
            raise ValueError(f"Unknown kind of plot: {kind!r}. Known: {', '.join(KINDS)}.")
        if self._is_closed:
            raise ValueError("The background plotter is closed.")
        path = Path(path).absolute()
        self._collect()
        if self._num_starts >= MAX_STARTS and not self._is_running():
            return
        self._make_room(path)
        self._num_jobs += 1
        try:
            self._write_job(self._num_jobs, kind, path, arguments)
            self._jobs[self._num_jobs] = _Job(kind, FinishedPlot(path, name or path.stem, step))
            self._start()
        except OSError as error:
            self._jobs.pop(self._num_jobs, None)
            logger.warning("Cannot draw %s in the background: %s", path, error)

    def finished(self) -> list[FinishedPlot]:
        """The plots that came to lie on disk since the last call, oldest first; never waits."""
        self._collect()
        finished, self._finished = self._finished, []
        return finished

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Waits for the waiting plots and ends the process. `finished` still works afterwards.

        Args:
            timeout: seconds to wait at most; plots not drawn by then are given up with a warning.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._collect()
        if self._folder is None:
            return
        try:
            (Path(self._folder.name) / CLOSE_FILE).touch()
            deadline = time.monotonic() + timeout
            while self._jobs and self._is_running() and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
                self._collect()
        except OSError as error:
            logger.warning("Cannot wait for the plots in the background: %s", error)
        self._collect()
        self._give_up("not drawn before the end")
        self._stop()
        self._folder.cleanup()

    def __enter__(self) -> "BackgroundPlotter":
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _file(self, number: int, suffix: str) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / f"{number:06d}.{suffix}"

    def _write_job(self, number: int, kind: str, path: Path, arguments: dict[str, Any]) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(
                prefix="speaker-encoder-plots-", ignore_cleanup_errors=True
            )
        values = {key: _plain(value) for key, value in arguments.items()}
        arrays = {key: value for key, value in values.items() if isinstance(value, np.ndarray)}
        options = {key: value for key, value in values.items() if key not in arrays}
        job = {"kind": kind, "path": str(path), "options": options}
        partial = self._file(number, "partial")
        partial.write_text(json.dumps(job, default=float), encoding="utf-8")
        np.savez(self._file(number, "npz"), allow_pickle=False, **arrays)
        os.replace(partial, self._file(number, "json"))

    def _make_room(self, path: Path) -> None:
        """Drops what a new plot replaces, and the oldest waiting UMAPs when too many wait."""
        for number, job in list(self._jobs.items()):
            if job.plot.path == path:
                self._withdraw(number)
        waiting = [number for number in self._jobs if self._file(number, "json").exists()]
        droppable = [n for n in waiting if self._jobs[n].kind in DROPPABLE_KINDS]
        for number in droppable[: max(0, len(waiting) + 1 - self._max_pending)]:
            dropped = self._jobs[number].plot.path
            if self._withdraw(number):
                logger.warning("Plots are asked for faster than drawn: dropped %s", dropped)

    def _withdraw(self, number: int) -> bool:
        """Takes a waiting job back; false when it is being drawn already."""
        try:
            self._file(number, "json").unlink()
        except OSError:
            return False
        self._file(number, "npz").unlink(missing_ok=True)
        del self._jobs[number]
        return True

    def _collect(self) -> None:
        """Takes the answers, and notices a process that died."""
        # Asked first: what a process wrote before it ended is then seen below.
        is_running = self._is_running()
        for number, job in list(self._jobs.items()):
            answer = self._file(number, "done")
            try:
                error = json.loads(answer.read_text(encoding="utf-8"))["error"]
            except FileNotFoundError:
                continue
            answer.unlink(missing_ok=True)
            del self._jobs[number]
            if error is None:
                self._finished.append(job.plot)
            else:
                logger.warning("Drawing %s failed: %s", job.plot.path, error)
        if self._jobs and not is_running and self._process is not None:
            self._replace_dead_process()

    def _replace_dead_process(self) -> None:
        assert self._process is not None
        logger.warning(
            "The plotting process ended with exit code %s: %s",
            self._process.returncode,
            self._last_words(),
        )
        for number in [n for n in self._jobs if self._file(n, "running").exists()]:
            logger.warning("Drawing %s failed with it", self._jobs.pop(number).plot.path)
        if self._num_starts >= MAX_STARTS:
            self._give_up("no more plots in this run, the plotting process fails again and again")
        elif self._jobs:
            try:
                self._start()
            except OSError as error:
                self._give_up(f"the plotting process cannot be started: {error}")

    def _give_up(self, reason: str) -> None:
        for job in self._jobs.values():
            logger.warning("Plot %s: %s", job.plot.path, reason)
        self._jobs.clear()

    def _last_words(self) -> str:
        assert self._folder is not None
        try:
            log = (Path(self._folder.name) / LOG_FILE).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            return str(error)
        lines = [line for line in log.splitlines() if line.strip()]
        return lines[-1] if lines else "it left no message"

    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _start(self) -> None:
        if self._is_running():
            return
        assert self._folder is not None
        self._stop()
        self._num_starts += 1
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, "1")
        package_parent = str(Path(__file__).resolve().parents[2])
        search_path = [package_parent, environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, search_path))
        environment["MPLBACKEND"] = "Agg"
        environment["CUDA_VISIBLE_DEVICES"] = ""
        arguments = ["-m", "speaker_encoder.plots.worker", self._folder.name, str(os.getpid())]
        with open(Path(self._folder.name) / LOG_FILE, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                # The worker reads nothing from it; its end tells that this process is gone.
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def _stop(self) -> None:
        if self._process is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _plain(value: Any) -> Any:
    """A tensor as an array; everything else as it is."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        return (value.float() if value.is_floating_point() else value).numpy()
    return value
