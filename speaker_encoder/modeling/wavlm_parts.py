"""WavLM's attention on torch's fused one."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from transformers.models.wavlm.modeling_wavlm import WavLMAttention


class SdpaWavLMAttention(WavLMAttention):
    """WavLM's gated relative position attention on torch's fused attention.

    Same parameters, names and results as upstream's class, which asks torch for the attention
    weights that nobody reads and repeats the position bias for each utterance.

    Source: Chen et al. 2022, "WavLM", eq. 3-6; ``WavLMAttention`` of transformers.
    """

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
            # As looked up, the heads are innermost in memory, which slows every layer's gating.
            position_bias = self.compute_bias(num_frames, num_frames).contiguous().unsqueeze(0)
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
