"""Heads on the frames of a self-supervised encoder: what makes an embedding of them.

Source: Snyder et al. 2018, "X-Vectors"; Okabe et al. 2018, "Attentive Statistics Pooling for Deep
Speaker Embedding"; Desplanques et al. 2020, "ECAPA-TDNN"; Peng et al. 2022, "An Attention-Based
Backend Allowing Efficient Fine-Tuning of Transformer Models for Speaker Verification" (MHFA).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.functional import pad

from speaker_encoder.modeling.backbone import complete_options
from speaker_encoder.modeling.ecapa import NETWORK_DEFAULTS, build_network, check_architecture
from speaker_encoder.modeling.registry import unknown_name
from speaker_encoder.modeling.speechbrain_parts import most_mirrored, own_ends
from speaker_encoder.modeling.ssl_parts import frame_mask

MIN_VARIANCE = 1e-9


class Head(nn.Module):
    """Gives one embedding of each utterance's frames.

    Args:
        hidden_size: Features of a frame.
        options: The completed options, with the keys of ``defaults``.

    Attributes:
        defaults: Options and their defaults.
        num_mixes: How many sums of layers ``forward`` takes, each with weights of its own.
        needs_training: Its random weights must be trained before an embedding means something.
        embedding_dim: Dimensions of an embedding.
        min_num_frames: Frames of the shortest utterance.
    """

    defaults: ClassVar[dict[str, Any]] = {}
    num_mixes: ClassVar[int] = 1
    needs_training: ClassVar[bool] = True
    embedding_dim: int
    min_num_frames: int = 1

    def forward(self, *frames: torch.Tensor, num_frames: torch.Tensor | None) -> torch.Tensor:
        """Embeds a batch.

        Args:
            *frames: (B, T, C), ``num_mixes`` of them.
            num_frames: (B,) true lengths; None: all are T. What lies behind an end is not read.

        Returns:
            (B, D) embeddings.
        """
        raise NotImplementedError


class MeanHead(Head):
    """The mean of an utterance's own frames; nothing to train."""

    needs_training = False

    def __init__(self, hidden_size: int, options: dict[str, Any]) -> None:
        super().__init__()
        self.embedding_dim = hidden_size

    def forward(self, *frames: torch.Tensor, num_frames: torch.Tensor | None) -> torch.Tensor:
        """Gives ``mean_t h[t]``, (B, C)."""
        (hidden,) = frames
        if num_frames is None:
            return hidden.mean(dim=1)
        is_frame = frame_mask(num_frames, hidden.shape[1])[..., None]
        return hidden.masked_fill(~is_frame, 0.0).sum(dim=1) / num_frames[:, None].to(hidden.dtype)


class AttentiveStatisticsHead(Head):
    """Weighted mean and deviation of the frames, then a linear layer.

    ``a[t] = softmax_t(v' tanh(W h[t] + b) + k)``, ``mu = sum_t a[t] h[t]``,
    ``sigma = sqrt(sum_t a[t] (h[t] - mu)^2)``  (Okabe et al., eq. 3-6)
    """

    defaults: ClassVar[dict[str, Any]] = {"attention_channels": 128, "embedding_dim": 192}

    def __init__(self, hidden_size: int, options: dict[str, Any]) -> None:
        super().__init__()
        self.embedding_dim = options["embedding_dim"]
        self.attention = nn.Sequential(
            nn.Linear(hidden_size, options["attention_channels"]),
            nn.Tanh(),
            nn.Linear(options["attention_channels"], 1),
        )
        self.linear = nn.Linear(2 * hidden_size, self.embedding_dim)

    def forward(self, *frames: torch.Tensor, num_frames: torch.Tensor | None) -> torch.Tensor:
        """Gives (B, D) embeddings."""
        (hidden,) = frames
        weights = softmax_over_frames(self.attention(hidden), num_frames)  # (B, T, 1)
        mean = (weights * hidden).sum(dim=1)
        variance = (weights * (hidden - mean[:, None]).square()).sum(dim=1)
        deviation = variance.clamp(min=MIN_VARIANCE).sqrt()
        return self.linear(torch.cat([mean, deviation], dim=-1))


class MHFAHead(Head):
    """Multi-head factorized attentive pooling, with a weighted sum of layers for keys and values.

    ``A = softmax_t(K Q)``, ``c[h] = sum_t A[t, h] V[t]``, embedding = linear(c[1], ..., c[H]),
    where K and V are linear compressions of their own weighted sums of all layers (Peng et al.).
    """

    defaults: ClassVar[dict[str, Any]] = {
        "num_heads": 32,
        "compression_dim": 128,
        "embedding_dim": 256,
    }
    num_mixes = 2

    def __init__(self, hidden_size: int, options: dict[str, Any]) -> None:
        super().__init__()
        num_heads, compressed = options["num_heads"], options["compression_dim"]
        self.embedding_dim = options["embedding_dim"]
        self.key = nn.Linear(hidden_size, compressed)
        self.value = nn.Linear(hidden_size, compressed)
        self.query = nn.Linear(compressed, num_heads)
        self.linear = nn.Linear(num_heads * compressed, self.embedding_dim)

    def forward(self, *frames: torch.Tensor, num_frames: torch.Tensor | None) -> torch.Tensor:
        """Gives (B, D) embeddings of the sum for keys and the sum for values."""
        of_keys, of_values = frames
        weights = softmax_over_frames(self.query(self.key(of_keys)), num_frames)  # (B, T, H)
        pooled = weights.transpose(1, 2) @ self.value(of_values)  # (B, H, d)
        return self.linear(pooled.flatten(1))


class EcapaHead(Head):
    """SpeechBrain's ``ECAPA_TDNN`` on the frames; each utterance sees its own mirrored end."""

    defaults: ClassVar[dict[str, Any]] = {
        name: value for name, value in NETWORK_DEFAULTS.items() if name != "input_size"
    }

    def __init__(self, hidden_size: int, options: dict[str, Any]) -> None:
        super().__init__()
        config = {**options, "input_size": hidden_size}
        check_architecture(config)
        self.embedding_dim = options["lin_neurons"]
        self.network = build_network(config)
        self.max_padding = most_mirrored(options["kernel_sizes"], options["dilations"])
        self.min_num_frames = self.max_padding + 1

    def forward(self, *frames: torch.Tensor, num_frames: torch.Tensor | None) -> torch.Tensor:
        """Gives (B, D) embeddings."""
        (hidden,) = frames
        if num_frames is None:
            return self.network(hidden).squeeze(1)
        is_frame = frame_mask(num_frames, hidden.shape[1])[..., None]
        hidden = pad(hidden.masked_fill(~is_frame, 0.0), (0, 0, 0, self.max_padding))
        # SpeechBrain takes lengths as fractions of T'; half a frame less survives the rounding.
        fractions = (num_frames - 0.5) / hidden.shape[1]
        with own_ends(num_frames):
            return self.network(hidden, fractions).squeeze(1)


XVECTOR = "xvector"
HEADS: dict[str, type[Head] | None] = {
    XVECTOR: None,
    "ecapa": EcapaHead,
    "mean": MeanHead,
    "attentive_statistics": AttentiveStatisticsHead,
    "mhfa": MHFAHead,
}
"""Name -> class; the x-vector head's parts stand in the backbone itself, as in transformers."""


def softmax_over_frames(scores: torch.Tensor, num_frames: torch.Tensor | None) -> torch.Tensor:
    """Gives (B, T, H) weights that sum to 1 over each utterance's own frames."""
    if num_frames is not None:
        is_frame = frame_mask(num_frames, scores.shape[1])[..., None]
        scores = scores.masked_fill(~is_frame, float("-inf"))
    return scores.softmax(dim=1)


def complete_head(head: object) -> dict[str, Any]:
    """Fills a head's options up with its defaults.

    Args:
        head: Its name, or ``{"name": ..., <options>}``.

    Returns:
        ``{"name": ..., <all options>}``.

    Raises:
        UserError: an unknown name or option, or a value that cannot be.
    """
    given = dict(head) if isinstance(head, dict) else {"name": head}
    name = given.pop("name", None)
    if not isinstance(name, str) or name not in HEADS:
        raise unknown_name("head", name, HEADS)
    head_class = HEADS[name]
    defaults = {} if head_class is None else head_class.defaults
    completed = complete_options(f"the {name} head", given, defaults)
    return {"name": name, **completed}


def build_head(head: dict[str, Any], hidden_size: int) -> Head | None:
    """Builds a completed head with random weights; None: the x-vector head."""
    head_class = HEADS[head["name"]]
    if head_class is None:
        return None
    return head_class(hidden_size, {key: head[key] for key in head_class.defaults})


def num_mixes_of(head: dict[str, Any]) -> int:
    """Gives how many sums of layers a head takes."""
    head_class = HEADS[head["name"]]
    return 1 if head_class is None else head_class.num_mixes
