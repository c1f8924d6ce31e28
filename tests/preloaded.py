"""Commands as real processes, forked from one that has imported the heavy libraries; no test."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

_HEAVY = [
    "speaker_encoder.export",
    "speaker_encoder.modeling",
    "speechbrain.lobes.models.ECAPA_TDNN",
]


class Preloaded:
    """What ``subprocess.Popen`` of ``python SCRIPT ARGUMENTS`` would be, without its imports.

    The process is a real one, with its own files and signals; only its libraries were imported,
    on one thread, before it began: seconds of every start.

    Args:
        script: what it runs as ``__main__``.
        arguments: of the script.
        cwd: where it runs.
    """

    def __init__(self, script: Path, arguments: Sequence[object], cwd: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_HEAVY)
        self.args = [str(script), *map(str, arguments)]
        self._folder = tempfile.TemporaryDirectory()
        self._shown = [Path(self._folder.name) / name for name in ("stdout", "stderr")]
        self._process = context.Process(
            target=_run, args=(self.args, str(cwd), dict(os.environ), [*map(str, self._shown)])
        )
        with mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):
            self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits for its end, and gives what it wrote to stdout and stderr."""
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return tuple(path.read_text() if path.exists() else "" for path in self._shown)


def _run(arguments: list[str], cwd: str, environment: dict[str, str], shown: list[str]) -> None:
    for number, path in enumerate(shown, start=1):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(handle, number)
        os.close(handle)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", buffering=1) for number in (1, 2))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")
