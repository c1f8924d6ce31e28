"""What a speaker encoder returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class SpeakerEncoderOutput(ModelOutput):
    """What a speaker encoder gives.

    Attributes:
        loss: Scalar, only when a loss is attached and labels were given.
        embeddings: (B, D) float32, raw as the backbone gives them, not L2-normalised.
    """

    loss: torch.FloatTensor | None = None
    embeddings: torch.FloatTensor | None = None
