"""Pushes a run to the Hub, in processes of their own: training neither waits nor fails for it."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from speaker_encoder.errors import UserError
from speaker_encoder.hub.names import push_command
from speaker_encoder.hub.secrets import lend_token
from speaker_encoder.training.callbacks import StopRequest
from speaker_encoder.training.run_dir import RunDirectory
from speaker_encoder.training.run_files import read_json, write_atomically

if TYPE_CHECKING:
    from speaker_encoder.training.config import TrainConfig

PUSH_STATE_NAME = "push.json"
PUSH_LOG_NAME = "push.log"
_NICENESS = 10
_POLL_SECONDS = 0.2
_END_SECONDS = 5.0
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
_OF_A_LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pushed:
    """How the push of a finished run went: what to show, and the problem if there was one."""

    text: str
    problem: str | None = None


def push_run(config: TrainConfig, run: RunDirectory, stop: StopRequest) -> Pushed:
    """Pushes a finished run, once; what went wrong is told, never raised.

    Args:
        config: of the run, with `push_to_hub`.
        run: finished.
        stop: ends the push when it is wanted.
    """
    assert config.hub_model_id is not None
    state = _state(run)
    if state.get("pushed") and state.get("repo_id") == config.hub_model_id:
        return Pushed(str(state["pushed"]))
    _logger.info("pushing to %s", config.hub_model_id)
    text, problem = _push_and_wait(config, run.path, stop)
    state = {"repo_id": config.hub_model_id}
    if problem is None:
        _save_state(run, {**state, "pushed": text})
        return Pushed(text)
    if "speaker-encoder push" not in problem:
        later = push_command(
            str(run.path),
            config.hub_model_id,
            private=config.hub_private,
            allow_worse=config.allow_worse,
        )
        problem += f" Push it later with:\n  {later}"
    problem = _without_token(problem, config)
    _save_state(run, {**state, "problem": problem})
    return Pushed(f"not pushed, the model is saved: {problem}", problem)


def _push_and_wait(config: TrainConfig, folder: Path, stop: StopRequest) -> tuple[str, str | None]:
    """Gives what a push said, and what was wrong with it, None if nothing was."""
    stopped = "the push was ended by a signal."
    if stop.is_wanted:
        return "", stopped
    try:
        process = _start(config, folder, subprocess.PIPE, subprocess.PIPE)
    except OSError as error:
        return "", f"its process could not be started ({error})."
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                stdout, stderr = process.communicate(timeout=_POLL_SECONDS)
                break
            if stop.is_wanted:
                return "", stopped
    finally:
        _end(process)
    if process.returncode != 0:
        return "", _problem(stderr.decode(errors="replace"), process.returncode)
    said = stdout.decode(errors="replace").strip().splitlines()
    return (said[-1] if said else f"pushed to {config.hub_model_id}"), None


def push_problem(run: RunDirectory) -> str | None:
    """Gives what was wrong with the last push of a run, None if nothing was."""
    return _state(run).get("problem")


def _state(run: RunDirectory) -> dict[str, Any]:
    path = run.path / PUSH_STATE_NAME
    try:
        state = read_json(path) if path.is_file() else {}
    except (OSError, UserError) as error:
        _logger.warning("%s", error)
        return {}
    return state if isinstance(state, dict) else {}


def _save_state(run: RunDirectory, state: dict[str, Any]) -> None:
    try:
        write_atomically(run.path / PUSH_STATE_NAME, json.dumps(state, indent=2) + "\n")
    except OSError as error:
        _logger.warning("%s cannot be written: %s", run.path / PUSH_STATE_NAME, error)


class BackgroundPush:
    """Pushes what a run has so far, one process at a time.

    Args:
        config: of the run, with `push_to_hub`.
        run: its directory.
    """

    def __init__(self, config: TrainConfig, run: RunDirectory) -> None:
        self._config = config
        self._run = run
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> bool:
        """Starts a push; False: the one before is going on, there is no model yet, or it fails."""
        self._reap()
        if self._process is not None:
            return False
        try:
            folder = self._folder()
            if folder is None:
                return False
            with open(self._run.path / PUSH_LOG_NAME, "ab") as log:
                self._process = _start(self._config, folder, log, log)
        except OSError as error:  # training goes on; the push at its end does all of it
            _logger.warning(
                "a push to %s could not be started: %s", self._config.hub_model_id, error
            )
            return False
        atexit.register(self.stop)  # it is no part of what Ctrl-C in a terminal ends
        with contextlib.suppress(OSError):  # it may have ended
            os.setpriority(os.PRIO_PROCESS, self._process.pid, _NICENESS)
        return True

    def _folder(self) -> Path | None:
        if (self._run.model_dir / "config.json").is_file():
            return self._run.path
        checkpoints = self._run.checkpoints()
        return checkpoints[-1][1] if checkpoints else None

    def _reap(self) -> None:
        """Tells how the last push went, if it has ended."""
        if self._process is None or self._process.poll() is None:
            return
        if self._process.returncode != 0:
            log = self._run.path / PUSH_LOG_NAME
            _logger.warning("a push to %s failed, see %s", self._config.hub_model_id, log)
        self._process = None

    def stop(self) -> None:
        """Ends a push that is going on; the next one does all of it."""
        atexit.unregister(self.stop)
        self._reap()
        if self._process is not None:
            _end(self._process)
            self._process = None


class PushCallback(TrainerCallback):
    """Pushes after each save.

    Args:
        push: what does it.
    """

    def __init__(self, push: BackgroundPush) -> None:
        self._push = push

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Starts a push unless one is going on; the run's end pushes by itself."""
        if state.global_step < state.max_steps:
            self._push.start()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ends what is going on."""
        self._push.stop()


def _command(config: TrainConfig, folder: Path) -> Sequence[str]:
    assert config.hub_model_id is not None
    command = [sys.executable, "-m", "speaker_encoder", "push", str(folder.resolve())]
    command += ["--repo_id", config.hub_model_id]
    if config.hub_private is not None:
        command.append("--private" if config.hub_private else "--public")
    if config.allow_worse:
        command.append("--allow_worse")
    return command


def _start(
    config: TrainConfig, folder: Path, stdout: int | IO[bytes], stderr: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    """Starts a push with a group of processes of its own, so that all of them can be ended.

    Raises:
        OSError: no process can be started.
    """
    return subprocess.Popen(
        _command(config, folder),
        env=_environment(config),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a push and all that it started: it is asked to, and soon after killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_END_SECONDS)


def _environment(config: TrainConfig) -> dict[str, str]:
    """The environment of a push: the token goes there, where no list of processes shows it."""
    environment = {k: v for k, v in os.environ.items() if k not in _OF_A_LAUNCHER}
    paths = [str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    environment["CUDA_VISIBLE_DEVICES"] = ""
    lend_token(environment, config.hub_token)
    # The config's secrets are known there under these names too: what is pushed is searched for
    # them, also where the environment has others.
    for name in ("comet_key", "hub_token"):
        if getattr(config, name):
            environment[f"SPEAKER_ENCODER_{name.upper()}"] = getattr(config, name)
    return environment


def _problem(stderr: str, code: int) -> str:
    """Gives the message of a command that failed."""
    _, found, message = stderr.rpartition("error: ")
    lines = stderr.strip().splitlines() or [f"it ended with code {code} and said nothing."]
    return message.strip() if found else lines[-1]


def _without_token(text: str, config: TrainConfig) -> str:
    return text.replace(config.hub_token, "<token>") if config.hub_token else text
