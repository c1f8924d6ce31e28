"""One step of training: what the model hears, the loss, and every gradient."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from speaker_encoder.errors import UserError
from speaker_encoder.training.checkpoints import CheckpointTrainer
from speaker_encoder.training.distributed import GatheredLoss, least_of_processes
from speaker_encoder.training.gradient_cache import cached_loss, split_batch
from speaker_encoder.training.last_batch import LastBatch
from speaker_encoder.training.piece_size import largest_piece

if TYPE_CHECKING:
    from speaker_encoder.audio.augment import Augmenter
    from speaker_encoder.training.closeness import Closeness
    from speaker_encoder.training.head_first import HeadFirst
    from speaker_encoder.training.spec_augment import SpecAugment

_logger = logging.getLogger(__name__)


class StepTrainer(CheckpointTrainer):
    """Trainer whose loss is of all embeddings of a batch, however few it computes at once.

    Args:
        augmenter: augments on the training device; None when the batches come augmented.
        spec_augment: masks the model's features, and is told the examples of each batch.
        closeness: adds to the loss what keeps the model close to where it started; None: nothing.
        head_first: holds all but the head in the first steps; None: nothing is held.
        mini_batch_size: crops whose graph is held at once; "auto": as many as fit; None: all.
        describe: utterance index -> path, for messages.
        keywords: of `transformers.Trainer`.
    """

    def __init__(
        self,
        *,
        augmenter: Augmenter | None,
        spec_augment: SpecAugment | None = None,
        closeness: Closeness | None = None,
        head_first: HeadFirst | None = None,
        mini_batch_size: int | str | None = None,
        describe: Callable[[int], str],
        **keywords: Any,
    ) -> None:
        self._augmenter = augmenter
        self._spec_augment = spec_augment
        self._positions: torch.Tensor | None = None
        self._closeness = closeness
        self._head_first = head_first
        self._mini_batch_size = mini_batch_size
        self._describe = describe
        self._loss_parts: dict[str, torch.Tensor] = {}
        self._embeddings: torch.Tensor | None = None
        self._labels: torch.Tensor | None = None
        self.last_batch: LastBatch | None = None
        self.unusable: dict[str, str] = {}
        super().__init__(**keywords)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Computes the loss and remembers its parts and the embeddings for the record."""
        if self._head_first is not None:  # behind the Trainer's own model.train()
            self._head_first.hold_statistics(self.state.global_step)
        self._labels = inputs["labels"]
        pieces = split_batch(len(inputs["labels"]), self._piece_size(len(inputs["labels"])))
        if len(pieces) == 1:
            self._hear(pieces[0])
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
            loss = self._stay_close(loss, outputs["embeddings"], inputs["input_values"], pieces)
            self._embeddings = outputs["embeddings"].detach()
        else:
            loss, self._embeddings = self._loss_by_pieces(model, inputs, pieces)
            outputs = {"loss": loss, "embeddings": self._embeddings}
        gathered = getattr(self.encoder.loss_fn, "gathered", None)
        if gathered is not None:  # the whole batch, when several processes share it
            self._embeddings, self._labels = gathered
        return (loss, outputs) if return_outputs else loss

    def _loss_by_pieces(
        self, model: nn.Module, inputs: dict[str, Any], pieces: Sequence[slice]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gives the loss of all crops, computed some at a time, and (B, D) their embeddings."""
        waveforms, whole_loss = inputs["input_values"], self.encoder.loss_fn
        assert whole_loss is not None

        def embed(piece: slice) -> torch.Tensor:
            self._hear(piece)
            return model(input_values=waveforms[piece])["embeddings"]

        def loss_of(embeddings: torch.Tensor) -> torch.Tensor:
            with self.accelerator.autocast():  # the model's own forward, with the loss in it, is
                loss = whole_loss(embeddings, inputs["labels"])
            return self._stay_close(loss, embeddings, waveforms, pieces)

        share = 1 / self.current_gradient_accumulation_steps
        return cached_loss(self.accelerator, model, pieces, embed, loss_of, share)

    def _hear(self, rows: slice) -> None:
        """Tells SpecAugment whose features come now."""
        if self._spec_augment is not None and self._positions is not None:
            self._spec_augment.positions = self._positions[rows]

    def _stay_close(
        self,
        loss: torch.Tensor,
        embeddings: torch.Tensor,
        waveforms: torch.Tensor,
        pieces: Sequence[slice],
    ) -> torch.Tensor:
        """Adds to the loss what keeps the model close to where it started."""
        if self._closeness is None:
            return loss
        with self.accelerator.autocast():
            wanted = [self._closeness.embed(waveforms[piece]) for piece in pieces]
        whole = torch.cat(wanted) if wanted[0] is not None else None  # type: ignore[arg-type]
        parts = self._closeness.parts(embeddings, whole)
        self._loss_parts = {name: part.detach() for name, part in parts.items()}
        return sum(parts.values(), start=loss)

    def _piece_size(self, batch_size: int) -> int:
        size = self._mini_batch_size
        if size == "auto":
            size = self.flow.progress.mini_batch_size
        return batch_size if size is None else int(size)

    def settle_piece_size(self) -> None:
        """Finds the largest piece that fits, where the config leaves that open.

        What was found is part of each checkpoint: a run that is resumed keeps it, whatever is free
        then. All processes call this at their first step, when the model is as it is trained,
        and take the least of what they find.

        Raises:
            UserError: next to nothing fits.
        """
        progress = self.flow.progress
        if self._mini_batch_size != "auto" or progress.mini_batch_size is not None:
            return
        batch_size = self.args.per_device_train_batch_size
        num_samples = self.train_dataset.longest_crop  # type: ignore[union-attr]
        with self.accelerator.autocast():
            found = largest_piece(self.encoder, batch_size, num_samples)
        found = least_of_processes(found, self.args.device)
        if not found:
            raise UserError(
                "mini_batch_size: not even three crops fit into the device's memory. Shorten "
                'window_size_s, set precision to "bf16", freeze a part of the encoder (freeze, '
                "lora), or, with a self-supervised encoder, set activation_checkpointing in "
                "training_arguments."
            )
        progress.mini_batch_size = found
        _logger.info(
            "mini_batch_size auto: the graph of %d of the %d crops of a batch fits at once",
            *(progress.mini_batch_size, batch_size),
        )

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
        self.settle_piece_size()
        utterances = inputs.pop("utterances")
        positions = inputs.pop("positions")
        self._note_problems(inputs.pop("problems"), inputs.pop("failures"))
        if self._augmenter is not None:
            waveforms = inputs["input_values"].to(self._augmenter.device)
            inputs["input_values"] = self._augmenter(waveforms, positions, utterances).to(
                self.args.device
            )
        self._positions = positions
        whole_loss = self.encoder.loss_fn
        assert isinstance(whole_loss, GatheredLoss)
        whole_loss.set_step(self.state.global_step)
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self._head_first is not None:
            self._head_first.drop_gradients(self.state.global_step)
        if self._spec_augment is not None:
            self._spec_augment.positions = None
        scale = self.current_gradient_accumulation_steps
        assert self._embeddings is not None and self._labels is not None
        self.last_batch = LastBatch(
            loss=float(loss) * scale,
            embeddings=self._embeddings,
            labels=self._labels,
            input_values=inputs["input_values"],
            utterances=utterances.tolist(),
            loss_parts={name: float(part) for name, part in self._loss_parts.items()},
        )
        if not torch.isfinite(loss):
            raise self._not_finite(self.last_batch)
        return loss

    def _note_problems(self, problems: Sequence[tuple[str, str]], failures: Sequence[str]) -> None:
        """Keeps the files that could not be used.

        Raises:
            UserError: a speaker has no other.
        """
        for path, reason in problems:
            if path not in self.unusable:
                self.unusable[path] = reason
                self.flow.progress.unusable_files[path] = reason
                _logger.warning("left out of training: %s: %s", path, reason)
        if failures:
            raise UserError(failures[0])

    def _not_finite(self, batch: LastBatch) -> UserError:
        kept = self._run.checkpoints()
        last = str(kept[-1][1]) if kept else "none was saved yet"
        files = "\n".join(f"  {self._describe(index)}" for index in sorted(set(batch.utterances)))
        return UserError(
            f"The loss is {batch.loss} at step {self.state.global_step + 1}. Training has stopped; "
            f"nothing was saved after it. Last good checkpoint: {last}. Lower learning_rate_init, "
            f"or look at the files of this batch:\n{files}"
        )
