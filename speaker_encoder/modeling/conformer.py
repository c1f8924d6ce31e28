"""The conformer block with relative positions, exact in a padded batch.

Source: Gulati et al. 2020, "Conformer: Convolution-augmented Transformer for Speech Recognition";
Dai et al. 2019, "Transformer-XL", section 3.3, for the positions.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.functional import glu, pad, scaled_dot_product_attention, silu

from speaker_encoder.modeling.masked import PaddedConv1d


def sinusoids(positions: torch.Tensor, size: int) -> torch.Tensor:
    """Gives (N, size) sines and cosines of (N,) positions.

    ``PE[p, 2 n] = sin(p / 10000^(2 n / size))``, ``PE[p, 2 n + 1] = cos(...)``

    Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.5.
    """
    exponent = torch.arange(0, size, 2.0, device=positions.device) / size
    angle = positions[:, None] * torch.exp(-math.log(10000.0) * exponent)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def relative_positions(num_frames: int, size: int, device: torch.device) -> torch.Tensor:
    """Gives (2 T' - 1, size): sinusoids of the distances T' - 1, ..., 0, ..., 1 - T'."""
    return sinusoids(torch.arange(num_frames - 1, -num_frames, -1.0, device=device), size)


class FeedForward(nn.Module):
    """Layer norm -> linear -> swish -> linear.

    Args:
        size: Features of a frame.
        hidden_size: Features between the two linear layers.
        dropout: Of both.
    """

    def __init__(self, size: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(size)
        self.linear_in = nn.Linear(size, hidden_size)
        self.linear_out = nn.Linear(hidden_size, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Gives (B, T', C)."""
        hidden = self.dropout(silu(self.linear_in(self.layer_norm(x))))
        return self.dropout(self.linear_out(hidden))


class RelativeAttention(nn.Module):
    """Layer norm -> self-attention that sees how far apart two frames are.

    ``A[i,j] = (q[i] + u) k[j] + (q[i] + v) r[i-j]``  (Dai et al., section 3.3)

    Args:
        size: Features of a frame.
        num_heads: Heads of the attention.
        dropout: Of its output.
        attention_dropout: Of its weights.
    """

    def __init__(self, size: int, num_heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_dropout = attention_dropout
        self.layer_norm = nn.LayerNorm(size)
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))
        self.position = nn.Linear(size, size, bias=False)
        self.content_bias = nn.Parameter(torch.empty(num_heads, 1, size // num_heads))
        self.position_bias = nn.Parameter(torch.empty(num_heads, 1, size // num_heads))
        for bias in (self.content_bias, self.position_bias):
            nn.init.xavier_uniform_(bias.data[:, 0])
        self.linear_out = nn.Linear(size, size)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: torch.Tensor, positions: torch.Tensor, is_own: torch.Tensor | None
    ) -> torch.Tensor:
        """Gives (B, T', C).

        Args:
            x: (B, T', C) frames.
            positions: (2 T' - 1, C) of ``relative_positions``.
            is_own: (B, T') bool, the frames that may be attended to; None: all.
        """
        x = self.layer_norm(x)
        query, key, value = (
            self._heads(linear(x)) for linear in (self.query, self.key, self.value)
        )
        distance = self._heads(self.position(positions.to(x.dtype))[None])  # (1, H, 2 T' - 1, d)
        bias = _by_pair((query + self.position_bias) @ distance.transpose(2, 3))
        bias = bias / math.sqrt(query.shape[-1])  # (B, H, T', T')
        if is_own is not None:
            bias = bias.masked_fill(~is_own[:, None, None], -torch.inf)
        hidden = scaled_dot_product_attention(
            query + self.content_bias,
            key,
            value,
            attn_mask=bias,
            dropout_p=self.attention_dropout if self.training else 0.0,
        )
        return self.dropout(self.linear_out(hidden.transpose(1, 2).flatten(2)))

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T', C) -> (B, H, T', C / H)."""
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class ConvolutionModule(nn.Module):
    """Layer norm -> gated linear unit -> depthwise convolution -> batch norm -> swish -> linear.

    Args:
        size: Features of a frame.
        kernel_size: Of the convolution over time, odd.
        dropout: Of the output.
    """

    def __init__(self, size: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(size)
        self.linear_in = nn.Linear(size, 2 * size)
        self.depthwise = PaddedConv1d(
            size, size, kernel_size, padding=kernel_size // 2, groups=size
        )
        self.batch_norm = nn.BatchNorm1d(size)
        self.linear_out = nn.Linear(size, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, num_frames: torch.Tensor | None) -> torch.Tensor:
        """Gives (B, T', C)."""
        gated = glu(self.linear_in(self.layer_norm(x)), dim=2).transpose(1, 2)  # (B, C, T')
        hidden = silu(self.batch_norm(self.depthwise(gated, num_frames))).transpose(1, 2)
        return self.dropout(self.linear_out(hidden))


class ConformerBlock(nn.Module):
    """Half a feed-forward -> attention -> convolution -> half a feed-forward -> layer norm.

    Args:
        size: Features of a frame.
        num_heads: Heads of the attention.
        hidden_size: Features inside the feed-forward modules.
        kernel_size: Of the convolution over time, odd.
        dropout: Of the outputs of all modules.
        attention_dropout: Of the weights of the attention.
    """

    def __init__(
        self,
        size: int,
        num_heads: int,
        hidden_size: int,
        kernel_size: int,
        dropout: float,
        attention_dropout: float,
    ) -> None:
        super().__init__()
        self.feed_forward_in = FeedForward(size, hidden_size, dropout)
        self.attention = RelativeAttention(size, num_heads, dropout, attention_dropout)
        self.convolution = ConvolutionModule(size, kernel_size, dropout)
        self.feed_forward_out = FeedForward(size, hidden_size, dropout)
        self.layer_norm = nn.LayerNorm(size)

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        num_frames: torch.Tensor | None,
        is_own: torch.Tensor | None,
    ) -> torch.Tensor:
        """Gives (B, T', C).

        Args:
            x: (B, T', C) frames.
            positions: (2 T' - 1, C) of ``relative_positions``.
            num_frames: (B,) frames of each utterance; None: T'.
            is_own: (B, T') bool, the frames of each utterance; None: all.
        """
        x = x + 0.5 * self.feed_forward_in(x)
        x = x + self.attention(x, positions, is_own)
        x = x + self.convolution(x, num_frames)
        x = x + 0.5 * self.feed_forward_out(x)
        normalized: torch.Tensor = self.layer_norm(x)
        return normalized


def _by_pair(by_distance: torch.Tensor) -> torch.Tensor:
    """Gives (B, H, T', T') for (i, j) of (B, H, T', 2 T' - 1) for (i, distance i - j).

    Column ``c`` of row ``i`` holds distance ``T' - 1 - c``, so that ``(i, j)`` is column
    ``T' - 1 - i + j``: rows of 2 T' values, read from the T'-th on, shift by one from row to row.
    """
    num_frames = by_distance.shape[2]
    shifted = pad(by_distance, (1, 0)).flatten(2)[..., num_frames:]
    return shifted.unflatten(2, (num_frames, -1))[..., :num_frames]
