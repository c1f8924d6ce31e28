"""What the model heard last, for the record."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from speaker_encoder.verification import in_batch_eer


@dataclass
class LastBatch:
    """The batch that was just trained on, as the model heard it.

    `loss` is all that was minimised, `loss_parts` by name what was added to the config's `loss` for
    it. `embeddings` (B, D) and `labels` (B,) are those of all processes, `input_values` and
    `utterances` those of this one.
    """

    loss: float
    embeddings: torch.Tensor
    labels: torch.Tensor
    input_values: torch.Tensor
    utterances: list[int] = field(default_factory=list)
    loss_parts: dict[str, float] = field(default_factory=dict)

    def eer(self) -> float | None:
        """Gives the in-batch EER, as the original logs it; None with one utterance of each."""
        if self.labels.unique(return_counts=True)[1].min() < 2:
            return None
        return in_batch_eer(self.embeddings.float().cpu().numpy(), self.labels.cpu().numpy())
