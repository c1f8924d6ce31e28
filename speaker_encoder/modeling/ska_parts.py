"""Convolutions that choose between kernel sizes: the blocks of SKA-TDNN.

Source: Mun et al. 2022, section 2; the modules have the names of the authors' code.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from speaker_encoder.modeling.masked import PaddedConv1d, PaddedConv2d, mean_over_time

KERNEL_SIZES = (5, 7)
Frames = torch.Tensor | None


class KernelAttention(nn.Module):
    """Weights of the kernel sizes, one distribution for each channel (or each frequency band).

    ``z = relu(W s)``, ``a[k] = softmax_k(V[k] z)``  (Li et al. 2019, "Selective Kernel Networks")

    Args:
        width: Channels, or bands.
        reduction: ``z`` has ``width // reduction`` values, at least 16.
    """

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        reduced = max(16, width // reduction)
        self.fc = nn.Linear(width, reduced)
        self.fcs = nn.ModuleList(nn.Linear(reduced, width) for _ in KERNEL_SIZES)

    def choose(self, outputs: torch.Tensor, mean: torch.Tensor, dim: int) -> torch.Tensor:
        """Mixes the outputs of the kernel sizes.

        Args:
            outputs: (K, B, C, ..., T') of the K kernel sizes.
            mean: (B, width) the mean of their sum over all but ``dim``.
            dim: The dimension of ``outputs`` that ``width`` counts.
        """
        hidden = torch.relu(self.fc(mean))
        weights = torch.stack([linear(hidden) for linear in self.fcs]).softmax(dim=0)
        shape = [*weights.shape[:2], *[1] * (outputs.ndim - 2)]
        shape[dim] = weights.shape[2]
        return (outputs * weights.reshape(shape)).sum(dim=0)


class SelectiveConv2d(KernelAttention):
    """A convolution over (B, C, F, T') that chooses its kernel size for each band or channel.

    Args:
        channels: C.
        num_bands: F.
        chooses_by_band: Of each frequency band (fwSKA); else of each channel (cwSKA).
    """

    def __init__(self, channels: int, num_bands: int, *, chooses_by_band: bool) -> None:
        super().__init__(num_bands if chooses_by_band else channels, reduction=8)
        self.chooses_by_band = chooses_by_band
        self.convs: Iterable[Any] = nn.ModuleList(
            _with_norm(PaddedConv2d(channels, channels, k, padding=k // 2), nn.BatchNorm2d)
            for k in KERNEL_SIZES
        )

    def forward(self, x: torch.Tensor, num_frames: Frames) -> torch.Tensor:
        """Gives (B, C, F, T')."""
        outputs = _convolve(self.convs, x, num_frames)  # (K, B, C, F, T')
        mean = mean_over_time(outputs.sum(dim=0), num_frames)[..., 0]  # (B, C, F)
        if self.chooses_by_band:
            return self.choose(outputs, mean.mean(dim=1), 3)
        return self.choose(outputs, mean.mean(dim=2), 2)


class FrontBlock(nn.Module):
    """Residual block of the front: a convolution, then one that chooses by band, then by channel.

    Args:
        channels: C.
        num_bands: F.
    """

    def __init__(self, channels: int, num_bands: int) -> None:
        super().__init__()
        self.conv1 = PaddedConv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.skfwse = SelectiveConv2d(channels, num_bands, chooses_by_band=True)
        self.skcwse = SelectiveConv2d(channels, num_bands, chooses_by_band=False)

    def forward(self, x: torch.Tensor, num_frames: Frames) -> torch.Tensor:
        """Gives (B, C, F, T')."""
        hidden = self.bn1(torch.relu(self.conv1(x, num_frames)))
        hidden = self.skcwse(self.skfwse(hidden, num_frames), num_frames)
        return torch.relu(hidden + x)


class SqueezeExcitation(nn.Module):
    """Scales each channel by what the whole utterance says of it.

    Args:
        channels: C.
        hidden_size: Hidden channels.
    """

    def __init__(self, channels: int, hidden_size: int = 128) -> None:
        super().__init__()
        self.se = nn.Sequential(
            nn.Identity(),
            nn.Conv1d(channels, hidden_size, 1),
            nn.ReLU(),
            nn.BatchNorm1d(hidden_size),
            nn.Conv1d(hidden_size, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor, num_frames: Frames) -> torch.Tensor:
        """Gives (B, C, T')."""
        gate: torch.Tensor = self.se(mean_over_time(x, num_frames))
        return x * gate


class MultiScaleBlock(nn.Module):
    """Res2Net block whose convolutions choose their kernel size for each channel (msSKA).

    Args:
        channels: Of input and output.
        dilation: Of its convolutions.
        scale: Into how many groups of channels it splits.
    """

    def __init__(self, channels: int, dilation: int, scale: int) -> None:
        super().__init__()
        self.width = channels // scale
        self.conv1 = nn.Conv1d(channels, self.width * scale, 1)
        self.bn1 = nn.BatchNorm1d(self.width * scale)
        self.skconvs: Iterable[Any] = nn.ModuleList(
            nn.ModuleList(_dilated(self.width, k, dilation) for k in KERNEL_SIZES)
            for _ in range(scale - 1)
        )
        self.skse = KernelAttention(self.width, reduction=4)
        self.conv3 = nn.Conv1d(self.width * scale, channels, 1)
        self.bn3 = nn.BatchNorm1d(channels)
        self.se = SqueezeExcitation(channels)

    def forward(self, x: torch.Tensor, num_frames: Frames) -> torch.Tensor:
        """Gives (B, C, T')."""
        *groups, last = self.bn1(torch.relu(self.conv1(x))).split(self.width, dim=1)
        outputs: list[torch.Tensor] = []
        for group, branches in zip(groups, self.skconvs, strict=True):
            group = group + outputs[-1] if outputs else group
            scales = _convolve(branches, group, num_frames)  # (K, B, C / scale, T')
            mean = mean_over_time(scales.sum(dim=0), num_frames)[..., 0]
            outputs.append(self.skse.choose(scales, mean, 2))
        hidden = self.conv3(torch.cat([*outputs, last], dim=1))
        excited: torch.Tensor = self.se(self.bn3(torch.relu(hidden)), num_frames)
        return excited + x


def _dilated(width: int, kernel_size: int, dilation: int) -> nn.Sequential:
    padding = kernel_size // 2 * dilation
    convolution = PaddedConv1d(width, width, kernel_size, padding=padding, dilation=dilation)
    return _with_norm(convolution, nn.BatchNorm1d)


def _with_norm(
    convolution: PaddedConv1d | PaddedConv2d, norm: type[nn.BatchNorm1d] | type[nn.BatchNorm2d]
) -> nn.Sequential:
    parts = {"conv": convolution, "relu": nn.ReLU(), "bn": norm(convolution.out_channels)}
    return nn.Sequential(OrderedDict(parts))


def _convolve(branches: Iterable[Any], x: torch.Tensor, num_frames: Frames) -> torch.Tensor:
    """Gives (K, B, C, ..., T') of the kernel sizes; what lies behind an end is of no use."""
    return torch.stack([b.bn(b.relu(b.conv(x, num_frames))) for b in branches])
