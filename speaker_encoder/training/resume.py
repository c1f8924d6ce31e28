"""Opening a run's directory: anew, to go on, or to look at what is finished."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from speaker_encoder.errors import UserError
from speaker_encoder.training.distributed import is_main_process, num_processes
from speaker_encoder.training.logs import log_to_file
from speaker_encoder.training.run_dir import RunDirectory, read_json, write_atomically

if TYPE_CHECKING:
    from speaker_encoder.training.config import TrainConfig

_MODEL_KEYS = (
    *("model_name", "pretrained", "encoder_config", "enlarge_head", "loss", "seed", "optimizer"),
    *("head", "layers"),
    *("views", "speed_perturbation", "max_speakers"),
    *("train_only_head", "freeze_feature_encoder", "freeze_batch_norm"),
    *("freeze", "lora", "layer_lr_decay", "lr_schedule", "ema_decay"),
)
_VALIDATION_KEYS = (
    *("val_data_root", "val_list", "val_trials", "layout", "multi_rec_session"),
    *("min_utterance_seconds", "val_max_seconds", "val_max_trials", "trim_silence"),
)
_FIXED_ARGUMENTS = ("optim", "lr_scheduler_type")
_LENGTH_KEYS = ("max_steps", "num_epochs", "stages")
_MACHINE_KEYS = (
    *("force_restart", "device", "aug_device", "data_parallel", "num_workers", "output_dir"),
    *("cache_dir", "comet", "comet_project", "comet_workspace", "report_to"),
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
        UserError: the place cannot be used, another training uses it, or it holds a run that this
            config cannot go on with.
    """
    run = RunDirectory(Path(config.output_dir) / config.run_id, title or config.run_id)
    with main_process_first():
        if is_main_process():
            run.create()
            stack.enter_context(run.locked())
            run.prepare(force_restart=config.force_restart, overwrite=overwrite)
            stack.enter_context(log_to_file(run.log_path))
            _check_unchanged(config, run)
            if not run.is_finished or asks_for_more(config, run):
                text = json.dumps(config.to_dict(), indent=2, ensure_ascii=False) + "\n"
                write_atomically(run.config_path, text)
                run.results_path.unlink(missing_ok=True)
    return run


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
    stored, wanted = read_json(run.config_path), config.to_dict()
    return any(stored[key] != wanted[key] for key in _LENGTH_KEYS if key in stored)


def _is_same_stage(name: str, other: str) -> bool:
    """Are both the model of the same stage of a recipe, whose folder may have been moved."""
    ends = Path(name).parts[-2:], Path(other).parts[-2:]
    return ends[0] == ends[1] and re.fullmatch(r"stage_\d+/model", "/".join(ends[0])) is not None


def _check_unchanged(config: TrainConfig, run: RunDirectory) -> None:
    """Compares the config with the one the run was started with.

    Raises:
        UserError: what would be resumed, or is finished, is another model or was measured on
            other validation data.
    """
    if not run.config_path.is_file() or not (run.checkpoints() or run.is_finished):
        return
    stored, wanted = read_json(run.config_path), config.to_dict()
    changed = [key for key in wanted if key in stored and stored[key] != wanted[key]]
    if "model_name" in changed and _is_same_stage(stored["model_name"], wanted["model_name"]):
        changed.remove("model_name")
    fixed = [key for key in changed if key in _MODEL_KEYS or key in _VALIDATION_KEYS]
    arguments = (stored.get("training_arguments") or {}, wanted["training_arguments"])
    if any(arguments[0].get(name) != arguments[1].get(name) for name in _FIXED_ARGUMENTS):
        fixed.append("training_arguments")
    if fixed:
        listed = "; ".join(f"{key}: was {stored[key]!r}, now {wanted[key]!r}" for key in fixed)
        raise UserError(
            f"{run.path} was started with another config ({listed}). Choose another run_id, or set "
            "force_restart to true."
        )
    others = [key for key in changed if key not in (*_LENGTH_KEYS, *_MACHINE_KEYS)]
    is_shown = run.is_finished and not asks_for_more(config, run)
    for key in others:
        if is_shown:
            text = (
                "the finished run had %s %r, the config now says %r: choose another run_id to train"
            )
        else:
            text = "resuming with %s changed from %r to %r"
        _logger.warning(text, key, stored[key], wanted[key])
