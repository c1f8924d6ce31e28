"""One run from its config to its report."""

from __future__ import annotations

import contextlib
import gc
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from speaker_encoder.errors import EXIT_DONE, EXIT_PARTLY
from speaker_encoder.training.build import (
    augmentation_device,
    build_arguments,
    build_augmenter,
    build_batches,
    build_model,
    choose_device,
    choose_optimizer,
    schedule_maker,
)
from speaker_encoder.training.callbacks import FlowCallback, Progress, StopRequest
from speaker_encoder.training.data import RunData, load_data
from speaker_encoder.training.dataset import CollateCrops
from speaker_encoder.training.distributed import gather_dict, is_main_process, num_processes
from speaker_encoder.training.publishing import BackgroundPush, PushCallback, push_run
from speaker_encoder.training.report import (
    Results,
    finish_run_folder,
    format_results,
    measure_results,
)
from speaker_encoder.training.resume import main_process_first, open_run
from speaker_encoder.training.run_dir import RunDirectory
from speaker_encoder.training.trainer import SpeakerTrainer
from speaker_encoder.training.validation import Validator, num_validation_batches

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder
    from speaker_encoder.training.config import TrainConfig
    from speaker_encoder.training.record import RecordCallback

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainOutcome:
    """How a run ended: its directory, and its results, None when it was stopped before its end."""

    run: RunDirectory
    results: Results | None
    message: str
    push_problem: str | None = None

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
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # of writing a model's files, within our own
    device = choose_device(config)
    _join_processes(device)
    with contextlib.ExitStack() as stack:
        run = open_run(config, overwrite, stack)
        if run.is_finished:
            _logger.info("%s is finished; force_restart is false", run.path)
            return _conclude(config, run, Results.load(run.results_path))
        data = load_data(config)
        for split in (data.training, data.validation):
            if split is not None:
                _logger.info("%s", split)
        stop = stack.enter_context(StopRequest())
        trainer = _build_trainer(config, run, data, device, stop)
        outcome = _run(config, run, data, trainer, stop)
    if torch.distributed.is_initialized():
        # A process that ends with its gloo threads running may be aborted in the end.
        del trainer
        gc.collect()
        torch.distributed.destroy_process_group()
    return outcome


def _join_processes(device: str) -> None:
    """Meets the other processes of a launcher before anything is decided together."""
    if num_processes() > 1 and not torch.distributed.is_initialized():
        from accelerate import PartialState

        PartialState(cpu=device == "cpu", backend="gloo" if device == "cpu" else "nccl")


def _build_trainer(
    config: TrainConfig, run: RunDirectory, data: RunData, device: str, stop: StopRequest
) -> SpeakerTrainer:
    """Puts model, data and callbacks together."""
    from transformers import PrinterCallback

    arguments = build_arguments(config, run, device)
    with main_process_first():
        model = build_model(config, len(data.training.speakers))
    if device == "cuda" and num_processes() > 1 and not config.freeze_batch_norm:
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    augmenter = build_augmenter(config, model.sampling_rate)
    in_loader = augmenter is not None and augmentation_device(config) == "cpu"
    dataset, sampler = build_batches(config, data.training, model.sampling_rate)
    validator = _build_validator(config, data, model.sampling_rate)
    flow = FlowCallback(config, run, stop, validator is not None)
    record = _build_record(config, run, data, model.sampling_rate) if is_main_process() else None
    trainer = SpeakerTrainer(
        run=run,
        sampler=sampler,
        make_schedule=schedule_maker(config),
        validate=_validation_of(config, validator, model),
        augmenter=None if in_loader else augmenter,
        describe=lambda index: data.training.utterances[index].path,
        flow=flow,
        callbacks=[*([record] if record else []), *_background_push(config, run)],
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=CollateCrops(augmenter if in_loader else None),
        optimizer_cls_and_kwargs=choose_optimizer(config),
    )
    trainer.remove_callback(PrinterCallback)
    if record is not None:
        record.trainer, record.flow = trainer, flow
    trainer.record = record
    return trainer


def _background_push(config: TrainConfig, run: RunDirectory) -> list[PushCallback]:
    """Gives what pushes after each save, in one process, where the config wants it."""
    is_wanted = config.push_to_hub and config.hub_strategy == "every_save" and is_main_process()
    return [PushCallback(BackgroundPush(config, run))] if is_wanted else []


def _build_validator(config: TrainConfig, data: RunData, sampling_rate: int) -> Validator | None:
    if data.validation is None or data.trials is None:
        return None
    dataset, sampler = build_batches(config, data.validation, sampling_rate)
    num_batches = num_validation_batches(
        len(data.validation.utterances), sampler.batch_size, config.val_max_epochs
    )
    return Validator(
        data.validation.utterances,
        data.trials,
        dataset,
        sampler,
        num_batches,
        config.val_max_seconds,
        config.bootstrap_samples,
        config.seed,
        config.trim_silence,
    )


def _validation_of(config: TrainConfig, validator: Validator | None, model: SpeakerEncoder) -> Any:
    """Gives what validates the model as it then is; None without validation data."""
    if validator is None:
        return None
    assert model.loss_fn is not None
    loss = model.loss_fn
    return lambda: validator(model, loss, draw_every=config.vis_val_art_every)


def _build_record(
    config: TrainConfig, run: RunDirectory, data: RunData, sampling_rate: int
) -> RecordCallback:
    from speaker_encoder.plots.background import BackgroundPlotter
    from speaker_encoder.training.record import RecordCallback
    from speaker_encoder.training.tracking import ExperimentTracker

    validation = data.validation.utterances if data.validation else ()
    return RecordCallback(
        config,
        run,
        ExperimentTracker(config),
        BackgroundPlotter(),
        data.training.utterances,
        validation,
        sampling_rate,
    )


def _run(
    config: TrainConfig,
    run: RunDirectory,
    data: RunData,
    trainer: SpeakerTrainer,
    stop: StopRequest,
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
        trainer.encoder.config.untrained_head = False
        if not stop.is_wanted:
            _train(trainer, step, checkpoint)
        seconds = time.monotonic() - start
    finally:
        if record is not None:
            record.finish()
    if stop.is_wanted:
        return TrainOutcome(run, None, _stopped(run))
    return _finish(config, run, data, trainer, seconds)


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
    seconds: float,
) -> TrainOutcome:
    """Writes the model without validation data, the results, and the pictures of the run."""
    progress = trainer.flow.progress
    unusable = gather_dict(trainer.unusable)
    if not is_main_process():
        return TrainOutcome(run, None, "")
    if progress.best_step is None:
        trainer.save_encoder(run.model_dir)
    results = measure_results(
        config,
        run,
        data,
        steps=trainer.state.global_step,
        best_step=progress.best_step,
        seconds=seconds,
        unusable=unusable,
    )
    finish_run_folder(config, run, results, progress.best_step)
    return _conclude(config, run, results)


def _conclude(config: TrainConfig, run: RunDirectory, results: Results) -> TrainOutcome:
    """Pushes what the run found if that is wanted and was not done yet, and says how it went."""
    message = format_results(results, run)
    if not config.push_to_hub or not is_main_process():
        return TrainOutcome(run, results, message)
    pushed = push_run(config, run)
    return TrainOutcome(run, results, f"{message}\n\n{pushed.text}", pushed.problem)
