"""Each family of encoders with the same weights and results, in operations that ONNX has.

What cannot be traced with a batch and a length that stay open is written otherwise here: torch's
short-time Fourier transform, and loops over the lengths of a batch. All else is the backbone's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.backbone import Backbone
from speaker_encoder.modeling.batching import normalize_utterances
from speaker_encoder.modeling.dvector import (
    HOP_SAMPLES,
    LSTM,
    MIN_COVERAGE,
    PARTIAL_FRAMES,
    PARTIAL_STEP,
    DVectorBackbone,
)
from speaker_encoder.modeling.ecapa import EcapaBackbone
from speaker_encoder.modeling.encoder import SpeakerEncoder
from speaker_encoder.modeling.mel import PowerMel
from speaker_encoder.modeling.wavlm import WavLMBackbone


class EncoderGraph(nn.Module):
    """A padded batch of waveforms in, L2-normalised embeddings out, as ``encode`` gives them.

    Args:
        encoder: What is exported; it is not changed.

    Raises:
        UserError: its family has no graph.
    """

    def __init__(self, encoder: SpeakerEncoder) -> None:
        super().__init__()
        kind = encoder.config.encoder_kind
        if kind not in GRAPHS:
            raise UserError(f"The {kind} encoder cannot be exported to ONNX.")
        self.do_normalize = encoder.config.do_normalize
        self.backbone = GRAPHS[kind](encoder.backbone).float().eval()

    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Embeds a batch.

        Args:
            input_values: (B, T) float32 waveforms in [-1, 1].
            attention_mask: (B, T) int32, 1 for samples, 0 for the padding behind them.

        Returns:
            (B, D) float32, rows L2-normalised.
        """
        lengths = attention_mask.long().sum(dim=1)
        input_values = input_values * attention_mask
        if self.do_normalize:
            input_values = normalize_utterances(input_values, lengths)
        return functional.normalize(self.backbone(input_values, lengths).float(), dim=-1)


class ConvolvedPowerMel(nn.Module):
    """``PowerMel`` with the Fourier transform as one convolution.

    Args:
        power_mel: Gives window, filters and hop.
    """

    basis: torch.Tensor
    filters: torch.Tensor

    def __init__(self, power_mel: PowerMel) -> None:
        super().__init__()
        self.hop, self.n_fft = power_mel.hop, power_mel.n_fft
        missing = self.n_fft - len(power_mel.window)
        window = functional.pad(
            power_mel.window.double(), (missing // 2, missing - missing // 2)
        )  # as torch.stft, in the middle of the frame
        sample = torch.arange(self.n_fft)
        frequency = torch.arange(self.n_fft // 2 + 1)[:, None]
        angle = (frequency * sample % self.n_fft).double() * (2 * torch.pi / self.n_fft)
        basis = torch.cat([torch.cos(angle) * window, torch.sin(angle) * window])
        self.register_buffer("basis", basis.float()[:, None])  # (2 F, 1, n_fft)
        self.register_buffer("filters", power_mel.filters.float())

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        """Gives (B, T // hop + 1, num_mels) float32 power of (B, T) waveforms."""
        padded = functional.pad(input_values, (self.n_fft // 2, self.n_fft // 2))
        spectrum = functional.conv1d(padded[:, None], self.basis, stride=self.hop)
        real, imaginary = spectrum.square().chunk(2, dim=1)  # (B, F, T') each
        return (real + imaginary).transpose(1, 2) @ self.filters


def _with_weights_of(new: Backbone, backbone: Backbone) -> None:
    new.load_state_dict(backbone.state_dict())


class EcapaGraph(EcapaBackbone):
    """ECAPA-TDNN; SpeechBrain's squeeze-and-excitation would fix the batch size.

    Args:
        backbone: The one to copy.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone.encoder_config)
        _with_weights_of(self, backbone)
        self.log_mel.power_mel = ConvolvedPowerMel(self.log_mel.power_mel)  # type: ignore[assignment]
        for module in self.network.modules():
            if hasattr(module, "se_block"):
                module.se_block = _SqueezeExcitation(module.se_block)


class _SqueezeExcitation(nn.Module):
    """``speechbrain.lobes.models.ECAPA_TDNN.SEBlock`` with a batch size that stays open."""

    def __init__(self, upstream: Any) -> None:
        super().__init__()
        self.conv1, self.conv2 = upstream.conv1, upstream.conv2

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        from speaker_encoder.modeling.ecapa_parts import frame_mask

        mask = frame_mask(lengths, x.shape[2])[:, None]
        mean = (x * mask).sum(dim=2, keepdim=True) / mask.sum(dim=2, keepdim=True)
        return torch.sigmoid(self.conv2(torch.relu(self.conv1(mean)))) * x


class WavLMGraph(WavLMBackbone):
    """WavLM; its first group norm takes the statistics of all utterances at once.

    Args:
        backbone: The one to copy.

    Raises:
        UserError: its head is an ECAPA-TDNN.
    """

    def __init__(self, backbone: Backbone) -> None:
        head = backbone.encoder_config["head"]["name"]
        if head == "ecapa":
            raise UserError("A wavlm encoder with the ecapa head has no ONNX graph.")
        super().__init__(backbone.encoder_config)
        _with_weights_of(self, backbone)

    def _convolve(self, input_values: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        assert lengths is not None
        hidden_states = input_values[:, None]
        layer: Any
        for index, layer in enumerate(self.wavlm.feature_extractor.conv_layers):
            norm = getattr(layer, "layer_norm", None)
            lengths = self._after_convolution(lengths, index)
            if isinstance(norm, nn.GroupNorm):
                hidden_states = _norm_own_frames(norm, layer.conv(hidden_states), lengths)
                hidden_states = layer.activation(hidden_states)
            else:
                hidden_states = layer(hidden_states)
        return hidden_states


def _norm_own_frames(
    norm: nn.GroupNorm, frames: torch.Tensor, num_frames: torch.Tensor
) -> torch.Tensor:
    """As ``masked_group_norm``: (B, C, T) frames, each channel normalised over its own frames."""
    is_frame = (torch.arange(frames.shape[2]) < num_frames[:, None])[:, None]  # (B, 1, T)
    count = num_frames[:, None, None].to(frames.dtype)
    mean = (frames * is_frame).sum(dim=2, keepdim=True) / count
    variance = ((frames - mean) * is_frame).square().sum(dim=2, keepdim=True) / count
    scale = norm.weight[:, None] * torch.rsqrt(variance + norm.eps)
    return (frames - mean) * scale + norm.bias[:, None]


STEP_SAMPLES = PARTIAL_STEP * HOP_SAMPLES
FEWEST_NEW = int(MIN_COVERAGE * PARTIAL_FRAMES * HOP_SAMPLES)
"""Samples of a further window of the d-vector encoder: ``num_partials`` as a formula."""


class DVectorGraph(DVectorBackbone):
    """The d-vector encoder; every utterance has as many windows as the longest, weighted 0 or 1.

    Args:
        backbone: The one to copy.

    Raises:
        UserError: its network is another than Resemblyzer's.
    """

    def __init__(self, backbone: Backbone) -> None:
        if backbone.encoder_config["network"] != LSTM:
            network = backbone.encoder_config["network"]
            raise UserError(f"A dvector encoder with network {network!r} has no ONNX graph.")
        super().__init__(backbone.encoder_config)
        _with_weights_of(self, backbone)
        self.mel = ConvolvedPowerMel(self.mel)  # type: ignore[assignment]
        self.layers = nn.ModuleList(
            _LstmLayer(self.lstm, layer) for layer in range(self.lstm.num_layers)
        )

    def _embed_windows(self, windows: torch.Tensor) -> torch.Tensor:
        frames = windows.transpose(0, 1)  # (160, N, num_mels)
        for layer in self.layers:
            frames = layer(frames)
        return functional.normalize(torch.relu(self.linear(frames[-1])), dim=-1)

    def forward(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Gives (B, D) float32 embeddings."""
        assert lengths is not None
        batch_size, num_samples = input_values.shape
        num_windows = torch.sym_max(1, (num_samples - FEWEST_NEW) // STEP_SAMPLES + 1)
        counts = ((lengths - FEWEST_NEW) // STEP_SAMPLES + 1).clamp(min=1)  # of each utterance
        start = torch.arange(num_windows) * PARTIAL_STEP
        room = (PARTIAL_FRAMES + PARTIAL_STEP) * HOP_SAMPLES
        mel = self.mel(functional.pad(input_values, (0, room)))  # (B, T', num_mels)
        frame = (start[:, None] + torch.arange(PARTIAL_FRAMES)).flatten()
        windows = mel[:, frame].reshape(-1, PARTIAL_FRAMES, mel.shape[2])  # (B K, 160, num_mels)
        partials = self._embed_windows(windows).reshape(batch_size, -1, self.embedding_dim)
        is_used = torch.arange(num_windows) < counts[:, None]
        return functional.normalize((partials * is_used[..., None]).sum(dim=1), dim=-1)


class _LstmLayer(nn.Module):
    """One layer of an LSTM as the operator of ONNX; only the exported graph computes it.

    torch would export a loop whose batch size is fixed.
    """

    weight: torch.Tensor
    recurrence: torch.Tensor
    bias: torch.Tensor

    def __init__(self, lstm: nn.LSTM, layer: int) -> None:
        super().__init__()
        self.hidden_size = lstm.hidden_size
        for name, parts in {
            "weight": ("weight_ih",),
            "recurrence": ("weight_hh",),
            "bias": ("bias_ih", "bias_hh"),
        }.items():
            reordered = []
            for part in parts:
                tensor = getattr(lstm, f"{part}_l{layer}").detach().float()
                input_gate, forget, cell, output = tensor.chunk(4)
                reordered += [input_gate, output, forget, cell]  # the order of ONNX
            self.register_buffer(name, torch.cat(reordered)[None])  # (1 direction, 4 H, ...)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Gives (T, N, H) hidden states of (T, N, C) frames."""
        hidden = torch.onnx.ops.symbolic(
            "LSTM",
            (frames, self.weight, self.recurrence, self.bias),
            {"hidden_size": self.hidden_size},
            dtype=frames.dtype,
            shape=(frames.shape[0], 1, frames.shape[1], self.hidden_size),
        )
        return hidden.squeeze(1)


GRAPHS: dict[str, Callable[[Any], Backbone]] = {
    "ecapa": EcapaGraph,
    "wavlm": WavLMGraph,
    "dvector": DVectorGraph,
}
"""Kind -> what makes the backbone's exportable copy."""
