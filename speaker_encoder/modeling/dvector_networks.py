"""The networks of Speaker_Embedding_Torch's d-vectors: a residual LSTM, and a Transformer."""

from __future__ import annotations

import torch
from torch import nn

from speaker_encoder.modeling.conformer import sinusoids

LOWEST_DB = -100.0
LARGEST = 4.0
NUM_HEADS = 4
DROPOUT = 0.1


def to_symmetric_decibel(power: torch.Tensor) -> torch.Tensor:
    """Gives power in dB, from -100 dB to 0 dB brought to between -4 and 4 and cut there."""
    decibel = 10 * torch.log10(power.clamp(min=10 ** (LOWEST_DB / 10)))
    return ((2 * LARGEST / -LOWEST_DB) * (decibel - LOWEST_DB) - LARGEST).clamp(max=LARGEST)


class ResidualLstm(nn.Module):
    """ReLU(linear) -> LSTM layers, each but the last added to its input -> last frame -> linear.

    Args:
        num_mels: Features of a frame.
        hidden_size: Of the layers.
        num_layers: LSTM layers.
        embedding_size: Dimensions of the embedding.
    """

    def __init__(
        self, num_mels: int, hidden_size: int, num_layers: int, embedding_size: int
    ) -> None:
        super().__init__()
        self.prenet = nn.Linear(num_mels, hidden_size)
        self.layers = nn.ModuleList(
            nn.LSTM(hidden_size, hidden_size, batch_first=True) for _ in range(num_layers)
        )
        self.linear = nn.Linear(hidden_size, embedding_size)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Gives (N, D) of (N, T, num_mels)."""
        hidden = torch.relu(self.prenet(windows))
        *residual_layers, last = self.layers
        for layer in residual_layers:
            hidden = hidden + layer(hidden)[0]
        _, (state, _) = last(hidden)
        embeddings: torch.Tensor = self.linear(state[-1])
        return embeddings


class FirstFrameTransformer(nn.Module):
    """ReLU(linear) -> positions -> Transformer layers -> layer norm of the first frame -> linear.

    ``x[t] + alpha * PE[t]``, alpha is learned.

    Args:
        num_mels: Features of a frame.
        hidden_size: Of the layers, a multiple of the four heads.
        num_layers: Transformer layers.
        embedding_size: Dimensions of the embedding.
    """

    def __init__(
        self, num_mels: int, hidden_size: int, num_layers: int, embedding_size: int
    ) -> None:
        super().__init__()
        self.prenet = nn.Linear(num_mels, hidden_size)
        self.alpha = nn.Parameter(torch.ones(()))
        self.dropout = nn.Dropout(DROPOUT)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                hidden_size, NUM_HEADS, 4 * hidden_size, DROPOUT, batch_first=True
            )
            for _ in range(num_layers)
        )
        self.layer_norm = nn.LayerNorm(hidden_size)
        self.linear = nn.Linear(hidden_size, embedding_size)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Gives (N, D) of (N, T, num_mels)."""
        hidden = torch.relu(self.prenet(windows))
        frames = torch.arange(float(windows.shape[1]), device=windows.device)
        positions = sinusoids(frames, hidden.shape[2]).to(hidden.dtype)
        hidden = self.dropout(hidden + self.alpha * positions)
        for layer in self.layers:
            hidden = layer(hidden)
        embeddings: torch.Tensor = self.linear(self.layer_norm(hidden[:, 0]))
        return embeddings


NETWORKS: dict[str, type[ResidualLstm] | type[FirstFrameTransformer]] = {
    "residual_lstm": ResidualLstm,
    "transformer": FirstFrameTransformer,
}
"""Value of ``network`` in ``encoder_config`` -> class; ``lstm`` is Resemblyzer's own."""
