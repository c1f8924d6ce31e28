"""The encoder of Whisper, on utterances of any length.

Upstream pads or cuts every utterance to 30 s and attends to the padding too. Here an utterance is
as long as it is: the encoder sees its own frames, with the positions that they have upstream, and
nothing behind them; that is what makes short crops affordable in training and a padded batch
exact. One of more than 30 s (``max_source_positions``) goes through the layers in pieces of 30 s,
each with positions from 0, and the head sees the frames of all pieces. The log-mel of a shorter
utterance is upstream's, frame for frame; the frames that the layers make of it differ a little from
upstream's, whose attention hears the silence behind it.

Source: Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision";
``WhisperEncoder`` and ``WhisperFeatureExtractor`` of transformers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from speaker_encoder.modeling.mel import mel_filters_slaney
from speaker_encoder.modeling.ssl_backbone import SelfSupervisedBackbone
from speaker_encoder.modeling.ssl_config import Upstream
from speaker_encoder.modeling.ssl_parts import frame_mask, keep_in_graph

N_FFT = 400
HOP_SAMPLES = 160
STRIDE = 2
"""Mel frames of one frame of the encoder."""


class WhisperLogMel(nn.Module):
    """Whisper's log-mel: cut 8 (in log10) under the utterance's loudest value, then scaled.

    Args:
        num_mels: Mels of a frame.

    Source: ``WhisperFeatureExtractor`` of transformers.
    """

    window: torch.Tensor
    filters: torch.Tensor

    def __init__(self, num_mels: int) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(N_FFT))
        self.register_buffer("filters", mel_filters_slaney(num_mels, N_FFT, 16000))

    def forward(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Gives (B, num_mels, T) float32, zero behind an end, and the (B,) true lengths.

        Args:
            input_values: (B, N) waveforms, zero behind each end.
            lengths: (B,) samples of each; None: all are N.
        """
        half = N_FFT // 2
        with torch.autocast(input_values.device.type, enabled=False):
            start = input_values[:, 1 : half + 1].flip(1)  # mirrored, as upstream
            padded = functional.pad(torch.cat([start, input_values], dim=1), (0, half)).float()
            spectrum = torch.stft(
                padded, N_FFT, HOP_SAMPLES, window=self.window.float(), center=False,
                return_complex=True,
            )[..., :-1]  # fmt: skip
            power = spectrum.real.square() + spectrum.imag.square()  # (B, F, T)
            log_mel = (self.filters.float().T @ power).clamp(min=1e-10).log10()
        if lengths is None:
            loudest = log_mel.amax(dim=(1, 2), keepdim=True)
            return (torch.maximum(log_mel, loudest - 8.0) + 4.0) / 4.0, None
        num_frames = lengths // HOP_SAMPLES
        is_frame = frame_mask(num_frames, log_mel.shape[2])[:, None]
        loudest = log_mel.masked_fill(~is_frame, -torch.inf).amax(dim=(1, 2), keepdim=True)
        log_mel = (torch.maximum(log_mel, loudest - 8.0) + 4.0) / 4.0
        return log_mel.masked_fill(~is_frame, 0.0), num_frames


class WhisperBackbone(SelfSupervisedBackbone):
    """Log-mel -> two convolutions -> layers -> head; the decoder is left out."""

    encoder: Any
    encoder_kind: ClassVar[str] = "whisper"
    upstream: ClassVar[Upstream] = Upstream(
        "whisper",
        "Whisper",
        "encoder",
        part="Encoder",
        keys=(
            *("num_mel_bins", "d_model", "encoder_layers", "encoder_attention_heads"),
            *("encoder_ffn_dim", "encoder_layerdrop", "activation_function", "dropout"),
            *("attention_dropout", "activation_dropout", "init_std", "max_source_positions"),
        ),
        own_names={
            "hidden_size": "d_model",
            "num_hidden_layers": "encoder_layers",
            "layerdrop": "encoder_layerdrop",
            "initializer_range": "init_std",
        },
    )

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        super().__init__(encoder_config)
        self.log_mel = WhisperLogMel(self.encoder_config["num_mel_bins"])
        # Sinusoids, which upstream does not train either.
        positions = self.encoder.embed_positions
        table = positions.weight.detach()
        del positions.weight
        positions.register_buffer("weight", table)

    @property
    def _encoder(self) -> Any:
        return self._model

    def _num_samples(self, num_frames: int) -> int:
        # Mirroring the start needs one sample more than it mirrors.
        return max((STRIDE * (num_frames - 1) + 1) * HOP_SAMPLES, N_FFT // 2 + 1)

    def _frames(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None
    ) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        frames, num_frames = super()._frames(input_values, lengths)
        batch_size = len(input_values)
        # Pieces of an utterance, one behind the other: (B, pieces T, C).
        frames = [one.reshape(batch_size, -1, one.shape[-1]) for one in frames]
        if lengths is None:
            num_mels = input_values.shape[1] // HOP_SAMPLES
            return [one[:, : (num_mels + 1) // STRIDE] for one in frames], None
        assert num_frames is not None
        return frames, (lengths // HOP_SAMPLES + 1) // STRIDE

    def _first_frames(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As elsewhere, each piece of 30 s as a row of its own."""
        log_mel, num_mels = self.log_mel(input_values, lengths)
        longest = STRIDE * self.encoder_config["max_source_positions"]
        num_pieces = -(-log_mel.shape[2] // longest)
        if num_pieces > 1:
            total = log_mel.shape[2]
            if num_mels is None:
                num_mels = torch.full((len(log_mel),), total, device=log_mel.device)
            log_mel = functional.pad(log_mel, (0, num_pieces * longest - total))
            log_mel = log_mel.unflatten(2, (num_pieces, longest)).transpose(1, 2).flatten(0, 1)
            offset = longest * torch.arange(num_pieces, device=log_mel.device)
            num_mels = (num_mels[:, None] - offset).clamp(0, longest).flatten()
        log_mel = log_mel.to(self.encoder.conv1.weight.dtype)
        hidden_states = functional.gelu(self.encoder.conv1(log_mel))
        if num_mels is not None:
            # The second convolution sees zeros behind an utterance's end, as it does alone.
            is_mel = frame_mask(num_mels, hidden_states.shape[2])[:, None]
            hidden_states = hidden_states.masked_fill(~is_mel, 0.0)
        hidden_states = functional.gelu(self.encoder.conv2(hidden_states)).transpose(1, 2)
        positions = self.encoder.embed_positions.weight[: hidden_states.shape[1]]
        hidden_states = functional.dropout(
            hidden_states + positions, self.encoder_config["dropout"], self.training
        )
        # A piece behind an utterance's end has nothing to attend to; its frames are not read.
        num_frames = None if num_mels is None else ((num_mels + 1) // STRIDE).clamp(min=1)
        return hidden_states, num_frames

    def _layer_outputs(
        self, hidden_states: torch.Tensor, is_frame: torch.Tensor | None
    ) -> Iterable[torch.Tensor]:
        """As elsewhere; what the last layer gives is normed, as in upstream's hidden states."""
        norm, last = self.encoder.layer_norm, self.encoder_config["encoder_layers"]
        is_cut = len(self.encoder.layers) < last
        for index, output in enumerate(super()._layer_outputs(hidden_states, is_frame)):
            if is_cut:
                output = keep_in_graph(output, norm.parameters())
            yield norm(output) if index == last else output

    def _convolutions(self) -> list[nn.Module]:
        return [self.encoder.conv1, self.encoder.conv2]

    @classmethod
    def _constants(cls, encoder_config: dict[str, Any]) -> dict[str, torch.Tensor]:
        constants = WhisperLogMel(encoder_config["num_mel_bins"]).state_dict()
        return {f"log_mel.{name}": tensor for name, tensor in constants.items()}
