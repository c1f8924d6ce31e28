"""From the config and the data to the Trainer with all its parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from speaker_encoder.losses import is_only_for_training
from speaker_encoder.training.augmentation import (
    augmentation_device,
    build_augmenter,
    build_spec_augment,
)
from speaker_encoder.training.build import build_arguments, build_batches, build_model
from speaker_encoder.training.callbacks import FlowCallback, StopRequest
from speaker_encoder.training.choosing import make_chooser, refuse_nothing_between
from speaker_encoder.training.closeness import build_closeness
from speaker_encoder.training.data import RunData
from speaker_encoder.training.dataset import CollateCrops
from speaker_encoder.training.distributed import GatheredLoss, is_main_process, num_processes
from speaker_encoder.training.head_first import build_head_first
from speaker_encoder.training.loss_weights import carry_loss
from speaker_encoder.training.optimizers import choose_optimizer, layer_scales, schedule_maker
from speaker_encoder.training.publishing import BackgroundPush, PushCallback
from speaker_encoder.training.resume import main_process_first
from speaker_encoder.training.run_dir import RunDirectory
from speaker_encoder.training.trainer import SpeakerTrainer
from speaker_encoder.training.trial_set import TrialSet
from speaker_encoder.training.validation import Validation, Validator, num_validation_batches

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder
    from speaker_encoder.training.closeness import Closeness
    from speaker_encoder.training.config import TrainConfig
    from speaker_encoder.training.record import RecordCallback


def build_trainer(
    config: TrainConfig,
    run: RunDirectory,
    data: RunData,
    device: str,
    stop: StopRequest,
    before: RunDirectory | None = None,
    *,
    is_stage: bool = False,
) -> SpeakerTrainer:
    """Puts model, data and callbacks together.

    Args:
        config: of the run.
        run: its directory.
        data: its corpora.
        device: "cpu" or "cuda".
        stop: the wish to stop.
        before: the run whose loss is gone on with, if it is the same.
        is_stage: whether it is one of a recipe: then its best model is what it leaves.

    Raises:
        UserError: the model cannot be had, or an option does not fit it or the machine.
    """
    from transformers import PrinterCallback

    arguments = build_arguments(config, run, device)
    examples = data.batches_from()
    began_with = run.pretrained_dir if run.checkpoints() else None
    if before is not None:
        began_with = before.pretrained_dir
    model, closeness = _build_model(config, list(examples.groups), device, before, began_with)
    is_trained_start = has_trained_start(config, model, before)
    refuse_nothing_between(config, is_trained_start=is_trained_start)
    augmenter = build_augmenter(config, examples, model.sampling_rate)
    in_loader = augmenter is not None and augmentation_device(config) == "cpu"
    dataset, sampler = build_batches(config, examples, model.sampling_rate)
    validator = _build_validator(config, data, model.sampling_rate)
    flow = FlowCallback(config, run, stop, validator is not None, 1 if before is None else 0)
    record = _build_record(config, run, data, model.sampling_rate) if is_main_process() else None
    trainer = SpeakerTrainer(
        run=run,
        sampler=sampler,
        make_schedule=schedule_maker(config),
        rate_scales=_rate_scales(config, model),
        validate=_validation_of(config, validator),
        ema_decay=config.ema_decay,
        looks_at_interpolation=config.interpolate_at == "validation",
        augmenter=None if in_loader else augmenter,
        spec_augment=build_spec_augment(config, model),
        closeness=closeness,
        head_first=build_head_first(config, model),
        mini_batch_size=config.mini_batch_size,
        loss_facts=(config.loss, list(examples.groups)),
        describe=lambda index: examples.utterances[index].path,
        flow=flow,
        callbacks=[*([record] if record else []), *_background_push(config, run)],
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=CollateCrops(augmenter if in_loader else None),
        optimizer_cls_and_kwargs=choose_optimizer(config),
    )
    trainer.remove_callback(PrinterCallback)
    if not is_stage or config.interpolate_at == "validation":
        trainer.chooser = make_chooser(
            config,
            run.pretrained_dir,
            *build_trial_sets(config, data),
            is_trained_start=is_trained_start,
        )
    if record is not None:
        record.trainer, record.flow = trainer, flow
    trainer.record = record
    return trainer


def _build_model(
    config: TrainConfig,
    groups: list[str],
    device: str,
    before: RunDirectory | None,
    began_with: Path | None,
) -> tuple[SpeakerEncoder, Closeness | None]:
    """Gives the model with its loss, and what keeps it close to where fine-tuning began.

    Where a run is gone on with, or its stage before is, that is what was kept then: what the
    config's name is given to may have changed since.
    """
    with main_process_first():
        model = build_model(config, len(groups))
    if before is not None:
        assert isinstance(model.loss_fn, GatheredLoss)
        carry_loss(model.loss_fn.loss, before.path, config.loss, groups)
    closeness = build_closeness(config, model, began_with)
    if device == "cuda" and num_processes() > 1 and not config.freeze_batch_norm:
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model, closeness


def has_trained_start(
    config: TrainConfig, model: SpeakerEncoder, before: RunDirectory | None
) -> bool:
    """Says if fine-tuning began with an encoder whose weights, its head's too, were trained.

    Args:
        config: of the run.
        model: as it was built, before any step.
        before: the stage before, None for a run that is the first.
    """
    if before is not None:
        return before.pretrained_dir.is_dir()
    return config.pretrained and not model.config.untrained_head


def _rate_scales(config: TrainConfig, model: SpeakerEncoder) -> dict[str, float] | None:
    return layer_scales(model, config.layer_lr_decay) if config.layer_lr_decay < 1 else None


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
    trial_set, reference = build_trial_sets(config, data)
    assert trial_set is not None
    return Validator(
        trial_set,
        reference,
        dataset,
        sampler,
        num_batches,
        config.bootstrap_samples,
        config.seed,
    )


def build_trial_sets(config: TrainConfig, data: RunData) -> tuple[TrialSet | None, TrialSet | None]:
    """Gives the trials of validation and of the reference, None where there are none."""
    how = (config.val_max_seconds, config.trim_silence)
    validation = reference = None
    if data.validation is not None and data.trials is not None:
        validation = TrialSet("validation", data.validation.utterances, data.trials, *how)
    if data.reference is not None:
        reference = TrialSet("reference", data.reference.utterances, data.reference.trials, *how)
    return validation, reference


def _validation_of(
    config: TrainConfig, validator: Validator | None
) -> Callable[[SpeakerEncoder], Validation] | None:
    """Gives what validates a model as it then is; None without validation data."""
    if validator is None:
        return None

    def validate(model: SpeakerEncoder) -> Validation:
        assert model.loss_fn is not None
        loss = None if is_only_for_training(model.loss_fn) else model.loss_fn
        return validator(model, loss, draw_every=config.vis_val_art_every)

    return validate


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
        data.batches_from().utterances,
        validation,
        sampling_rate,
    )
