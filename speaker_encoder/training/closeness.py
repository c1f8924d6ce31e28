"""What is added to the loss so that an encoder stays close to the one that it started from."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from speaker_encoder.errors import UserError
from speaker_encoder.training.distributed import mean_of_processes
from speaker_encoder.training.gradient_cache import learns_statistics
from speaker_encoder.training.lora import is_adapted, without_adapters

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder
    from speaker_encoder.training.config import TrainConfig

_logger = logging.getLogger(__name__)

_BASE = ".base_layer"  # what peft puts into the names of an adapted module's own parameters
_ADAPTER = "default"  # its name for the only adapter


class Closeness:
    """Pulls an encoder in training to the one that it started from, in weights and embeddings.

    The first encoder is no part of the model: it is not trained, averaged, or saved in a
    checkpoint. It hears what the encoder in training hears, augmented where that is, but in eval
    mode and without the masks of SpecAugment.

    Args:
        model: in training, with its adapters and what is frozen in it.
        start: the first encoder, plain, without a loss; it is frozen.
        l2_sp: weight of the pull of the weights; 0: none.
        distillation: weight of the distance of the embeddings; 0: none.

    Raises:
        UserError: nothing of what is trained has pretrained weights, or there are no pretrained
            embeddings.
    """

    def __init__(
        self, model: SpeakerEncoder, start: SpeakerEncoder, l2_sp: float, distillation: float
    ) -> None:
        if distillation and start.config.untrained_head:
            raise UserError(
                "distillation: the part of the encoder that makes the embedding starts with random "
                "weights, so there are no embeddings to stay close to. Set distillation to 0, or "
                "start from a trained encoder, such as ecapa, dvector or wavlm-base-plus-sv."
            )
        self.start = start.eval().requires_grad_(False)
        self._l2_sp = l2_sp
        self._distillation = distillation
        self._pulled = list(_pulled_weights(model, start)) if l2_sp else []
        if l2_sp and not self._pulled:
            raise UserError(
                "l2_sp: nothing of what is trained has pretrained weights that it could be pulled "
                "to. Set l2_sp to 0, or train more of the encoder (train_only_head, freeze)."
            )

    def embed(self, input_values: torch.Tensor) -> torch.Tensor | None:
        """Gives the first encoder's embeddings (B, D) of waveforms (B, T), where they are wanted.

        The caller chooses the precision (autocast).
        """
        if not self._distillation:
            return None
        self._move(input_values.device)
        with torch.no_grad():
            return self.start(input_values).embeddings

    def parts(
        self, embeddings: torch.Tensor, wanted: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """Gives what is added to the loss by name, times its weight.

        The values are those of the whole batch, on every process. The gradient is of this
        process's share: the mean of the processes' gradients is that of the whole batch.

        Args:
            embeddings: (B, D) of a batch, of the encoder in training, with gradient.
            wanted: (B, D) those of `embed` for the same batch.

        Returns:
            Scalars: `loss_distillation` and `loss_l2_sp`, those that are wanted.
        """
        parts = {}
        if wanted is not None:
            own = self._distillation * cosine_distance(embeddings, wanted)
            whole = mean_of_processes(own.detach())
            parts["loss_distillation"] = whole + (own - own.detach())  # the value is the whole's
        if self._pulled:
            self._move(embeddings.device)
            parts["loss_l2_sp"] = self._l2_sp / 2 * self._squared_distance()
        return parts

    def _squared_distance(self) -> torch.Tensor:
        distances = []
        for adapted, weight, wanted in self._pulled:
            difference = weight - wanted
            if adapted is not None:
                difference = difference + adapted.get_delta_weight(_ADAPTER)
            distances.append(difference.square().sum())
        return torch.stack(distances).sum()

    def _move(self, device: torch.device) -> None:
        if self.start.device != device:
            self.start.to(device)


def build_closeness(
    config: TrainConfig, model: SpeakerEncoder, first_dir: Path | None = None
) -> Closeness | None:
    """Gives what the config asks for.

    Args:
        config: of the run.
        model: as it was built, before any training.
        first_dir: where the encoder lies that the first stage of a recipe started from, if it was
            a trained one; None, or no such folder: the model itself is what is stayed close to.

    Raises:
        UserError: there is nothing trained to stay close to.
    """
    if not (config.l2_sp or config.distillation):
        return None
    if first_dir is not None and first_dir.is_dir():
        start = type(model).from_pretrained(first_dir)
    else:
        start = starting_encoder(model)
    if config.distillation and not config.freeze_batch_norm and learns_statistics(model):
        _logger.info(
            "distillation: in training batch norm takes the batch's statistics, and the pretrained "
            "encoder its own, so the distance does not begin at 0; it does with freeze_batch_norm"
        )
    return Closeness(model, start, config.l2_sp, config.distillation)


def starting_encoder(model: SpeakerEncoder) -> SpeakerEncoder:
    """Gives a copy of an encoder that was not trained yet, without its loss and its adapters."""
    loss = model.loss_fn
    model.attach_loss(None)
    try:
        return without_adapters(model) if is_adapted(model) else copy.deepcopy(model)
    finally:
        model.attach_loss(loss)


def cosine_distance(embeddings: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Gives the mean of 1 - cos over the rows of two batches of embeddings (B, D)."""
    return (1 - nn.functional.cosine_similarity(embeddings.float(), wanted.float(), dim=-1)).mean()


def _pulled_weights(
    model: SpeakerEncoder, start: SpeakerEncoder
) -> Iterator[tuple[Any, nn.Parameter, torch.Tensor]]:
    """Gives what is pulled where: (the adapted module or None, a parameter, what it was).

    Of an adapted module that is the weight with its adapter in it. A head that starts with random
    weights is not pulled, for it was nothing before; nor are the loss's own weights.

    Source: Li et al. 2018, "Explicit inductive bias for transfer learning with convolutional
    networks", eq. 2, its first term.
    """
    new = start.backbone.head_parts if start.config.untrained_head else ()
    pretrained = dict(start.backbone.named_parameters())
    for name, parameter in model.backbone.named_parameters():
        plain = name.replace(_BASE, "")
        if plain not in pretrained or plain.startswith(new):
            continue
        module_name, _, kind = name.rpartition(".")
        if kind == "weight" and module_name.endswith(_BASE):
            adapted = model.backbone.get_submodule(module_name.removesuffix(_BASE))
            yield adapted, parameter, pretrained[plain]
        elif parameter.requires_grad:
            yield None, parameter, pretrained[plain]
