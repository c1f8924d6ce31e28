"""Pushes a run to the Hub, in processes of their own: training neither waits nor fails for it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from speaker_encoder.hub.names import push_command
from speaker_encoder.training.run_dir import RunDirectory, read_json, write_atomically

if TYPE_CHECKING:
    from speaker_encoder.training.config import TrainConfig

PUSH_STATE_NAME = "push.json"
PUSH_LOG_NAME = "push.log"
_NICENESS = 10
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
_OF_A_LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pushed:
    """How the push of a finished run went: what to show, and the problem if there was one."""

    text: str
    problem: str | None = None


def push_run(config: TrainConfig, run: RunDirectory) -> Pushed:
    """Pushes a finished run, once; what went wrong is told, never raised.

    Args:
        config: of the run, with `push_to_hub`.
        run: finished.
    """
    assert config.hub_model_id is not None
    state = _state(run)
    if state.get("pushed") and state.get("repo_id") == config.hub_model_id:
        return Pushed(str(state["pushed"]))
    _logger.info("pushing to %s", config.hub_model_id)
    done = subprocess.run(
        _command(config, run.path),
        env=_environment(config),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    state = {"repo_id": config.hub_model_id}
    if done.returncode == 0:
        text = done.stdout.strip().splitlines()[-1]
        _save_state(run, {**state, "pushed": text})
        return Pushed(text)
    problem = _problem(done.stderr)
    if "push it later" not in problem.lower():
        later = push_command(str(run.path), config.hub_model_id, private=config.hub_private)
        problem += f" Push it later with:\n  {later}"
    problem = _without_token(problem, config)
    _save_state(run, {**state, "problem": problem})
    return Pushed(f"not pushed, the model is saved: {problem}", problem)


def push_problem(run: RunDirectory) -> str | None:
    """Gives what was wrong with the last push of a run, None if nothing was."""
    return _state(run).get("problem")


def _state(run: RunDirectory) -> dict[str, Any]:
    path = run.path / PUSH_STATE_NAME
    return read_json(path) if path.is_file() else {}


def _save_state(run: RunDirectory, state: dict[str, Any]) -> None:
    write_atomically(run.path / PUSH_STATE_NAME, json.dumps(state, indent=2) + "\n")


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
        """Starts a push; False: the one before is still going on, or there is no model yet."""
        self._reap()
        folder = self._folder()
        if self._process is not None or folder is None:
            return False
        with open(self._run.path / PUSH_LOG_NAME, "ab") as log:
            self._process = subprocess.Popen(
                _command(self._config, folder),
                env=_environment(self._config),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
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
        self._reap()
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
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
    return command


def _environment(config: TrainConfig) -> dict[str, str]:
    """The environment of a push: the token goes there, where no list of processes shows it."""
    environment = {k: v for k, v in os.environ.items() if k not in _OF_A_LAUNCHER}
    paths = [str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    environment["CUDA_VISIBLE_DEVICES"] = ""
    if config.hub_token:
        environment.setdefault("HF_TOKEN", config.hub_token)
    if config.comet_key:  # known there, so that it is searched for in what is pushed
        environment.setdefault("COMET_API_KEY", config.comet_key)
    return environment


def _problem(stderr: str) -> str:
    """Gives the message of a command that failed."""
    _, found, message = stderr.rpartition("error: ")
    lines = stderr.strip().splitlines() or ["it said nothing"]
    return message.strip() if found else lines[-1]


def _without_token(text: str, config: TrainConfig) -> str:
    return text.replace(config.hub_token, "<token>") if config.hub_token else text
