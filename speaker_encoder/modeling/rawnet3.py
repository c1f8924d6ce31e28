"""RawNet3: learned band-pass filters on the waveform, Res2Net blocks, attentive statistics.

Source: Jung et al. 2022, "Pushing the limits of raw waveform speaker recognition";
``models/RawNet3.py`` and ``models/RawNetBasicBlock.py`` of voxceleb_trainer with what its
``MainModel`` fixes (context, summed inputs, logarithm, mean subtraction, no norm of the output).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.backbone import Backbone
from speaker_encoder.modeling.masked import (
    PaddedConv1d,
    clear_padding,
    frames_after,
    instance_norm,
    mean_over_time,
    moments_over_time,
    weighted_statistics,
)
from speaker_encoder.modeling.resnetse_parts import ChannelAttention, Frames
from speaker_encoder.modeling.torchaudio_mel import pre_emphasize
from speaker_encoder.modeling.voxceleb_trainer import TrainerBackbone, Weights, check_choice

KERNEL_SAMPLES = 251
MIN_HZ, MIN_BAND_HZ = 50.0, 50.0
WIDTH = 1536
ATTENTION_DIM = 128
MIN_VARIANCE, MAX_VARIANCE = 1e-4, 1e4
_POOLINGS = (5, 3)
_LEAST_FRAMES = 2
"""Frames behind the poolings: the attention sees an unbiased deviation."""


class SincFilters(nn.Module):
    """Band-pass filters on a waveform, each with a learned lower edge and width.

    Half of the filters are even, half odd, with the same bands: the real and the imaginary parts.

    Args:
        num_filters: Both halves.
        sampling_rate: Hz.

    Source: ``asteroid_filterbanks.ParamSincFB``; Pariente et al. 2020, "Filterbank design for
    end-to-end speech separation".
    """

    window: torch.Tensor
    phase: torch.Tensor

    def __init__(self, num_filters: int, sampling_rate: int) -> None:
        super().__init__()
        self.sampling_rate = sampling_rate
        half = KERNEL_SAMPLES // 2
        edges = _mel_edges(num_filters // 2, 30.0, sampling_rate / 2 - MIN_HZ - MIN_BAND_HZ)
        self.low_hz = nn.Parameter(edges[:-1, None].clone())
        self.band_hz = nn.Parameter(edges.diff()[:, None])
        window = torch.hamming_window(KERNEL_SAMPLES, periodic=False, dtype=torch.float64)
        self.register_buffer("window", window[:half].float())
        phase = 2 * math.pi * torch.arange(-half, 0.0) / sampling_rate
        self.register_buffer("phase", phase[None])

    def forward(self, waveforms: torch.Tensor, stride: int) -> torch.Tensor:
        """Gives (B, num_filters, T') of (B, 1, T)."""
        return functional.conv1d(waveforms, self.filters(), stride=stride)

    def filters(self) -> torch.Tensor:
        """Gives (num_filters, 1, 251) float32."""
        low = MIN_HZ + self.low_hz.float().abs()
        high = low + MIN_BAND_HZ + self.band_hz.float().abs()
        high = high.clamp(MIN_HZ, self.sampling_rate / 2)
        band, phase = high - low, self.phase.float()
        weight = self.window.float() / (phase / 2)
        at_low, at_high = low @ phase, high @ phase  # (N / 2, 125)
        even = (at_high.sin() - at_low.sin()) * weight
        odd = (at_low.cos() - at_high.cos()) * weight
        even = torch.cat([even, 2 * band, even.flip(1)], dim=1)
        odd = torch.cat([odd, torch.zeros_like(band), -odd.flip(1)], dim=1)
        return torch.cat([even / (2 * band), odd / (2 * band)])[:, None]


def _mel_edges(num_bands: int, low_hz: float, high_hz: float) -> torch.Tensor:
    """Gives (num_bands + 1,) Hz, equally far from each other on the mel scale."""
    low, high = (2595 * math.log10(1 + hz / 700) for hz in (low_hz, high_hz))
    mels = torch.linspace(low, high, num_bands + 1, dtype=torch.float64).float()
    return 700 * (10 ** (mels / 2595) - 1)  # rounded as upstream does


class FeatureMapScaling(nn.Module):
    """Shifts each channel by a learned value and scales it by what the means of all say."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels, 1))
        self.fc = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor, num_frames: Frames) -> torch.Tensor:
        """Gives ``x`` shifted and scaled; (B, C, T')."""
        mean = mean_over_time(x, num_frames)[..., 0]
        return (x + self.alpha) * torch.sigmoid(self.fc(mean))[..., None]


class Bottle2neck(nn.Module):
    """Res2Net block over time, pooled, with feature map scaling.

    Args:
        in_channels: C.
        channels: C'.
        dilation: Of the convolutions in the block.
        scale: Parts of the channels.
        pool: Frames that one is made of; 1: none is lost.
    """

    def __init__(
        self, in_channels: int, channels: int, dilation: int, scale: int, pool: int
    ) -> None:
        super().__init__()
        self.width = channels // scale
        self.pool = pool
        self.conv1 = nn.Conv1d(in_channels, self.width * scale, 1)
        self.bn1 = nn.BatchNorm1d(self.width * scale)
        self.convs = nn.ModuleList(
            PaddedConv1d(self.width, self.width, 3, dilation=dilation, padding=dilation)
            for _ in range(scale - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm1d(self.width) for _ in range(scale - 1))
        self.conv3 = nn.Conv1d(self.width * scale, channels, 1)
        self.bn3 = nn.BatchNorm1d(channels)
        self.afms = FeatureMapScaling(channels)
        if in_channels != channels:
            self.residual = nn.Sequential(nn.Conv1d(in_channels, channels, 1, bias=False))
        else:
            self.residual = nn.Sequential()

    def forward(self, x: torch.Tensor, num_frames: Frames) -> tuple[torch.Tensor, Frames]:
        """Gives (B, C', T' // pool) and its frames."""
        *parts, last = self.bn1(torch.relu(self.conv1(x))).split(self.width, dim=1)
        outputs: list[torch.Tensor] = []
        for part, convolution, norm in zip(parts, self.convs, self.bns, strict=True):
            part = part + outputs[-1] if outputs else part
            outputs.append(norm(torch.relu(convolution(part, num_frames))))
        out = torch.relu(self.conv3(torch.cat([*outputs, last], dim=1)))
        out = self.bn3(out) + self.residual(x)
        if self.pool > 1:
            out = _max_pool(out, self.pool)
            num_frames = frames_after(num_frames, self.pool, self.pool)
        return self.afms(out, num_frames), num_frames


def _max_pool(x: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Gives (B, C, T' // num_frames) maxima; torch's one-dimensional form fixes T' when traced."""
    return functional.max_pool2d(x[:, :, None], (1, num_frames))[:, :, 0]


class RawNet3(nn.Module):
    """Normalised waveforms to raw embeddings.

    Args:
        encoder_config: As ``RawNet3Backbone``.
        sampling_rate: Hz.
    """

    def __init__(self, encoder_config: dict[str, Any], sampling_rate: int) -> None:
        super().__init__()
        channels, scale = encoder_config["channels"], encoder_config["model_scale"]
        self.stride = encoder_config["sinc_stride"]
        self.norm = nn.InstanceNorm1d(1, eps=1e-4, affine=True)
        self.sinc = SincFilters(channels // 4, sampling_rate)
        self.layer1 = Bottle2neck(channels // 4, channels, 2, scale, _POOLINGS[0])
        self.layer2 = Bottle2neck(channels, channels, 3, scale, _POOLINGS[1])
        self.layer3 = Bottle2neck(channels, channels, 4, scale, 1)
        self.layer4 = nn.Conv1d(3 * channels, WIDTH, 1)
        num_weights = WIDTH if encoder_config["encoder_type"] == "ECA" else 1
        self.attention = ChannelAttention(3 * WIDTH, ATTENTION_DIM, num_weights)
        self.bn5 = nn.BatchNorm1d(2 * WIDTH)
        self.fc6 = nn.Linear(2 * WIDTH, encoder_config["n_out"])

    def forward(self, input_values: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """Gives (B, D) of (B, T) waveforms, zero behind each end."""
        x, num_frames = self._filter(input_values, lengths)
        x = x.to(self.fc6.weight.dtype)
        first, num_frames = self.layer1(x, num_frames)
        second, num_frames = self.layer2(first, num_frames)
        first = _max_pool(first, _POOLINGS[1])
        third, _ = self.layer3(first + second, num_frames)
        x = torch.relu(self.layer4(torch.cat([first, second, third], dim=1)))
        weights = self.attention(self._with_context(x, num_frames), num_frames)
        pooled = weighted_statistics(x, weights, MIN_VARIANCE, MAX_VARIANCE)
        embeddings: torch.Tensor = self.fc6(self.bn5(pooled))
        return embeddings

    def _filter(self, input_values: torch.Tensor, lengths: Frames) -> tuple[torch.Tensor, Frames]:
        """Gives (B, C / 4, T') float32 log-magnitudes and their frames, whatever the autocast."""
        with torch.autocast(input_values.device.type, enabled=False):
            x = pre_emphasize(input_values.float())[:, None]
            x = instance_norm(x, lengths, self.norm.eps)
            x = x * self.norm.weight.float()[:, None] + self.norm.bias.float()[:, None]
            x = torch.log(self.sinc(x, self.stride).abs() + 1e-6)
            num_frames = frames_after(lengths, KERNEL_SAMPLES, self.stride)
            return clear_padding(x - mean_over_time(x, num_frames), num_frames), num_frames

    def _with_context(self, x: torch.Tensor, num_frames: Frames) -> torch.Tensor:
        """Gives (B, 3 C, T'): each frame beside the utterance's means and unbiased deviations."""
        mean, variance = moments_over_time(x, num_frames)
        count: Any = x.shape[2] if num_frames is None else num_frames[:, None, None]
        variance = (variance * (count / (count - 1))).to(x.dtype)
        deviation = variance.clamp(MIN_VARIANCE, MAX_VARIANCE).sqrt()
        return torch.cat([x, mean.expand_as(x), deviation.expand_as(x)], dim=1)


class RawNet3Backbone(TrainerBackbone):
    """RawNet3.

    Args:
        encoder_config: ``encoder_type`` ECA (a weight of each channel) or ASP (one of all),
            ``n_out``, ``sinc_stride`` samples, ``channels`` and ``model_scale`` of the blocks.

    Raises:
        UserError: an unknown argument, or a value that does not fit.
    """

    encoder_kind: ClassVar[str] = "rawnet3"
    head_parts = ("network.attention.", "network.bn5.", "network.fc6.", "network.bn6.")
    defaults: ClassVar[dict[str, Any]] = {
        "encoder_type": "ECA",
        "n_out": 256,
        "sinc_stride": 10,
        "channels": 1024,
        "model_scale": 8,
    }
    traceless: ClassVar[dict[str, str]] = {"sinc_stride": "if it was trained with another"}

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        super().__init__(encoder_config)
        check_choice(self.encoder_config, self.encoder_kind, "ECA", "ASP")
        channels, scale = self.encoder_config["channels"], self.encoder_config["model_scale"]
        if scale < 2 or channels < 8 or channels % 8 or channels % scale:
            raise UserError(
                "encoder_config of the rawnet3 encoder: channels must be a multiple of 8 and of "
                f"model_scale, at least 2, found {channels} and {scale}."
            )
        self.network = RawNet3(self.encoder_config, Backbone.sampling_rate)
        num_steps = _LEAST_FRAMES * math.prod(_POOLINGS) - 1
        self.min_num_samples = KERNEL_SAMPLES + num_steps * self.encoder_config["sinc_stride"]

    def forward(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Gives (B, D) raw embeddings; train on crops of one length, for batch norm's sake."""
        embeddings: torch.Tensor = self.network(input_values, lengths)
        return embeddings

    @classmethod
    def read_architecture(cls, weights: Weights) -> dict[str, Any]:
        """Gives what the shapes tell; the stride of the filters is left to the default."""
        inner = weights["layer1.conv1.weight"].shape[0]
        return {
            "encoder_type": "ASP" if weights["attention.3.weight"].shape[0] == 1 else "ECA",
            "n_out": weights["fc6.weight"].shape[0],
            "channels": weights["layer1.conv3.weight"].shape[0],
            "model_scale": inner // weights["layer1.convs.0.weight"].shape[0],
        }

    @classmethod
    def own_names(cls, weights: Weights) -> Weights:
        """Gives the weights with the names of this class's ``state_dict()``.

        Upstream has two norms that its forward pass leaves out.
        """
        unused = ("preprocess.0.", "bn1.", "bn6.")
        return {
            f"network.{_own_name(name)}": tensor
            for name, tensor in weights.items()
            if not name.startswith(unused)
        }


def _own_name(name: str) -> str:
    renamed = {
        "conv1.filterbank.low_hz_": "sinc.low_hz",
        "conv1.filterbank.band_hz_": "sinc.band_hz",
        "conv1.filterbank.window_": "sinc.window",
        "conv1.filterbank.n_": "sinc.phase",
    }
    return renamed.get(name, name.replace("preprocess.1.", "norm."))
