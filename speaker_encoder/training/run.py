"""One run from its config to its report."""

from __future__ import annotations

import contextlib
import copy
import gc
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from speaker_encoder.errors import EXIT_DONE, EXIT_PARTLY
from speaker_encoder.modeling.cpu_kernels import keep_freed_memory
from speaker_encoder.training.assembly import build_trainer
from speaker_encoder.training.averaging import take_average
from speaker_encoder.training.build import choose_device
from speaker_encoder.training.callbacks import Progress, StopRequest, embeddings_path
from speaker_encoder.training.chosen import add_space, keep_pretrained, take_chosen
from speaker_encoder.training.cluster import join_processes, named_losses
from speaker_encoder.training.cluster_restart import goes_on_with
from speaker_encoder.training.data import RunData, check_same_data, load_data
from speaker_encoder.training.distributed import gather_dict, is_main_process
from speaker_encoder.training.publishing import push_run
from speaker_encoder.training.recipe import settle_recipe
from speaker_encoder.training.report import (
    Results,
    best_embeddings_path,
    finish_run_folder,
    measure_results,
)
from speaker_encoder.training.report_text import format_results
from speaker_encoder.training.resume import open_run
from speaker_encoder.training.run_dir import RunDirectory
from speaker_encoder.training.trainer import SpeakerTrainer

if TYPE_CHECKING:
    from speaker_encoder.training.config import TrainConfig

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainOutcome:
    """How a run ended: its directory, and its results, None when it was stopped before its end."""

    run: RunDirectory
    results: Results | None
    message: str
    push_problem: str | None = None
    is_stopped: bool = False

    @property
    def exit_code(self) -> int:
        """Gives 3 when some files could not be used or the push failed, else 0."""
        failed = self.results is not None and self.results.unusable_files
        return EXIT_PARTLY if failed or self.push_problem else EXIT_DONE


def train(config: TrainConfig, *, overwrite: bool = False) -> TrainOutcome:
    """Fine-tunes an encoder as the config says, or goes on with a run that was stopped.

    Args:
        config: of the run.
        overwrite: delete a finished run of the same name.

    Returns:
        Where the run lies and what it found.

    Raises:
        UserError: what the config asks for cannot be done.
        ProcessLostError: another process of the run is gone.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # of writing a model's files, within our own
    device = choose_device(config)
    if device == "cpu":
        keep_freed_memory()
    hosts = join_processes(config, device)
    with named_losses(config, hosts):
        run = RunDirectory(Path(config.output_dir) / config.run_id)
        if (config.force_restart or overwrite) and goes_on_with(run, device):
            config, overwrite = _going_on(config), False
        if config.stages:
            from speaker_encoder.training.stages import train_stages

            outcome = train_stages(config, device, overwrite=overwrite)
        else:
            outcome = train_once(config, device, overwrite=overwrite)
    if torch.distributed.is_initialized():
        # A process that ends with its gloo threads running may be aborted in the end.
        gc.collect()
        torch.distributed.destroy_process_group()
    return outcome


def _going_on(config: TrainConfig) -> TrainConfig:
    """Gives the config without the wish to start anew, which this launch has fulfilled."""
    config = copy.copy(config)
    object.__setattr__(config, "force_restart", False)
    return config


def train_once(
    config: TrainConfig,
    device: str,
    *,
    overwrite: bool = False,
    title: str = "",
    before: RunDirectory | None = None,
) -> TrainOutcome:
    """Does one run from its start or newest checkpoint to its end.

    Args:
        config: of the run, without stages.
        device: "cpu" or "cuda".
        overwrite: delete a finished run of the same name.
        title: what the run is called while it goes on; "" for its id.
        before: the run whose loss is gone on with, if it is the same.

    Raises:
        UserError: what the config asks for cannot be done.
    """
    with contextlib.ExitStack() as stack:
        run = open_run(config, overwrite, stack, title)
        config, corpus = settle_recipe(config, run)
        if run.is_finished:
            _logger.info("%s is finished; force_restart is false", run.path)
            stop = stack.enter_context(StopRequest())
            return conclude(config, run, Results.load(run.results_path), stop)
        data = load_data(config, corpus)
        digest = check_same_data(data)
        for split in (data.training, data.replay, data.validation, data.reference):
            if split is not None:
                _logger.info("%s", split)
        stop = stack.enter_context(StopRequest())
        trainer = build_trainer(config, run, data, device, stop, before, is_stage=bool(title))
        keep_pretrained(config, run, trainer, before)
        return _run(config, run, data, digest, trainer, stop, is_stage=bool(title))


def _run(
    config: TrainConfig,
    run: RunDirectory,
    data: RunData,
    digest: str,
    trainer: SpeakerTrainer,
    stop: StopRequest,
    *,
    is_stage: bool,
) -> TrainOutcome:
    """Measures the untouched model, trains, and reports."""
    checkpoints = run.checkpoints()
    step, checkpoint = checkpoints[-1] if checkpoints else (None, None)
    record, flow = trainer.record, trainer.flow
    try:
        if record is not None:
            record.start(data, step)
        start = time.monotonic()
        if checkpoint is None:
            trainer.evaluate()
        else:
            _logger.info("resuming from %s", checkpoint)
            flow.progress = Progress.load(checkpoint)
            if is_main_process() and flow.progress.best_step is not None:
                run.publish_best(flow.progress.best_step)
            trainer.unusable.update(flow.progress.unusable_files)
            if flow.progress.data not in (None, digest):
                _logger.warning("resuming with other data than before: %s", data.training)
        flow.progress.data = digest
        trainer.encoder.config.untrained_head = False
        if not stop.is_wanted:
            _train(trainer, step, checkpoint)
        seconds = time.monotonic() - start if checkpoint is None else None
        if stop.is_wanted:
            return TrainOutcome(run, None, _stopped(run), is_stopped=True)
        stop.consequence = "the run ends when its result is chosen"
        results = _finish(config, run, data, trainer, seconds, is_stage=is_stage)
    finally:
        if record is not None:
            record.finish()  # before a push: it waits for pictures
    if results is None:
        return TrainOutcome(run, None, "", is_stopped=stop.is_wanted)
    return conclude(config, run, results, stop)


def _train(trainer: SpeakerTrainer, step: int | None, checkpoint: Path | None) -> None:
    """Trains from the start or a checkpoint; one that is at the run's end is only loaded."""
    if checkpoint is None or step is None:
        trainer.train()
        return
    progress = trainer.flow.progress
    max_steps = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())[
        -1
    ]
    trainer.args.eval_on_start = progress.is_validation_pending
    if step < max_steps and not progress.has_stopped_early:
        trainer.train(resume_from_checkpoint=str(checkpoint))
        return
    trainer.restore_weights(checkpoint, step, max_steps)
    if progress.is_validation_pending:
        trainer.evaluate()


def _stopped(run: RunDirectory) -> str:
    """Says where a stopped run is; one process speaks for all."""
    if not is_main_process():
        return ""
    checkpoints = run.checkpoints()
    if not checkpoints:
        return "stopped before the first step was saved; the same command starts again."
    return (
        f"stopped at step {checkpoints[-1][0]}. The same command with force_restart false goes on "
        "from there."
    )


def _finish(
    config: TrainConfig,
    run: RunDirectory,
    data: RunData,
    trainer: SpeakerTrainer,
    seconds: float | None,
    *,
    is_stage: bool,
) -> Results | None:
    """Writes the model without validation data, the results, and the pictures of the run.

    Returns:
        What was found; None in the other processes.
    """
    progress = trainer.flow.progress
    unusable = gather_dict(trainer.unusable)
    averaged: list[int] = []
    mean = None
    if config.average_best:
        averaged, mean = take_average(trainer, run, config.average_best)
    chosen = None if is_stage else take_chosen(trainer, run, mean)
    trainer.published.gather()
    if not is_main_process():
        return None
    if progress.best_step is None:
        trainer.save_encoder(run.model_dir)
        trainer.save_loss(run.path)
    best_step, path = progress.best_step, best_embeddings_path(run, progress.best_step, averaged)
    if chosen is not None:
        best_step, path = chosen.result_step, run.result_scores_path
        averaged = averaged if best_step else []
    paths = (embeddings_path(run, 0), path)
    results = measure_results(
        config,
        run,
        data,
        paths=paths,
        steps=trainer.state.global_step,
        best_step=best_step,
        averaged_steps=averaged,
        seconds=seconds,
        unusable=unusable,
    )
    if chosen is not None:
        results = chosen.add_to(results)
    if not is_stage:
        results = add_space(config, run, data, results, paths, run.pretrained_dir)
    # what more steps, and another choice, would begin with
    kept = {row[2] for row in progress.ranking} if run.pretrained_dir.is_dir() else set()
    finish_run_folder(config, run, results, progress.best_step, kept)
    if results.interpolation is not None and trainer.record is not None:
        trainer.record.log_interpolation(results.steps)
    return results


def conclude(
    config: TrainConfig, run: RunDirectory, results: Results, stop: StopRequest
) -> TrainOutcome:
    """Pushes what the run found if that is wanted and was not done yet, and says how it went."""
    message = format_results(config, run, results)
    if not config.push_to_hub or not is_main_process():
        return TrainOutcome(run, results, message, is_stopped=stop.is_wanted)
    stop.consequence = "ending the push"
    pushed = push_run(config, run, stop)
    return TrainOutcome(run, results, f"{message}\n\n{pushed.text}", pushed.problem)
