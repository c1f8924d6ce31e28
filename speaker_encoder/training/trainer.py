"""The transformers Trainer, with the few things that differ for speaker encoders."""

from __future__ import annotations

import ctypes
import logging
import math
import multiprocessing
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import nn

from speaker_encoder.training.checkpoints import damaged_checkpoint
from speaker_encoder.training.distributed import num_processes
from speaker_encoder.training.optimizers import MakeSchedule, scale_rates
from speaker_encoder.training.published import PublishedModel
from speaker_encoder.training.run_dir import RunDirectory
from speaker_encoder.training.sampler import SpeakerBatchSampler
from speaker_encoder.training.schedule import WarmupThenCurve, WarmupThenPlateau
from speaker_encoder.training.step import StepTrainer
from speaker_encoder.training.workers import be_a_good_worker

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder
    from speaker_encoder.training.callbacks import FlowCallback
    from speaker_encoder.training.choosing import Chooser
    from speaker_encoder.training.record import RecordCallback
    from speaker_encoder.training.validation import Validation

_logger = logging.getLogger(__name__)


class SpeakerTrainer(StepTrainer):
    """Trainer with P x K batches, validation on trials, and checkpoints that are whole or absent.

    Args:
        run: the run's directory.
        sampler: the P x K sampler.
        make_schedule: makes the schedule; None when `training_arguments` names one.
        rate_scales: what each parameter's learning rate is multiplied by; None for 1.
        validate: model -> what a validation of it found; None without validation data.
        ema_decay: of the average of the weights that is validated and kept; None for none.
        looks_at_interpolation: at each validation, as the chooser at the end.
        loss_facts: the config's `loss`, and the training speakers in the order of their labels.
        flow: decides about steps; its progress is part of each checkpoint.
        keywords: of `StepTrainer`.
    """

    def __init__(
        self,
        *,
        run: RunDirectory,
        sampler: SpeakerBatchSampler,
        make_schedule: MakeSchedule | None,
        rate_scales: dict[str, float] | None = None,
        validate: Callable[[SpeakerEncoder], Validation] | None,
        ema_decay: float | None = None,
        looks_at_interpolation: bool = False,
        loss_facts: tuple[object, list[str]],
        flow: FlowCallback,
        **keywords: Any,
    ) -> None:
        self._run = run
        self._sampler = sampler
        self._make_schedule = make_schedule
        self._rate_scales = rate_scales
        self._looks_at_interpolation = looks_at_interpolation
        self._validate = validate
        self._loss_facts = loss_facts
        self.flow = flow
        self.record: RecordCallback | None = None
        self.chooser: Chooser | None = None
        flow.trainer = self
        self.last_validation: Validation | None = None
        self._is_training = multiprocessing.RawValue(ctypes.c_bool, False)
        super().__init__(callbacks=[flow, *keywords.pop("callbacks", [])], **keywords)
        self.published = PublishedModel(self.encoder, ema_decay, is_divided=bool(self.args.fsdp))

    def _get_train_sampler(self, train_dataset: Any = None) -> SpeakerBatchSampler:
        return self._sampler

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose batches come next."""
        self._sampler.set_epoch(epoch)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Gives the parameters that weight decay applies to: never those of the loss."""
        names = super().get_decay_parameter_names(model)
        return [name for name in names if not name.startswith("loss_fn.")]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Makes the optimizer, with the layers' own rates where they are wanted."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if is_new and self._rate_scales is not None:
            scale_rates(optimizer, self.encoder, self._rate_scales)
        return optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> Any:
        """Makes the schedule of the config, unless `training_arguments` names another."""
        if self._make_schedule is None:
            return super().create_scheduler(num_training_steps, optimizer)
        if self.lr_scheduler is None:
            whose = self.optimizer if optimizer is None else optimizer
            assert whose is not None
            num_batches = len(self._sampler) // self._sampler.batch_size
            steps_per_epoch = math.ceil(num_batches / self.args.gradient_accumulation_steps)
            self.lr_scheduler = self._make_schedule(  # type: ignore[assignment]
                whose, num_training_steps, max(1, steps_per_epoch)
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_train_dataloader(self) -> Any:
        """Gives the loader, apart from torch's global generator and deaf to signals.

        An iterator takes a number from the global generator when it is made, and with workers
        that stay on over epochs a resumed run makes one more of them: dropout would differ.
        A Ctrl-C, or a scheduler's SIGTERM, reaches the workers as well; they go on until the
        step is saved.
        """
        loader = super().get_train_dataloader()
        inner = getattr(loader, "base_dataloader", loader)  # accelerate iterates over this one
        inner.generator = torch.Generator().manual_seed(self.args.seed)
        inner.worker_init_fn = partial(be_a_good_worker, self._is_training)
        return loader

    def train(self, *arguments: Any, **keywords: Any) -> Any:
        """Trains; workers leave signals to this process meanwhile."""
        self._is_training.value = True
        try:
            return super().train(*arguments, **keywords)
        except SafetensorError as error:
            raise damaged_checkpoint(Path(keywords["resume_from_checkpoint"]), error) from error
        finally:
            self._is_training.value = False

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Validates on trials; the Trainer's own evaluation loop is not used."""
        if self._validate is None:
            return {}
        with self.published.gathered(self.args.device) as model:
            self.last_validation = self.validate(model)
            if self._looks_at_interpolation and self.chooser is not None and self.state.global_step:
                self.last_validation.metrics.update(self.chooser.look(model))
        self.flow.note_forgetting(self.last_validation.metrics)
        metrics = dict(self.last_validation.metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def validate(self, model: SpeakerEncoder) -> Validation:
        """Measures a model, with its loss, on the validation data; nothing is recorded."""
        assert self._validate is not None
        if num_processes() > 1:  # statistics of batch norm: those that are saved
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, src=0)
        return self._validate(model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        wanted = self.args.learning_rate
        if checkpoint is None or not wanted:
            return
        schedule = self.lr_scheduler
        if isinstance(schedule, WarmupThenPlateau | WarmupThenCurve) and schedule.set_peak(wanted):
            _logger.warning("resuming with the learning rate %g of the config", wanted)
