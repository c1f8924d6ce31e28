"""Opening a run's directory: anew, to go on, or to look at what is finished."""

from __future__ import annotations

import contextlib
import json
import logging
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
    *("train_only_head", "freeze_feature_encoder", "freeze_batch_norm"),
)
_VALIDATION_KEYS = (
    *("val_data_root", "val_list", "val_trials", "layout", "multi_rec_session"),
    *("min_utterance_seconds", "val_max_seconds", "val_max_trials", "trim_silence"),
)
_FIXED_ARGUMENTS = ("optim", "lr_scheduler_type")
_LENGTH_KEYS = ("max_steps", "num_epochs")
_MACHINE_KEYS = (
    *("force_restart", "device", "aug_device", "data_parallel", "num_workers", "output_dir"),
    *("cache_dir", "comet", "comet_project", "comet_workspace"),
)

_logger = logging.getLogger(__name__)


def open_run(config: TrainConfig, overwrite: bool, stack: contextlib.ExitStack) -> RunDirectory:
    """Makes the run's directory; the main process holds it, the others wait for it.

    Args:
        config: of the run.
        overwrite: delete a finished run of the same name.
        stack: closes what stays open: the lock and the log.

    Raises:
        UserError: the place cannot be used, another training uses it, or it holds a run that this
            config cannot go on with.
    """
    run = RunDirectory(Path(config.output_dir) / config.run_id)
    with main_process_first():
        if is_main_process():
            run.create()
            stack.enter_context(run.locked())
            run.prepare(force_restart=config.force_restart, overwrite=overwrite)
            stack.enter_context(log_to_file(run.log_path))
            _check_unchanged(config, run)
            if not run.is_finished or _asks_for_more(config, run):
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


def _asks_for_more(config: TrainConfig, run: RunDirectory) -> bool:
    """Does the config ask for another length than the finished run of this name had."""
    stored = read_json(run.config_path)
    return any(stored.get(key) != getattr(config, key) for key in _LENGTH_KEYS)


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
    is_shown = run.is_finished and not _asks_for_more(config, run)
    for key in others:
        if is_shown:
            text = (
                "the finished run had %s %r, the config now says %r: choose another run_id to train"
            )
        else:
            text = "resuming with %s changed from %r to %r"
        _logger.warning(text, key, stored[key], wanted[key])
