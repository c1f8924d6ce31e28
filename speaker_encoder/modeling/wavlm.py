"""The WavLM series: transformers' modules under a forward pass that is exact in a padded batch.

Source: Chen et al. 2022, "WavLM: Large-Scale Self-Supervised Pre-Training for Full Stack Speech
Processing"; Snyder et al. 2018, "X-Vectors"; ``WavLMForXVector`` of transformers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.fsdp import is_fsdp_managed_module

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.backbone import Backbone, PretrainedParts
from speaker_encoder.modeling.wavlm_parts import (
    SdpaWavLMAttention,
    draw_spans,
    frame_mask,
    keep_in_graph,
    masked_group_norm,
    pool_statistics,
)
from speaker_encoder.modeling.wavlm_weights import (
    build_upstream,
    complete_wavlm_config,
    feature_settings,
    is_wavlm_folder,
    read_wavlm_folder,
)

Length = TypeVar("Length", int, torch.Tensor)


class WavLMBackbone(Backbone):
    """Convolutions -> transformer -> projection -> TDNN -> statistics pooling -> linear.

    The embedding is ``WavLMForXVector(...).embeddings``. Parameter names are upstream's; its
    classifier and training objective, which do not change the embedding, are left out.

    Args:
        encoder_config: Arguments of ``WavLMConfig``.

    Raises:
        UserError: an unknown argument, or values that do not fit each other.
    """

    encoder_kind: ClassVar[str] = "wavlm"

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        super().__init__()
        self.encoder_config = complete_wavlm_config(encoder_config)
        upstream = build_upstream(self.encoder_config)
        self.wavlm = upstream.wavlm
        layer: Any
        for layer in self.wavlm.encoder.layers:
            layer.attention = SdpaWavLMAttention.like(layer.attention)
        self.layer_weights: nn.Parameter | None = getattr(upstream, "layer_weights", None)
        self.projector = upstream.projector
        self.tdnn = upstream.tdnn
        self.feature_extractor = upstream.feature_extractor
        self.embedding_dim = self.encoder_config["xvector_output_dim"]
        self.min_num_samples = self._min_num_samples()

    def num_frames(self, num_samples: Length) -> Length:
        """Gives the frames that the convolutions make of a number of samples, 50 a second."""
        for index in range(len(self.encoder_config["conv_kernel"])):
            num_samples = self._after_convolution(num_samples, index)
        return num_samples

    def _after_convolution(self, length: Length, index: int) -> Length:
        kernel, stride = (
            self.encoder_config[name][index] for name in ("conv_kernel", "conv_stride")
        )
        return (length - kernel) // stride + 1

    @property
    def _num_context_frames(self) -> int:
        """Frames that the TDNN's unpadded convolutions take off an utterance."""
        kernels, dilations = (
            self.encoder_config["tdnn_kernel"],
            self.encoder_config["tdnn_dilation"],
        )
        return sum(
            (kernel - 1) * dilation for kernel, dilation in zip(kernels, dilations, strict=True)
        )

    def _min_num_samples(self) -> int:
        """Samples that leave two frames to pool: a deviation needs two."""
        length = 2 + self._num_context_frames
        kernels, strides = self.encoder_config["conv_kernel"], self.encoder_config["conv_stride"]
        for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
            length = (length - 1) * stride + kernel
        return length

    def forward(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Gives (B, D) raw embeddings."""
        num_frames = None if lengths is None else self.num_frames(lengths)
        hidden_states = self._convolve(input_values, lengths).transpose(1, 2)  # (B, T, C)
        hidden_states, _ = self.wavlm.feature_projection(hidden_states)
        if self.training:
            hidden_states = self._spec_augment(hidden_states, num_frames)
        hidden_states = self.projector(self._transform(hidden_states, num_frames))
        for layer in self.tdnn:
            hidden_states = layer(hidden_states)
        if num_frames is not None:
            num_frames = num_frames - self._num_context_frames
        statistics = pool_statistics(hidden_states, num_frames)
        return self.feature_extractor(statistics.to(self.feature_extractor.weight.dtype))

    def _convolve(self, input_values: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """Gives (B, C, T) features; none of an utterance's own frames sees behind its end."""
        layers: list[Any] = list(self.wavlm.feature_extractor.conv_layers)
        hidden_states = input_values[:, None].to(layers[0].conv.weight.dtype)
        if self.training and layers[0].gradient_checkpointing:
            # A reentrant checkpoint gives no gradient where its input needs none.
            hidden_states = hidden_states.requires_grad_(torch.is_grad_enabled())
        for index, layer in enumerate(layers):
            norm = getattr(layer, "layer_norm", None)
            if lengths is not None and isinstance(norm, nn.GroupNorm):
                num_frames = self._after_convolution(lengths, index)
                hidden_states = masked_group_norm(norm, layer.conv(hidden_states), num_frames)
                hidden_states = layer.activation(hidden_states)
            else:
                hidden_states = layer(hidden_states)
        return hidden_states

    def _spec_augment(
        self, hidden_states: torch.Tensor, num_frames: torch.Tensor | None
    ) -> torch.Tensor:
        """Masks spans of frames with the learnt vector, and spans of features with zero."""
        config, device = self.encoder_config, hidden_states.device
        batch_size, longest, hidden_size = hidden_states.shape
        masked: Any = getattr(self.wavlm, "masked_spec_embed", None)
        if not config["apply_spec_augment"]:
            return keep_in_graph(hidden_states, [masked])
        if config["mask_time_prob"] > 0:
            spans = draw_spans(
                [longest] * batch_size if num_frames is None else num_frames.tolist(),
                longest,
                *(config[f"mask_time_{name}"] for name in ("prob", "length", "min_masks")),
            ).to(device)
            embed = masked.to(hidden_states.dtype)
            hidden_states = torch.where(spans[..., None], embed, hidden_states)
        else:
            hidden_states = keep_in_graph(hidden_states, [masked])
        if config["mask_feature_prob"] > 0:
            spans = draw_spans(
                [hidden_size] * batch_size,
                hidden_size,
                *(config[f"mask_feature_{name}"] for name in ("prob", "length", "min_masks")),
            ).to(device)
            hidden_states = hidden_states.masked_fill(spans[:, None], 0.0)
        return hidden_states

    def _transform(
        self, hidden_states: torch.Tensor, num_frames: torch.Tensor | None
    ) -> torch.Tensor:
        """Gives (B, T, C): the last layer's frames, or the weighted sum of all layers' frames."""
        encoder, is_frame = self.wavlm.encoder, None
        if num_frames is not None:
            is_frame = frame_mask(num_frames, hidden_states.shape[1])
            # The positional convolution sees zeros behind an utterance's end, as it does alone.
            hidden_states = hidden_states.masked_fill(~is_frame[..., None], 0.0)
        hidden_states = hidden_states + encoder.pos_conv_embed(hidden_states)
        is_stable = self.encoder_config["do_stable_layer_norm"]
        if not is_stable:
            hidden_states = encoder.layer_norm(hidden_states)
        hidden_states = encoder.dropout(hidden_states)
        outputs = self._layer_outputs(hidden_states, is_frame)
        if self.layer_weights is None:
            (last,) = deque(outputs, maxlen=1)
            return encoder.layer_norm(last) if is_stable else last
        weights = self.layer_weights.softmax(dim=-1)
        mixed = sum(weight * output for weight, output in zip(weights, outputs, strict=True))
        # As upstream, which sums what the layers give before the last norm.
        return keep_in_graph(mixed, encoder.layer_norm.parameters() if is_stable else ())

    def _layer_outputs(
        self, hidden_states: torch.Tensor, is_frame: torch.Tensor | None
    ) -> Iterable[torch.Tensor]:
        """Yields the first layer's input, then what each layer gives; drops layers in training."""
        yield hidden_states
        encoder = self.wavlm.encoder
        layerdrop = self.encoder_config["layerdrop"] if self.training else 0.0
        # Where a layer's weights are spread over processes, all of them must run it.
        runs_all = is_deepspeed_zero3_enabled() or is_fsdp_managed_module(self)
        position_bias = None
        for index, layer in enumerate(encoder.layers):
            is_dropped = index > 0 and layerdrop > 0 and float(torch.rand(())) < layerdrop
            if is_dropped and not runs_all:
                hidden_states = keep_in_graph(hidden_states, layer.parameters())
            else:
                # By position: a reentrant checkpoint follows no tensor that comes by keyword.
                hidden_states, position_bias = layer(hidden_states, is_frame, position_bias)
            yield hidden_states

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Says if ``folder`` is a WavLM of transformers, with an x-vector head or without."""
        return is_wavlm_folder(folder)

    @classmethod
    def load_pretrained(cls, folder: Path, **options: Any) -> PretrainedParts:
        """Reads a ``WavLMForXVector`` or ``WavLMModel`` folder of transformers.

        Where the folder has no x-vector head, the head's names are in ``untrained_prefixes``.

        Raises:
            UserError: a file is missing or damaged, or the model has parts not known here.
        """
        return read_wavlm_folder(folder)

    @classmethod
    def default_feature_settings(cls, encoder_config: dict[str, Any]) -> dict[str, Any]:
        """Gives ``do_normalize`` as the published model of this architecture has it."""
        return feature_settings(complete_wavlm_config(encoder_config))

    def freeze(
        self, *, train_only_head: bool = False, freeze_feature_encoder: bool = False
    ) -> None:
        """Chooses what is trained; called with both False it makes everything trainable.

        Args:
            train_only_head: Train only the projection, the TDNN and the x-vector linear layer.
            freeze_feature_encoder: Do not train the convolutions on the waveform.
        """
        self.requires_grad_(True)
        if freeze_feature_encoder:
            self.wavlm.feature_extractor.requires_grad_(False)
        if train_only_head:
            self.requires_grad_(False)
            for part in (self.projector, self.tdnn, self.feature_extractor):
                part.requires_grad_(True)

    def enlarge_head(self, embedding_dim: int = 1024) -> None:
        """Replaces the x-vector linear layer by a new, untrained one.

        Raises:
            UserError: ``embedding_dim`` is not positive.
        """
        if embedding_dim < 1:
            raise UserError(f"embedding_dim must be at least 1, found {embedding_dim}.")
        old = self.feature_extractor
        new = nn.Linear(
            old.in_features, embedding_dim, device=old.weight.device, dtype=old.weight.dtype
        )
        nn.init.normal_(new.weight, std=self.encoder_config["initializer_range"])
        nn.init.zeros_(new.bias)
        self.feature_extractor = new.requires_grad_(old.weight.requires_grad)
        self.embedding_dim = embedding_dim
        self.encoder_config["xvector_output_dim"] = embedding_dim
        self.wavlm.config.xvector_output_dim = embedding_dim
