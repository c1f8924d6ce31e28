"""Checkpoints that are whole or absent, and the models that a run leaves."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import Trainer

from speaker_encoder.errors import UserError
from speaker_encoder.training.distributed import (
    GatheredLoss,
    gather_dict,
    is_main_process,
    num_processes,
)
from speaker_encoder.training.loss_weights import save_loss
from speaker_encoder.training.sharding import divide_weights

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder
    from speaker_encoder.training.callbacks import FlowCallback
    from speaker_encoder.training.published import PublishedModel
    from speaker_encoder.training.run_dir import RunDirectory


def damaged_checkpoint(checkpoint: Path, error: Exception) -> UserError:
    """Says that a checkpoint cannot be read, and what to do."""
    return UserError(
        f"The checkpoint {checkpoint} is damaged ({error}). Delete it to go on from the one "
        "before, or set force_restart to true."
    )


class CheckpointTrainer(Trainer):
    """Trainer that saves aside and moves into place what is complete."""

    flow: FlowCallback
    published: PublishedModel
    _run: RunDirectory
    _loss_facts: tuple[object, list[str]]

    def create_accelerator_and_postprocess(self) -> None:
        """Makes the accelerator, which divides the weights over the processes if that is wanted."""
        super().create_accelerator_and_postprocess()
        if self.args.fsdp:
            divide_weights(self.accelerator, self.args)
            self.is_fsdp_enabled = True

    def autocast_smart_context_manager(
        self, cache_enabled: bool | None = True
    ) -> contextlib.AbstractContextManager[Any]:
        """Gives autocast where weights are divided; elsewhere it is around the model itself."""
        return self.accelerator.autocast() if self.args.fsdp else contextlib.nullcontext()

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging or super()._get_output_dir(trial))

    _staging: Path | None = None

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Saves aside, and moves the folder into place when it is complete and on the disk."""
        name = f"checkpoint-{self.state.global_step}"
        target = self._run.path / name
        if any(step == self.state.global_step for step, _ in self._run.checkpoints()):
            return  # of this very step, written before a resume: it is the same
        unusable = self.flow.progress.unusable_files  # that this process has found, of its part
        unusable.update(gather_dict(unusable))
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

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Writes a checkpoint's model, the published one, and what training goes on with."""
        if not self.published.is_apart:
            super()._save(output_dir, state_dict)
            return
        assert output_dir is not None
        super()._save(output_dir, self.published.model().state_dict())
        self.published.save_weights(Path(output_dir))

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        if self.published.is_apart:
            self.published.load_weights(Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _wait(self) -> None:
        if num_processes() > 1:
            torch.distributed.barrier()

    @property
    def encoder(self) -> SpeakerEncoder:
        """The model itself, out of whatever the launcher has wrapped it in."""
        return self.accelerator.unwrap_model(self.model)

    def restore_weights(self, checkpoint: Path, step: int, max_steps: int) -> None:
        """Puts a checkpoint's weights into the model, without anything to train on from there."""
        try:
            self._load_from_checkpoint(str(checkpoint))
        except (SafetensorError, OSError) as error:
            raise damaged_checkpoint(checkpoint, error) from error
        self.state.global_step, self.state.max_steps = step, max_steps

    def save_encoder(self, target: Path, model: SpeakerEncoder | None = None) -> None:
        """Writes the encoder alone, ready for `from_pretrained`, whole or not at all.

        Args:
            target: the folder.
            model: None: the one that is published.
        """
        with self._run.staged(target) as staging:
            (model or self.published.model()).save_pretrained(staging)
            shutil.copyfile(self._run.config_path, staging / "train_config.json")

    def save_loss(self, folder: Path) -> None:
        """Writes the weights of the loss that belongs to the model that is published."""
        loss = self.published.model().loss_fn
        assert isinstance(loss, GatheredLoss)
        save_loss(loss.loss, folder, *self._loss_facts)
