"""The transformers Trainer, with the few things that differ for speaker encoders."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import Trainer

from speaker_encoder.errors import UserError
from speaker_encoder.training.distributed import is_main_process, num_processes
from speaker_encoder.training.run_dir import RunDirectory
from speaker_encoder.training.sampler import SpeakerBatchSampler
from speaker_encoder.training.schedule import WarmupThenPlateau
from speaker_encoder.verification import in_batch_eer

if TYPE_CHECKING:
    from speaker_encoder.audio.augment import Augmenter
    from speaker_encoder.modeling import SpeakerEncoder
    from speaker_encoder.training.callbacks import FlowCallback
    from speaker_encoder.training.record import RecordCallback
    from speaker_encoder.training.validation import Validation

_WORKER_NICENESS = 10

_logger = logging.getLogger(__name__)


def _be_a_good_worker(is_training: Any, worker: int) -> None:
    """Leaves signals to the main process, and the processor whenever that one wants it.

    While the main process trains, a Ctrl-C or a scheduler's SIGTERM that reaches a worker too is
    for the main process to answer; afterwards SIGTERM is how the worker is told to end. At equal
    priority a worker would hold up the threads of a training on the CPU, which wait for each
    other many times in a step.
    """

    def on_terminate(number: int, frame: FrameType | None) -> None:
        if not is_training.value:
            os._exit(0)

    os.nice(_WORKER_NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, on_terminate)


@dataclass
class LastBatch:
    """The batch that was just trained on, as the model heard it.

    `embeddings` (B, D) and `labels` (B,) are those of all processes, `input_values` and
    `utterances` those of this one.
    """

    loss: float
    embeddings: torch.Tensor
    labels: torch.Tensor
    input_values: torch.Tensor
    utterances: list[int] = field(default_factory=list)

    def eer(self) -> float:
        """Gives the in-batch EER, as the original logs it."""
        return in_batch_eer(self.embeddings.float().cpu().numpy(), self.labels.cpu().numpy())


def damaged_checkpoint(checkpoint: Path, error: Exception) -> UserError:
    """Says that a checkpoint cannot be read, and what to do."""
    return UserError(
        f"The checkpoint {checkpoint} is damaged ({error}). Delete it to go on from the one "
        "before, or set force_restart to true."
    )


class SpeakerTrainer(Trainer):
    """Trainer with P x K batches, validation on trials, and checkpoints that are whole or absent.

    Args:
        run: the run's directory.
        sampler: the P x K sampler.
        make_schedule: optimizer -> schedule; None when `training_arguments` names one.
        validate: gives what a validation of the model found; None without validation data.
        augmenter: augments on the training device; None when the batches come augmented.
        describe: utterance index -> path, for messages.
        flow: decides about steps; its progress is part of each checkpoint.
        keywords: of `transformers.Trainer`.
    """

    def __init__(
        self,
        *,
        run: RunDirectory,
        sampler: SpeakerBatchSampler,
        make_schedule: Callable[[torch.optim.Optimizer], WarmupThenPlateau] | None,
        validate: Callable[[], Validation] | None,
        augmenter: Augmenter | None,
        describe: Callable[[int], str],
        flow: FlowCallback,
        **keywords: Any,
    ) -> None:
        self._run = run
        self._sampler = sampler
        self._make_schedule = make_schedule
        self._validate = validate
        self._augmenter = augmenter
        self._describe = describe
        self.flow = flow
        self.record: RecordCallback | None = None
        flow.trainer = self
        self._embeddings: torch.Tensor | None = None
        self.last_batch: LastBatch | None = None
        self.last_validation: Validation | None = None
        self.unusable: dict[str, str] = {}
        self._is_training = multiprocessing.RawValue(ctypes.c_bool, False)
        self._labels: torch.Tensor | None = None
        super().__init__(callbacks=[flow, *keywords.pop("callbacks", [])], **keywords)

    def _get_train_sampler(self, train_dataset: Any = None) -> SpeakerBatchSampler:
        return self._sampler

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Gives the parameters that weight decay applies to: never those of the loss."""
        names = super().get_decay_parameter_names(model)
        return [name for name in names if not name.startswith("loss_fn.")]

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> Any:
        """Makes the schedule of the config, unless `training_arguments` names another."""
        if self._make_schedule is None:
            return super().create_scheduler(num_training_steps, optimizer)
        if self.lr_scheduler is None:
            whose = self.optimizer if optimizer is None else optimizer
            assert whose is not None
            self.lr_scheduler = self._make_schedule(whose)  # type: ignore[assignment]
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Computes the loss and remembers the embeddings for the record."""
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        self._embeddings = outputs["embeddings"].detach()
        self._labels = inputs["labels"]
        gathered = getattr(self.accelerator.unwrap_model(model).loss_fn, "gathered", None)
        if gathered is not None:  # the whole batch, when several processes share it
            self._embeddings, self._labels = gathered
        return (loss, outputs) if return_outputs else loss

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Does forward and backward, and stops at a loss that is not finite.

        Raises:
            UserError: with the step, the batch's files and the last good checkpoint; or a speaker
                has no usable recording.
        """
        utterances = inputs.pop("utterances").tolist()
        positions = inputs.pop("positions")
        for path, reason in inputs.pop("problems"):
            if path not in self.unusable:
                self.unusable[path] = reason
                self.flow.progress.unusable_files[path] = reason
                _logger.warning("left out of training: %s: %s", path, reason)
        failures = inputs.pop("failures")
        if failures:
            raise UserError(failures[0])
        if self._augmenter is not None:
            waveforms = inputs["input_values"].to(self._augmenter.device)
            inputs["input_values"] = self._augmenter(waveforms, positions).to(self.args.device)
        loss = super().training_step(model, inputs, num_items_in_batch)
        scale = self.current_gradient_accumulation_steps
        assert self._embeddings is not None and self._labels is not None
        self.last_batch = LastBatch(
            loss=float(loss) * scale,
            embeddings=self._embeddings,
            labels=self._labels,
            input_values=inputs["input_values"],
            utterances=utterances,
        )
        if not torch.isfinite(loss):
            raise self._not_finite(self.last_batch)
        return loss

    def _not_finite(self, batch: LastBatch) -> UserError:
        kept = self._run.checkpoints()
        last = str(kept[-1][1]) if kept else "none was saved yet"
        files = "\n".join(f"  {self._describe(index)}" for index in sorted(set(batch.utterances)))
        return UserError(
            f"The loss is {batch.loss} at step {self.state.global_step + 1}. Training has stopped; "
            f"nothing was saved after it. Last good checkpoint: {last}. Lower learning_rate_init, "
            f"or look at the files of this batch:\n{files}"
        )

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
        inner.worker_init_fn = partial(_be_a_good_worker, self._is_training)
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
        self.last_validation = self._validate()
        metrics = dict(self.last_validation.metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging or super()._get_output_dir(trial))

    _staging: Path | None = None

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Saves aside, and moves the folder into place when it is complete and on the disk."""
        name = f"checkpoint-{self.state.global_step}"
        target = self._run.path / name
        if any(step == self.state.global_step for step, _ in self._run.checkpoints()):
            return  # of this very step, written before a resume: it is the same
        if not is_main_process():
            self._staging = self._run.path / ".staging"
            self._wait()
            super()._save_checkpoint(model, trial)
            self._wait()
        else:
            with self._run.staged(target) as staging:
                self._staging = staging.parent
                self._wait()
                super()._save_checkpoint(model, trial)
                self.flow.progress.save(staging)
                self._wait()
        self._staging = None
        self._wait()

    def _wait(self) -> None:
        if num_processes() > 1:
            torch.distributed.barrier()

    @property
    def encoder(self) -> SpeakerEncoder:
        """The model itself, out of whatever the launcher has wrapped it in."""
        return self.accelerator.unwrap_model(self.model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        wanted = self.args.learning_rate
        if checkpoint is None or not wanted or not isinstance(self.lr_scheduler, WarmupThenPlateau):
            return
        if self.lr_scheduler.set_peak(wanted):
            _logger.warning("resuming with the learning rate %g of the config", wanted)

    def restore_weights(self, checkpoint: Path, step: int, max_steps: int) -> None:
        """Puts a checkpoint's weights into the model, without anything to train on from there."""
        try:
            self._load_from_checkpoint(str(checkpoint))
        except (SafetensorError, OSError) as error:
            raise damaged_checkpoint(checkpoint, error) from error
        self.state.global_step, self.state.max_steps = step, max_steps

    def save_encoder(self, target: Path) -> None:
        """Writes the encoder alone, ready for `from_pretrained`, whole or not at all."""
        with self._run.staged(target) as staging:
            self.encoder.save_pretrained(staging)
            shutil.copyfile(self._run.config_path, staging / "train_config.json")
