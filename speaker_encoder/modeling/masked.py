"""Operations over time that see of a padded batch what each utterance alone would see.

Everywhere ``x`` is (B, ..., T'), time last, and ``num_frames`` is (B,) int64, the frames of each
utterance at that place of the network, or None: all rows are T' frames long.
"""

from __future__ import annotations

from typing import overload

import torch
from torch import nn

from speaker_encoder.modeling.mel import is_valid_frame


@overload
def frames_after(
    num_frames: int, kernel_size: int, stride: int = ..., padding: int = ..., dilation: int = ...
) -> int: ...
@overload
def frames_after(
    num_frames: torch.Tensor | None,
    kernel_size: int,
    stride: int = ...,
    padding: int = ...,
    dilation: int = ...,
) -> torch.Tensor | None: ...
def frames_after(
    num_frames: int | torch.Tensor | None,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> int | torch.Tensor | None:
    """Gives the number of frames that a convolution or pooling makes of ``num_frames``."""
    if num_frames is None:
        return None
    return (num_frames + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1


def own_frames(x: torch.Tensor, num_frames: torch.Tensor) -> torch.Tensor:
    """Gives (B, 1, ..., T') bool, true for the frames of each utterance."""
    valid = is_valid_frame(num_frames, x.shape[-1])
    for _ in range(x.ndim - 2):
        valid = valid.unsqueeze(1)
    return valid


def clear_padding(x: torch.Tensor, num_frames: torch.Tensor | None) -> torch.Tensor:
    """Sets what lies behind each end to 0, as a zero-padded convolution continues an utterance."""
    return x if num_frames is None else x.masked_fill(~own_frames(x, num_frames), 0.0)


def mean_over_time(x: torch.Tensor, num_frames: torch.Tensor | None) -> torch.Tensor:
    """Gives (B, ..., 1) means over the own frames."""
    if num_frames is None:
        return x.mean(dim=-1, keepdim=True)
    count = num_frames.reshape(-1, *([1] * (x.ndim - 1))).to(x.dtype)
    return clear_padding(x, num_frames).sum(dim=-1, keepdim=True) / count


def moments_over_time(
    x: torch.Tensor, num_frames: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gives (B, ..., 1) means and biased variances over the own frames."""
    mean = mean_over_time(x, num_frames)
    return mean, mean_over_time((x - mean).square(), num_frames)


def instance_norm(x: torch.Tensor, num_frames: torch.Tensor | None, eps: float) -> torch.Tensor:
    """Brings each row to zero mean and unit variance over its own frames, 0 behind them."""
    mean, variance = moments_over_time(x, num_frames)
    return clear_padding((x - mean) * torch.rsqrt(variance + eps), num_frames)


def softmax_over_time(scores: torch.Tensor, num_frames: torch.Tensor | None) -> torch.Tensor:
    """Gives weights over the own frames that sum to 1, 0 behind them."""
    if num_frames is not None:
        scores = scores.masked_fill(~own_frames(scores, num_frames), -torch.inf)
    return scores.softmax(dim=-1)


def maximum_over_time(x: torch.Tensor, num_frames: torch.Tensor | None) -> torch.Tensor:
    """Gives (B, ...) maxima over the own frames."""
    if num_frames is not None:
        x = x.masked_fill(~own_frames(x, num_frames), -torch.inf)
    return x.amax(dim=-1)


def weighted_mean(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Gives (B, C) means of (B, C, T') frames; ``weights`` sum to 1 over time."""
    return (x * weights).sum(dim=-1)


def weighted_statistics(
    x: torch.Tensor, weights: torch.Tensor, min_variance: float, max_variance: float | None = None
) -> torch.Tensor:
    """Gives (B, 2 C): weighted means and deviations of (B, C, T') frames.

    ``sum(w (x - mean)^2)`` equals the ``sum(w x^2) - mean^2`` of the papers and loses no digits.
    """
    mean = weighted_mean(x, weights)
    variance = weighted_mean((x - mean[..., None]).square(), weights)
    return torch.cat([mean, variance.clamp(min_variance, max_variance).sqrt()], dim=1)


class PaddedConv1d(nn.Conv1d):
    """A zero-padded convolution over (B, C, T')."""

    def forward(self, x: torch.Tensor, num_frames: torch.Tensor | None = None) -> torch.Tensor:
        """Gives (B, C', T''); ``num_frames`` are those of the input."""
        return super().forward(clear_padding(x, num_frames))


class PaddedConv2d(nn.Conv2d):
    """A zero-padded convolution over (B, C, F, T')."""

    def forward(self, x: torch.Tensor, num_frames: torch.Tensor | None = None) -> torch.Tensor:
        """Gives (B, C', F', T''); ``num_frames`` are those of the input."""
        return super().forward(clear_padding(x, num_frames))

    def frames_after(self, num_frames: torch.Tensor | None) -> torch.Tensor | None:
        """Gives the frames of each utterance behind this convolution."""
        stride, padding = self.stride[1], int(self.padding[1])
        return frames_after(num_frames, self.kernel_size[1], stride, padding)
