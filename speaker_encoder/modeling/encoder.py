"""The speaker encoder: a transformers model around one backbone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.backbone import Backbone, pretrained_has_its_own
from speaker_encoder.modeling.batching import (
    lengths_from_mask,
    normalize_utterances,
    refuse_short_utterances,
    set_batch_norm_mode,
)
from speaker_encoder.modeling.configuration import SpeakerEncoderConfig
from speaker_encoder.modeling.encoding import EncodesAudio
from speaker_encoder.modeling.feature_extraction import SpeakerEncoderFeatureExtractor
from speaker_encoder.modeling.loading import (
    HUB_OPTIONS,
    load_own,
    load_upstream,
    quiet_without_terminal,
    random_config,
)
from speaker_encoder.modeling.output import SpeakerEncoderOutput
from speaker_encoder.modeling.registry import backbone_class
from speaker_encoder.modeling.safe_config import explained_damage
from speaker_encoder.modeling.sharing import SharedOnHub
from speaker_encoder.modeling.sources import locate

LOSS_PREFIX = "loss_fn."
_ENCODER_ALONE: dict[str, torch.Tensor] = {}


class SpeakerEncoder(SharedOnHub, EncodesAudio, PreTrainedModel):  # type: ignore[misc]
    """Gives one embedding of each utterance.

    Make one with ``from_pretrained`` or ``from_name``.

    Args:
        config: Family and architecture; what the backbone completes is written back into it.
    """

    config_class = SpeakerEncoderConfig
    config: SpeakerEncoderConfig
    base_model_prefix = "backbone"
    main_input_name = "input_values"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    _keys_to_ignore_on_load_unexpected = [r"^loss_fn\."]  # noqa: RUF012 (transformers' name)

    def __init__(self, config: SpeakerEncoderConfig) -> None:
        super().__init__(config)
        self.backbone: Backbone = backbone_class(config.encoder_kind)(config.encoder_config)
        self.loss_fn: nn.Module | None = None
        self._is_batch_norm_frozen = False
        self._describe_backbone()
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Leaves modules as their library initialised them."""

    def _describe_backbone(self) -> None:
        """Writes what the backbone is into the config."""
        self.config.encoder_config = self.backbone.encoder_config
        self.config.embedding_dim = self.backbone.embedding_dim
        self.config.sampling_rate = self.backbone.sampling_rate

    @property
    def embedding_dim(self) -> int:
        """Dimensions of an embedding."""
        return self.backbone.embedding_dim

    @property
    def sampling_rate(self) -> int:
        """Hz of the waveforms."""
        return self.backbone.sampling_rate

    @property
    def min_num_samples(self) -> int:
        """Samples of the shortest utterance that can be embedded."""
        return self.backbone.min_num_samples

    @classmethod
    def from_name(
        cls,
        name: str,
        pretrained: bool = True,
        encoder_config: dict[str, Any] | None = None,
        head: str | dict[str, Any] | None = None,
        layers: str | int | None = None,
    ) -> SpeakerEncoder:
        """Gives a published encoder, or one of the same family with random weights.

        Args:
            name: A name of ``NAMES``, such as ``ecapa``; with ``pretrained`` also all that
                ``from_pretrained`` takes.
            pretrained: False: random weights.
            encoder_config: Architecture of a random encoder, with the upstream library's names; of
                a checkpoint of voxceleb_trainer, what its weights do not tell.
            head: What makes the embedding from the layers of a self-supervised encoder, as
                ``replace_head`` takes it.
            layers: Which of its layers, as ``replace_head`` takes them.

        Returns:
            The encoder in eval mode.

        Raises:
            UserError: unknown name, head or architecture arguments, or weights out of reach.
        """
        if pretrained:
            if encoder_config and not Path(name).expanduser().exists():
                raise pretrained_has_its_own(name)
            encoder = cls.from_pretrained(name, encoder_config=encoder_config or None)
        else:
            encoder = cls(random_config(name, encoder_config or {})).eval()
        if head is not None or layers is not None:
            encoder.replace_head(head, layers)
            encoder.config.untrained_head |= not pretrained
        return encoder

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> SpeakerEncoder:
        """Loads a speaker encoder; nothing that was loaded is executed.

        Args:
            pretrained_model_name_or_path: A name of ``NAMES``, a Hub id, or a folder: our own, a
                ``checkpoint-<step>`` of a run, a SpeechBrain ECAPA, a speech encoder of
                transformers; or a ``.model`` file of voxceleb_trainer.
            *args: As in transformers.
            **kwargs: As in transformers: ``cache_dir``, ``revision``, ``token``,
                ``local_files_only``, ``config``, ``dtype``, ...; and ``encoder_config``, as
                ``from_name`` takes it.

        Returns:
            The encoder in eval mode.

        Raises:
            UserError: nothing such exists, it cannot be reached, or it is damaged.
        """
        options = {name: kwargs[name] for name in HUB_OPTIONS if kwargs.get(name) is not None}
        source = locate(pretrained_model_name_or_path, **options)
        with explained_damage(source.folder):
            if source.encoder_kind is not None:
                return load_upstream(cls, source, **kwargs)
            if kwargs.pop("encoder_config", None):
                raise pretrained_has_its_own(source.name)
            return load_own(super().from_pretrained, source, *args, **kwargs)

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, torch.Tensor] | None = _ENCODER_ALONE,
        **kwargs: Any,
    ) -> None:
        """Writes the encoder's folder: config, weights and feature extractor.

        Args:
            save_directory: Folder to write.
            is_main_process: As in transformers.
            state_dict: Left out: the encoder alone, without an attached loss, to be published.
                Given, as the Trainer does for its checkpoints (None is all there is), an attached
                loss is saved too, so that training can go on from it.
            **kwargs: As in transformers.
        """
        if state_dict is _ENCODER_ALONE:
            state_dict = {
                name: tensor
                for name, tensor in self.state_dict().items()
                if not name.startswith(LOSS_PREFIX)
            }
        with quiet_without_terminal():
            super().save_pretrained(
                save_directory, is_main_process=is_main_process, state_dict=state_dict, **kwargs
            )
        if is_main_process:
            self.feature_extractor().save_pretrained(save_directory)

    def feature_extractor(self) -> SpeakerEncoderFeatureExtractor:
        """Gives the feature extractor that belongs to this encoder."""
        return SpeakerEncoderFeatureExtractor(sampling_rate=self.sampling_rate)

    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> SpeakerEncoderOutput | tuple[torch.Tensor, ...]:
        """Embeds a batch.

        Args:
            input_values: (B, T) float waveforms in [-1, 1] at ``sampling_rate``.
            attention_mask: (B, T), 1 for the samples of an utterance, 0 for the padding behind its
                end. None: all rows are T samples long.
            labels: (B,) int64 speakers, for the attached loss.
            return_dict: False: a plain tuple, as in transformers.

        Returns:
            The loss, when one is attached and labels are given, and (B, D) raw embeddings.

        Raises:
            UserError: an utterance is shorter than ``min_num_samples``, or a shape is wrong.
        """
        if input_values.ndim != 2:
            raise UserError(
                f"input_values must have shape (B, T), found {tuple(input_values.shape)}. Mono "
                "waveforms only; give one waveform as (1, T)."
            )
        lengths = lengths_from_mask(attention_mask, input_values)
        refuse_short_utterances(lengths, input_values, self.min_num_samples, self.sampling_rate)
        if lengths is not None:
            is_sample = (
                torch.arange(input_values.shape[1], device=lengths.device) < lengths[:, None]
            )
            input_values = input_values.masked_fill(~is_sample, 0.0)
        if self.config.do_normalize:
            input_values = normalize_utterances(input_values, lengths)
        embeddings = self.backbone(input_values, lengths).float()
        loss = None
        if self.loss_fn is not None and labels is not None:
            loss = self.loss_fn(embeddings, labels)
        output = SpeakerEncoderOutput(loss=loss, embeddings=embeddings)
        return output if return_dict is not False else output.to_tuple()

    def attach_loss(self, loss: nn.Module | None) -> None:
        """Makes ``loss`` a part of the model for training, or takes it off with None."""
        self.loss_fn = loss.to(self.device) if loss is not None else None

    def train(self, mode: bool = True) -> SpeakerEncoder:
        """Sets training mode; batch norm stays in eval mode where it or its weights are frozen."""
        super().train(mode)
        set_batch_norm_mode(self.backbone, mode and not self._is_batch_norm_frozen)
        return self

    def freeze_batch_norm(self, frozen: bool = True) -> None:
        """Keeps the statistics of batch norm as they are, also in training.

        Args:
            frozen: False undoes it.
        """
        self._is_batch_norm_frozen = frozen
        set_batch_norm_mode(self.backbone, self.training and not frozen)

    def freeze(self, train_only_head: bool = False, freeze_feature_encoder: bool = False) -> None:
        """Chooses what is trained; with neither, everything.

        Args:
            train_only_head: Train only what makes the embedding from the frame features.
            freeze_feature_encoder: Do not train the convolutions on the waveform.

        Raises:
            UserError: this family has no such part.
        """
        self.backbone.freeze(
            train_only_head=train_only_head, freeze_feature_encoder=freeze_feature_encoder
        )

    def replace_head(
        self, head: str | dict[str, Any] | None = None, layers: str | int | None = None
    ) -> None:
        """Gives a self-supervised encoder another head, or a new one on other layers.

        Where both are as they should be already, the head stays with its weights.

        Args:
            head: "xvector", "ecapa", "mean", "attentive_statistics", "mhfa", or
                ``{"name": one of these, <its options>}``; None: of the same kind as now.
            layers: "last", "weighted_sum", or the number of a layer, behind which the others are
                cut off: 0 is what goes into the first; None: as now.

        Raises:
            UserError: another family, or an unknown head, option or layer.
        """
        device, dtype = self.device, self.dtype
        if self.backbone.replace_head(head, layers):
            self.backbone.to(device, dtype).train(self.training)
            self.config.untrained_head = self.backbone.head_needs_training
            self._describe_backbone()

    def enlarge_head(self, embedding_dim: int = 1024) -> None:
        """Gives the encoder a new, untrained head with ``embedding_dim`` dimensions.

        Raises:
            UserError: this family's head cannot be enlarged.
        """
        self.backbone.enlarge_head(embedding_dim)
        self.backbone.to(self.device)
        self.config.untrained_head = True
        self._describe_backbone()
