"""Commands as real processes, forked from one that has imported the heavy libraries; no test."""

import atexit
import gc
import multiprocessing.forkserver
import os
import re
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest import mock

import numpy
import torch

_HEAVY = [
    "speaker_encoder.cli.main",
    "speaker_encoder.export",
    "speaker_encoder.modeling.ecapa",
    "speaker_encoder.modeling.wavlm",
    "speaker_encoder.training.run",
    "speaker_encoder.training.tracking_comet",
    # what each run imports once more has begun
    "speaker_encoder.cli.train",
    "speaker_encoder.losses.ge2e",
    "speaker_encoder.plots.umap_plot",
    "speaker_encoder.plots.background",
    "speaker_encoder.training.health",
    "speaker_encoder.training.record",
    "speaker_encoder.training.report_page",
    "speaker_encoder.training.tracking_files",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "speechbrain.lobes.models.ECAPA_TDNN",
    "torch.utils.tensorboard",
]
_ALWAYS = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
# Of the session: what a test sets later does not reach the process that all are forked from.
_SERVER_ENVIRONMENT: dict[str, str] = {}
_READ_ON_IMPORT = re.compile(
    r"(?!HF_HUB_DISABLE_TELEMETRY)(HF|HUGGING|TRANSFORMERS|COMET|PYTHON|OMP|MKL|TORCH|CUDA)\w*"
)
"""But for what the demo page sets, which says nothing of what is computed."""


def set_environment_of_the_session() -> None:
    """Takes the variables of now, before a test sets others, as those of what all are forked from.

    Once all test modules are imported: libraries set variables of their own then.
    """
    _SERVER_ENVIRONMENT.update({**os.environ, **_ALWAYS})


class Preloaded:
    """What ``subprocess.Popen`` of ``python SCRIPT ARGUMENTS`` would be, without its imports.

    The process is a real one, with its own files and signals; only its libraries were imported,
    on one thread, before it began: seconds of every start. What it shares with the others is the
    order of Python's sets.

    Args:
        script: what it runs as ``__main__``.
        arguments: of the script.
        cwd: where it runs.
        environment: all of its variables, see `read_on_import`; usually those of now.
    """

    def __init__(
        self,
        script: Path,
        arguments: Sequence[object],
        cwd: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        environment = _of_now() if environment is None else dict(environment)
        differing = self.read_on_import(environment)
        assert not differing, f"libraries read on import what is set here: {differing}"
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_HEAVY)
        for name in ("LINES", "COLUMNS"):  # readline sets them where os.environ does not see it
            os.unsetenv(name)
        with mock.patch.dict(os.environ, _SERVER_ENVIRONMENT, clear=True):
            multiprocessing.forkserver.ensure_running()
        self.args = [str(script), *map(str, arguments)]
        self._folder = tempfile.TemporaryDirectory()
        self._shown = [Path(self._folder.name) / name for name in ("stdout", "stderr")]
        umask = os.umask(0)
        os.umask(umask)
        self._process = context.Process(
            target=_run,
            args=(
                self.args,
                str(cwd),
                umask,
                (environment, _SERVER_ENVIRONMENT),
                [*map(str, self._shown)],
            ),
        )
        self._process.start()

    @staticmethod
    def read_on_import(environment: Mapping[str, str]) -> list[str]:
        """The variables by which libraries could know that they were imported under others."""
        names = sorted({*environment, *_SERVER_ENVIRONMENT})
        differ = [n for n in names if environment.get(n) != _SERVER_ENVIRONMENT.get(n)]
        return [name for name in differ if _READ_ON_IMPORT.fullmatch(name)]

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


def _of_now() -> dict[str, str]:
    """The variables of now, but for those that libraries read on import: of the session."""
    now = {k: v for k, v in os.environ.items() if not _READ_ON_IMPORT.fullmatch(k)}
    then = {k: v for k, v in _SERVER_ENVIRONMENT.items() if _READ_ON_IMPORT.fullmatch(k)}
    return {**now, **then, **_ALWAYS}


def _run(
    arguments: list[str],
    cwd: str,
    umask: int,
    environments: tuple[dict[str, str], dict[str, str]],
    shown: list[str],
) -> None:
    gc.freeze()  # a collection that looks through the libraries takes longer than most runs' steps
    for number, path in enumerate(shown, start=1):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(handle, number)
        os.close(handle)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", buffering=1) for number in (1, 2))
    environment, of_server = environments
    set_by_imports = {k: v for k, v in os.environ.items() if of_server.get(k) != v}
    os.environ.clear()
    os.environ.update({**set_by_imports, **environment})
    os.chdir(cwd)
    os.umask(umask)
    multiprocessing.set_start_method(None, force=True)  # as nobody had chosen one
    # Without a seed each process draws other numbers; Python's own generator sees to it itself.
    numpy.random.seed()
    torch.seed()
    sys.argv = arguments
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    finally:  # what an interpreter does at its end, and a process of multiprocessing does not
        threading._shutdown()
        atexit._run_exitfuncs()
