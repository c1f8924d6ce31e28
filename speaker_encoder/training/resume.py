"""Opening a run's directory: anew, to go on, or to look at what is finished."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from speaker_encoder.errors import UserError
from speaker_encoder.training.cluster_restart import launch_marks
from speaker_encoder.training.config import TrainConfig, config_keys
from speaker_encoder.training.config_checks import fill_in
from speaker_encoder.training.config_kinds import Refused
from speaker_encoder.training.config_stages import stage_folder
from speaker_encoder.training.distributed import is_main_process, num_processes
from speaker_encoder.training.logs import log_to_file
from speaker_encoder.training.recipe_table import contradicted_by
from speaker_encoder.training.run_dir import RunDirectory
from speaker_encoder.training.run_files import read_json, write_atomically

_MODEL_KEYS = (
    *("model_name", "pretrained", "encoder_config", "enlarge_head", "loss", "seed", "optimizer"),
    *("head", "layers", "recipe"),
    *("views", "speed_perturbation", "max_speakers"),
    *("train_only_head", "freeze_feature_encoder", "freeze_batch_norm"),
    *("freeze", "lora", "layer_lr_decay", "lr_schedule", "ema_decay"),
)
_VALIDATION_KEYS = (
    *("val_data_root", "val_list", "val_trials", "layout", "multi_rec_session"),
    *("min_utterance_seconds", "val_max_seconds", "val_max_trials", "trim_silence"),
    *("reference_data_root", "reference_list", "reference_trials", "interpolate_at"),
)
_FIXED_ARGUMENTS = ("optim", "lr_scheduler_type", "fsdp")
_LENGTH_KEYS = ("max_steps", "num_epochs", "stages")
_MACHINE_KEYS = (
    *("force_restart", "device", "aug_device", "data_parallel", "num_workers", "output_dir"),
    *("cache_dir", "comet", "comet_project", "comet_workspace", "report_to"),
    *("push_to_hub", "hub_model_id", "hub_private", "hub_strategy"),
)

_logger = logging.getLogger(__name__)


def open_run(
    config: TrainConfig, overwrite: bool, stack: contextlib.ExitStack, title: str = ""
) -> RunDirectory:
    """Makes the run's directory; the main process holds it, the others wait for it.

    Args:
        config: of the run.
        overwrite: delete a finished run of the same name.
        stack: closes what stays open: the lock and the log.
        title: what the run is called; "" for its id.

    Raises:
        UserError: the place cannot be used, another training uses it, or it holds a run, or
            stages, that this config cannot go on with. What is there is left as it is.
    """
    run = RunDirectory(Path(config.output_dir) / config.run_id, title or config.run_id)
    marks = launch_marks()
    with main_process_first():
        if is_main_process():
            run.create()
            stack.enter_context(run.locked())
            run.prepare(force_restart=config.force_restart, overwrite=overwrite)
            if not run.is_started:  # before the config, with which there is something to go on with
                run.note_launch(marks)
            stack.enter_context(log_to_file(run.log_path))
            config = as_started(config, run)
            _check_unchanged(config, run)
            if not run.is_finished or asks_for_more(config, run):
                run.results_path.unlink(missing_ok=True)  # first: cut short here, it is not done
                write_config(config, run)
    return run


def as_started(config: TrainConfig, run: RunDirectory) -> TrainConfig:
    """Gives the config with what its recipe chose when the run was started, if it was.

    Args:
        config: of the run, as it is now.
        run: its directory.
    """
    is_anything_there = run.config_path.is_file() and (run.checkpoints() or run.is_finished)
    if not config.left_to_recipe or config.force_restart or not is_anything_there:
        return config
    stored = _stored_values(run)
    if not stored["recipe"]:
        return config
    kept = [key for key in config.left_to_recipe if contradicted_by(config, key) is None]
    return config.completed({key: stored[key] for key in kept})


def write_config(config: TrainConfig, run: RunDirectory) -> None:
    """Writes the config of a run into its directory."""
    text = json.dumps(config.to_dict(), indent=2, ensure_ascii=False) + "\n"
    write_atomically(run.config_path, text)


@contextlib.contextmanager
def main_process_first() -> Iterator[None]:
    """Lets the other processes wait until the main one has left the block.

    An error of the main process ends the launcher's other processes, so none waits for ever.
    """
    if num_processes() > 1 and not is_main_process():
        torch.distributed.barrier()
    yield
    if num_processes() > 1 and is_main_process():
        torch.distributed.barrier()


def asks_for_more(config: TrainConfig, run: RunDirectory) -> bool:
    """Does the config ask for another length than the finished run of this name had."""
    return any(key in _LENGTH_KEYS for key in _changes(config, run))


def _changes(config: TrainConfig, run: RunDirectory) -> dict[str, tuple[Any, Any]]:
    """Gives the keys that differ from what the run was started with -> what was, what is now.

    Raises:
        UserError: the stored config is damaged.
    """
    stored = _stored_values(run)
    wanted = {name: getattr(config, name) for name in stored}
    changes = {key: (stored[key], wanted[key]) for key in stored if stored[key] != wanted[key]}
    if "model_name" in changes and _is_same_stage(*changes["model_name"]):
        del changes["model_name"]
    return changes


def _stored_values(run: RunDirectory) -> dict[str, Any]:
    """Gives the config that a run was started with as the program uses it, without secrets.

    An older version wrote some values in another form, and left out keys that it did not have.
    """
    stored = read_json(run.config_path)
    if "model_name" not in stored:
        raise UserError(
            f"{run.config_path} is damaged (it has no model_name). Delete its folder and start "
            "again, or choose another run_id."
        )
    values = {}
    for name, key in config_keys().items():
        given = stored.get(name, key.metadata["default"])
        try:
            values[name] = key.metadata["kind"].read(given)
        except Refused:  # no longer possible: a folder that is gone
            values[name] = given
    filled = fill_in(values)
    return {name: filled[name] for name in values if not config_keys()[name].metadata["is_secret"]}


def _is_same_stage(name: str, other: str) -> bool:
    """Are both the model of the same stage of a recipe, whose folder may have been moved."""
    ends = Path(name).parts[-2:], Path(other).parts[-2:]
    return ends[0] == ends[1] and re.fullmatch(r"stage_\d+/model", "/".join(ends[0])) is not None


def _check_unchanged(config: TrainConfig, run: RunDirectory) -> None:
    """Compares the config with the one the run was started with.

    Raises:
        UserError: what would be resumed, or is finished, is another model or was measured on
            other validation data, or one of both has stages.
    """
    has_stages = stage_folder(run.path, 1).is_dir()
    is_anything_there = run.checkpoints() or run.is_finished or has_stages
    if not run.config_path.is_file() or not is_anything_there:
        return
    changes = _changes(config, run)
    has_stages = has_stages or bool(_stored_values(run)["stages"])
    if bool(config.stages) != has_stages:
        kind = "a recipe of stages" if has_stages else "a run without stages"
        raise UserError(
            f"{run.path} holds {kind}, and the config now has {len(config.stages) or 'no'} stages. "
            "Choose another run_id, or set force_restart to true."
        )
    _refuse_another(changes, run)
    is_shown = run.is_finished and not asks_for_more(config, run)
    if config.stages and not is_shown:
        _check_stages(config, run)
    for key, (was, now) in changes.items():
        if key in (*_LENGTH_KEYS, *_MACHINE_KEYS):
            continue
        if is_shown:
            text = (
                "the finished run had %s %r, the config now says %r: choose another run_id to train"
            )
        else:
            text = "resuming with %s changed from %r to %r"
        _logger.warning(text, key, was, now)


def _refuse_another(changes: dict[str, tuple[Any, Any]], run: RunDirectory) -> None:
    """Refuses changes that make another model of a run, or that measure it on other data.

    Raises:
        UserError: there are some.
    """
    fixed = [key for key in changes if key in _MODEL_KEYS or key in _VALIDATION_KEYS]
    was, now = changes.get("training_arguments", ({}, {}))
    if any(was.get(name) != now.get(name) for name in _FIXED_ARGUMENTS):
        fixed.append("training_arguments")
    if fixed:
        raise UserError(
            f"{run.path} was started with another config ({_listed(changes, fixed)}). Choose "
            "another run_id, or set force_restart to true."
        )


def _listed(changes: dict[str, tuple[Any, Any]], keys: Sequence[str]) -> str:
    return "; ".join(f"{key}: was {changes[key][0]!r}, now {changes[key][1]!r}" for key in keys)


def _check_stages(config: TrainConfig, run: RunDirectory) -> None:
    """Checks that every stage that there is can stay, or be gone on with, as the config says.

    Raises:
        UserError: a finished stage was trained with another config, one that is to be trained on
            has a stage after it that started from what it was, or there are more stages.
    """
    stages = config.stage_configs()
    for number, stage in enumerate(stages, 1):
        own = RunDirectory(stage_folder(run.path, number))
        if not own.config_path.is_file():
            continue
        after = stage_folder(run.path, number + 1)
        changes = _changes(stage, own)
        changed = [key for key in changes if key not in (*_LENGTH_KEYS, *_MACHINE_KEYS)]
        if own.is_finished and changed:
            raise UserError(
                f"Stage {number} in {own.path} is finished, and the config now says something "
                f"else for it ({_listed(changes, changed)}). Delete {own.path.name} and those "
                "after it, or choose another run_id."
            )
        is_done = own.is_finished and not asks_for_more(stage, own)
        if not is_done and RunDirectory(after).config_path.is_file():
            raise UserError(
                f"Stage {number} is to be trained further, and {after} started from what it was. "
                f"Delete {after.name} and those after it, or choose another run_id."
            )
        if own.checkpoints():
            _refuse_another(changes, own)
    after = stage_folder(run.path, len(stages) + 1)
    if RunDirectory(after).config_path.is_file():
        raise UserError(
            f"The config has {len(stages)} stages, and there is {after}. Delete {after.name} and "
            "those after it, or choose another run_id."
        )
