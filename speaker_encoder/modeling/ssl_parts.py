"""Pieces of a speech encoder that see each utterance's true length."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def masked_group_norm(
    norm: nn.GroupNorm, frames: torch.Tensor, num_frames: torch.Tensor
) -> torch.Tensor:
    """Normalises each channel over an utterance's own frames.

    Args:
        norm: Group norm with one channel in each group, as in a first convolution.
        frames: (B, C, T).
        num_frames: (B,) true lengths.

    Returns:
        (B, C, T) ``(x - mean) / sqrt(variance + eps) * weight + bias``; what lies behind an
        utterance's end is finite and means nothing.
    """
    assert norm.num_groups == norm.num_channels
    statistics = [
        torch.var_mean(frames[row, :, :length].float(), dim=-1, correction=0)
        for row, length in enumerate(num_frames.tolist())
    ]
    variance = torch.stack([variance for variance, _ in statistics])  # (B, C)
    mean = torch.stack([mean for _, mean in statistics])
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    shift = norm.bias - mean * scale
    return torch.addcmul(shift[..., None], frames, scale[..., None]).to(frames.dtype)


def pool_statistics(frames: torch.Tensor, num_frames: torch.Tensor | None) -> torch.Tensor:
    """Gives mean and standard deviation of each utterance's own frames.

    Args:
        frames: (B, T, C).
        num_frames: (B,) true lengths, at least 2; None: all are T.

    Returns:
        (B, 2 C) float32: mean, then the unbiased standard deviation. The gradient is zero, not
        NaN, where a deviation is zero.

    Source: Snyder et al. 2018, "X-Vectors", statistics pooling.
    """
    frames = frames.float()
    if num_frames is None:
        return torch.cat([frames.mean(dim=1), frames.std(dim=1)], dim=-1)
    is_frame = frame_mask(num_frames, frames.shape[1])[..., None]  # (B, T, 1)
    count = num_frames[:, None].to(frames.dtype)
    mean = frames.masked_fill(~is_frame, 0.0).sum(dim=1) / count
    centred = (frames - mean[:, None]).masked_fill(~is_frame, 0.0)
    variance = centred.square().sum(dim=1) / (count - 1)
    is_constant = variance == 0
    deviation = variance.masked_fill(is_constant, 1.0).sqrt().masked_fill(is_constant, 0.0)
    return torch.cat([mean, deviation], dim=-1)


def frame_mask(num_frames: torch.Tensor, longest: int) -> torch.Tensor:
    """Gives (B, longest) bool, True for the frames before each utterance's end."""
    return torch.arange(longest, device=num_frames.device) < num_frames[:, None]


def draw_spans(
    lengths: Iterable[int], size: int, probability: float, span_length: int, min_spans: int
) -> torch.Tensor:
    """Draws the spans that SpecAugment masks, from torch's CPU generator.

    Args:
        lengths: True length of each utterance along the masked axis, at most ``size``.
        size: Length of the masked axis.
        probability: Share of the axis to mask; spans may overlap, so less is masked.
        span_length: Length of a span.
        min_spans: Least spans of an utterance that has room for them.

    Returns:
        (B, size) bool on the CPU, True where masked.

    Source: Park et al. 2019, "SpecAugment"; ``_compute_mask_indices`` of transformers, which
    draws from numpy's global generator and refuses a batch shorter than one span.
    """
    rounding = float(torch.rand(()))
    rows = []
    for length in lengths:
        room = max(length - span_length + 1, 0)
        num_spans = max(int(probability * length / span_length + rounding), min_spans)
        num_spans = min(num_spans, size // span_length, room)
        row = torch.zeros(size, dtype=torch.bool)
        starts = torch.randperm(room)[:num_spans]
        row[(starts[:, None] + torch.arange(span_length)).flatten()] = True
        rows.append(row)
    return torch.stack(rows)


def keep_in_graph(
    hidden_states: torch.Tensor, parameters: Iterable[nn.Parameter | None]
) -> torch.Tensor:
    """Makes the loss depend on parameters that a training step leaves out, with gradient zero.

    Data parallel training waits for the gradient of every parameter: without this it needs
    ``find_unused_parameters``, which costs a walk over the graph at each step.

    Args:
        hidden_states: Any tensor on the way to the loss.
        parameters: What is left out; None and frozen ones are passed over.

    Returns:
        ``hidden_states``, unchanged in value.
    """
    if not torch.is_grad_enabled():
        return hidden_states
    left_out = [one for one in parameters if one is not None and one.requires_grad]
    if not left_out:
        return hidden_states
    return hidden_states + 0.0 * torch.stack([one.flatten()[0].float() for one in left_out]).sum()
