"""The wav2vec 2.0 family: convolutions on the waveform under a transformer.

wav2vec 2.0, HuBERT, UniSpeech-SAT and data2vec-audio here; WavLM, whose attention differs, in
``wavlm.py``.

Source: Baevski et al. 2020, "wav2vec 2.0"; Hsu et al. 2021, "HuBERT"; Chen et al. 2022,
"UniSpeech-SAT"; Baevski et al. 2022, "data2vec".
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import torch
from torch import nn

from speaker_encoder.modeling.ssl_backbone import SelfSupervisedBackbone
from speaker_encoder.modeling.ssl_config import Upstream
from speaker_encoder.modeling.ssl_parts import frame_mask, masked_group_norm

Length = TypeVar("Length", int, torch.Tensor)


class WaveformBackbone(SelfSupervisedBackbone):
    """Convolutions on the waveform -> positional convolution -> layers -> head."""

    is_normalized: ClassVar[bool | None] = True
    """The published models take normalised waveforms; None: those with layer norm in their
    convolutions do, those with group norm do not."""

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

    def _num_samples(self, num_frames: int) -> int:
        kernels, strides = self.encoder_config["conv_kernel"], self.encoder_config["conv_stride"]
        for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
            num_frames = (num_frames - 1) * stride + kernel
        return num_frames

    def _first_frames(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        num_frames = None if lengths is None else self.num_frames(lengths)
        hidden_states = self._convolve(input_values, lengths).transpose(1, 2)  # (B, T, C)
        hidden_states = self._project(hidden_states)
        if self.training:
            hidden_states = self._spec_augment(hidden_states, num_frames)
        is_frame = None
        if num_frames is not None:
            is_frame = frame_mask(num_frames, hidden_states.shape[1])
            # The positional convolution sees zeros behind an utterance's end, as it does alone.
            hidden_states = hidden_states.masked_fill(~is_frame[..., None], 0.0)
        hidden_states = hidden_states + self._positions(hidden_states, is_frame)
        if self._last_norm() is None:
            hidden_states = self._encoder.layer_norm(hidden_states)
        return self._encoder.dropout(hidden_states), num_frames

    def _convolve(self, input_values: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """Gives (B, C, T) features; none of an utterance's own frames sees behind its end."""
        layers: list[Any] = list(self._model.feature_extractor.conv_layers)
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

    def _project(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Gives (B, T, C) frames of the transformer's size."""
        hidden_states, _ = self._model.feature_projection(hidden_states)
        return hidden_states

    def _positions(
        self, hidden_states: torch.Tensor, is_frame: torch.Tensor | None
    ) -> torch.Tensor:
        """Gives the (B, T, C) positional embedding of frames that are zero behind an end."""
        return self._encoder.pos_conv_embed(hidden_states)

    def _last_norm(self) -> nn.Module | None:
        is_stable = self.encoder_config.get("do_stable_layer_norm", False)
        return self._encoder.layer_norm if is_stable else None

    @classmethod
    def _feature_settings(
        cls, encoder_config: dict[str, Any], settings: dict[str, Any] | None
    ) -> dict[str, Any]:
        if settings is not None:
            # Upstream's default where the key is left out.
            return {"do_normalize": bool(settings.get("do_normalize", True))}
        by_norm = encoder_config.get("feat_extract_norm") == "layer"
        return {"do_normalize": by_norm if cls.is_normalized is None else cls.is_normalized}

    def _convolutions(self) -> list[nn.Module]:
        return [self._model.feature_extractor]


class Wav2Vec2Backbone(WaveformBackbone):
    """wav2vec 2.0, XLSR and XLS-R."""

    encoder_kind: ClassVar[str] = "wav2vec2"
    upstream: ClassVar[Upstream] = Upstream("wav2vec2", "Wav2Vec2", "wav2vec2")


class HubertBackbone(WaveformBackbone):
    """HuBERT; transformers has no x-vector head for it."""

    encoder_kind: ClassVar[str] = "hubert"
    upstream: ClassVar[Upstream] = Upstream("hubert", "Hubert", "hubert")

    def _project(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self._model.feature_projection(hidden_states)

    def _positions(
        self, hidden_states: torch.Tensor, is_frame: torch.Tensor | None
    ) -> torch.Tensor:
        embed = self._encoder.pos_conv_embed
        if embed.batch_norm is None or is_frame is None:
            return embed(hidden_states)
        # Batch norm makes something of the zeros behind an end.
        normed = embed.batch_norm(hidden_states.transpose(1, 2))
        normed = normed.masked_fill(~is_frame[:, None], 0.0)
        return embed.activation(embed.padding(embed.conv(normed))).transpose(1, 2)


class UniSpeechSatBackbone(WaveformBackbone):
    """UniSpeech-SAT."""

    encoder_kind: ClassVar[str] = "unispeech-sat"
    upstream: ClassVar[Upstream] = Upstream("unispeech-sat", "UniSpeechSat", "unispeech_sat")
    is_normalized = None


class Data2VecAudioBackbone(WaveformBackbone):
    """data2vec on speech; its positions come from several convolutions."""

    encoder_kind: ClassVar[str] = "data2vec-audio"
    upstream: ClassVar[Upstream] = Upstream("data2vec-audio", "Data2VecAudio", "data2vec_audio")

    def _positions(
        self, hidden_states: torch.Tensor, is_frame: torch.Tensor | None
    ) -> torch.Tensor:
        positions = hidden_states.transpose(1, 2)  # (B, C, T)
        for layer in self._encoder.pos_conv_embed.layers:
            if is_frame is not None:
                positions = positions.masked_fill(~is_frame[:, None], 0.0)
            positions = layer(positions)
        return positions.transpose(1, 2)
