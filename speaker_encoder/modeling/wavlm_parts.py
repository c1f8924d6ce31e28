"""Pieces of the WavLM x-vector model that see each utterance's true length."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.models.wavlm.modeling_wavlm import WavLMAttention


class SdpaWavLMAttention(WavLMAttention):
    """WavLM's gated relative position attention on torch's fused attention.

    Same parameters, names and results as upstream's class, which asks torch for the attention
    weights that nobody reads and repeats the position bias for each utterance.

    Source: Chen et al. 2022, "WavLM", eq. 3-6; ``WavLMAttention`` of transformers.
    """

    @classmethod
    def like(cls, attention: WavLMAttention) -> SdpaWavLMAttention:
        """Gives a copy of upstream's attention, weights included."""
        copy = cls(
            embed_dim=attention.embed_dim,
            num_heads=attention.num_heads,
            dropout=attention.dropout,
            num_buckets=attention.num_buckets,
            max_distance=attention.max_distance,
            has_relative_position_bias=hasattr(attention, "rel_attn_embed"),
        )
        copy.load_state_dict(attention.state_dict())
        return copy

    def forward(  # type: ignore[override]
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_bias: torch.Tensor | None = None,
        index: int = 0,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None, torch.Tensor]:
        """Attends.

        Args:
            hidden_states: (B, T, C) frames.
            attention_mask: (B, T) bool, True for the frames of an utterance; None: all are.
            position_bias: (1, H, T, T) of the first layer, or None in the first layer.
            index: Upstream's, not used.
            **kwargs: Upstream's, not used.

        Returns:
            (B, T, C) frames, None in place of the attention weights, and the position bias.
        """
        batch_size, num_frames, _ = hidden_states.shape
        if position_bias is None:
            position_bias = self.compute_bias(num_frames, num_frames).unsqueeze(0)
        bias = self._gate(self._heads(hidden_states)) * position_bias  # (B, H, T, T)
        if attention_mask is not None:
            bias = bias.masked_fill_(~attention_mask[:, None, None, :], float("-inf"))
        query = self._heads(self.q_proj(hidden_states))
        attended = functional.scaled_dot_product_attention(
            query,
            self._heads(self.k_proj(hidden_states)),
            self._heads(self.v_proj(hidden_states)),
            attn_mask=bias.to(query.dtype),
            dropout_p=self.dropout if self.training else 0.0,
        )
        attended = attended.transpose(1, 2).reshape(batch_size, num_frames, self.embed_dim)
        return self.out_proj(attended), None, position_bias

    def _heads(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Gives (B, H, T, C / H)."""
        return hidden_states.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _gate(self, heads: torch.Tensor) -> torch.Tensor:
        """Gives (B, H, T, 1): how much each query frame listens to the position bias."""
        projected = self.gru_rel_pos_linear(heads).unflatten(-1, (2, 4)).sum(-1)
        gate_a, gate_b = torch.sigmoid(projected).chunk(2, dim=-1)
        return gate_a * (gate_b * self.gru_rel_pos_const - 1.0) + 2.0


def masked_group_norm(
    norm: nn.GroupNorm, frames: torch.Tensor, num_frames: torch.Tensor
) -> torch.Tensor:
    """Normalises each channel over an utterance's own frames.

    Args:
        norm: Group norm with one channel in each group, as in WavLM's first convolution.
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
