"""A speech encoder of transformers under a head that can be chosen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import nn
from transformers.models.wavlm.modeling_wavlm import TDNNLayer

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.backbone import Backbone
from speaker_encoder.modeling.ssl_config import Upstream, build_upstream, complete_ssl_config
from speaker_encoder.modeling.ssl_heads import build_head, complete_head, num_mixes_of
from speaker_encoder.modeling.ssl_parts import pool_statistics
from speaker_encoder.modeling.ssl_weights import HEAD_PREFIXES

_XVECTOR_PARTS = ("projector", "tdnn", "feature_extractor")


class HeadedBackbone(Backbone):
    """transformers' encoder, the choice of its layers, and a head.

    Parameter names are upstream's, those of its x-vector head included; its classifier and
    training objective, which do not change the embedding, are left out. Another head is ``head``.

    Args:
        encoder_config: Arguments of upstream's config; ``head``, the name of a head or
            ``{"name": ..., <options>}``; ``layers``, "last", "weighted_sum" or a layer's number.

    Raises:
        UserError: an unknown argument, or values that do not fit each other.
    """

    has_heads: ClassVar[bool] = True
    head_parts = HEAD_PREFIXES
    upstream: ClassVar[Upstream]

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        super().__init__()
        self.encoder_config = complete_ssl_config(self.upstream, encoder_config)
        self.add_module(self.upstream.prefix, build_upstream(self.upstream, self.encoder_config))
        self._build_head()

    @property
    def _model(self) -> Any:
        """transformers' model."""
        return getattr(self, self.upstream.prefix)

    @property
    def _encoder(self) -> Any:
        """The part of it that has the layers."""
        return self._model.encoder

    def _setting(self, common: str) -> Any:
        return self.encoder_config[self.upstream.name(common)]

    def _num_samples(self, num_frames: int) -> int:
        """Gives the samples of the shortest utterance that has so many frames."""
        raise NotImplementedError

    def _build_head(self) -> None:
        """Makes a new head with random weights, as ``encoder_config`` says."""
        config, hidden_size = self.encoder_config, self._setting("hidden_size")
        self.head = build_head(config["head"], hidden_size)
        self.layer_weights: nn.Parameter | None = None
        if config["layers"] == "weighted_sum":
            num_outputs, num_mixes = self._setting("num_hidden_layers") + 1, self._num_mixes
            shape = (num_outputs,) if num_mixes == 1 else (num_mixes, num_outputs)
            self.layer_weights = nn.Parameter(torch.full(shape, 1 / num_outputs))
        if self.head is None:
            tdnn_dim, self.embedding_dim = config["tdnn_dim"], config["xvector_output_dim"]
            self.projector = nn.Linear(hidden_size, tdnn_dim[0])
            tdnn = SimpleNamespace(**config)
            self.tdnn = nn.ModuleList(TDNNLayer(tdnn, index) for index in range(len(tdnn_dim)))
            self.feature_extractor = nn.Linear(2 * tdnn_dim[-1], self.embedding_dim)
            for name in _XVECTOR_PARTS:
                getattr(self, name).apply(self._initialise)
        else:
            self.embedding_dim = self.head.embedding_dim
        # A deviation needs two frames behind the x-vector's unpadded convolutions.
        fewest = 2 + self._num_context_frames if self.head is None else self.head.min_num_frames
        self.min_num_samples = self._num_samples(fewest)

    def _initialise(self, module: nn.Module) -> None:
        """Draws a linear layer of the x-vector head as upstream does."""
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=self._setting("initializer_range"))
            nn.init.zeros_(module.bias)

    @property
    def _num_mixes(self) -> int:
        return num_mixes_of(self.encoder_config["head"])

    @property
    def _num_context_frames(self) -> int:
        """Frames that the TDNN's unpadded convolutions take off an utterance."""
        kernels, dilations = (
            self.encoder_config[f"tdnn_{name}"] for name in ("kernel", "dilation")
        )
        return sum(
            (kernel - 1) * dilation for kernel, dilation in zip(kernels, dilations, strict=True)
        )

    def _embed(self, frames: list[torch.Tensor], num_frames: torch.Tensor | None) -> torch.Tensor:
        if self.head is not None:
            return self.head(*frames, num_frames=num_frames)
        (hidden_states,) = frames
        hidden_states = self.projector(hidden_states)
        for layer in self.tdnn:
            hidden_states = layer(hidden_states)
        if num_frames is not None:
            num_frames = num_frames - self._num_context_frames
        statistics = pool_statistics(hidden_states, num_frames)
        return self.feature_extractor(statistics.to(self.feature_extractor.weight.dtype))

    def _convolutions(self) -> list[nn.Module]:
        """Gives the convolutions on the waveform or its spectrogram."""
        return []

    def freeze(
        self, *, train_only_head: bool = False, freeze_feature_encoder: bool = False
    ) -> None:
        """Chooses what is trained; called with both False it makes everything trainable.

        Args:
            train_only_head: Train only the head and the weights of a sum of layers.
            freeze_feature_encoder: Do not train the convolutions on the input.

        Raises:
            UserError: the family has no convolutions, or the head nothing to train.
        """
        if freeze_feature_encoder and not self._convolutions():
            super().freeze(freeze_feature_encoder=True)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not train_only_head or name.startswith(HEAD_PREFIXES))
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise UserError(
                f"train_only_head: the {self.encoder_config['head']['name']} head has nothing to "
                "train. Leave train_only_head out, or take another head."
            )
        if freeze_feature_encoder:
            for module in self._convolutions():
                module.requires_grad_(False)

    def replace_head(self, head: str | dict[str, Any] | None, layers: str | int | None) -> bool:
        """Gives the encoder another head, untrained, or other layers below a new one.

        Args:
            head: Its name, or ``{"name": ..., <options>}``; None: as it is, but new.
            layers: "last", "weighted_sum" or the number of a layer; None: as they are.

        Returns:
            Whether anything was replaced: nothing is where all is as asked for.

        Raises:
            UserError: unknown or impossible values, or the layers wanted were cut off.
        """
        wanted = dict(self.encoder_config)
        del wanted["use_weighted_layer_sum"]  # follows from layers
        if head is not None:
            wanted["head"] = complete_head(head)
        if layers is not None:
            wanted["layers"] = layers
        elif num_mixes_of(wanted["head"]) > 1:
            del wanted["layers"]
        wanted = complete_ssl_config(self.upstream, wanted)
        if wanted == self.encoder_config:
            return False
        num_layers = self._setting("num_hidden_layers")
        needed = wanted["layers"] if type(wanted["layers"]) is int else num_layers
        if needed > len(self._encoder.layers):
            raise UserError(
                f"layers: {wanted['layers']!r} needs {needed} layers; this encoder was cut off "
                f"behind layer {len(self._encoder.layers)}. Start from the whole encoder."
            )
        del self._encoder.layers[needed:]
        for name in _XVECTOR_PARTS:
            if hasattr(self, name):
                delattr(self, name)
        self.encoder_config = wanted
        self._build_head()
        return True

    @property
    def head_needs_training(self) -> bool:
        """Whether a new head must be trained before an embedding means something."""
        return self.head is None or self.head.needs_training

    def enlarge_head(self, embedding_dim: int = 1024) -> None:
        """Replaces the x-vector linear layer by a new, untrained one.

        Raises:
            UserError: ``embedding_dim`` is not positive, or the head is another.
        """
        if embedding_dim < 1:
            raise UserError(f"embedding_dim must be at least 1, found {embedding_dim}.")
        if self.head is not None:
            raise UserError(
                f"enlarge_head is for the x-vector head, not for {self.encoder_config['head']}. "
                "Give that head the embedding size that you want."
            )
        old = self.feature_extractor
        new = nn.Linear(
            old.in_features, embedding_dim, device=old.weight.device, dtype=old.weight.dtype
        )
        self._initialise(new)
        self.feature_extractor = new.requires_grad_(old.weight.requires_grad)
        self.embedding_dim = embedding_dim
        self.encoder_config["xvector_output_dim"] = embedding_dim
        self._model.config.xvector_output_dim = embedding_dim
