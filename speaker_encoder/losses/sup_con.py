"""The supervised contrastive loss (SupCon).

Source: P. Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, arXiv:2004.11362, eq. 2.

Written here, not taken from pytorch-metric-learning: its SupConLoss leaves anchors whose loss is
zero out of the mean by default.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speaker_encoder.losses.batch import group_by_speaker, require_positive


class SupConLoss(nn.Module):
    """`mean_i( mean_{p in P(i)}( -log( exp(z_i z_p / t) / sum_{a != i} exp(z_i z_a / t) ) ) )`.

    z are the L2-normalised embeddings and P(i) the other utterances of i's speaker. The paper
    writes the sum over i.

    Args:
        temperature: t, positive.

    Raises:
        UserError: a temperature that is not positive.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = require_positive("sup_con", "temperature", temperature)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of a batch.

        Args:
            embeddings: (B, D), raw or L2-normalised; half precision is computed in float32.
            labels: (B,) integer speaker numbers in any order, every speaker K >= 2 times.

        Returns:
            Scalar.

        Raises:
            UserError: fewer than two speakers or utterances, or not equally many of each.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            groups = F.normalize(group_by_speaker(embeddings, labels, "sup_con"), dim=-1)
            num_speakers, num_utterances, _ = groups.shape
            rows = groups.flatten(0, 1)
            is_self = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
            speakers = torch.arange(num_speakers, device=rows.device)
            speakers = speakers.repeat_interleave(num_utterances)
            is_positive = (speakers[:, None] == speakers) & ~is_self
            similarity = rows @ rows.T / self.temperature  # (B, B)
            total = similarity.masked_fill(is_self, -torch.inf).logsumexp(dim=1, keepdim=True)
            return (total - similarity)[is_positive].mean()  # every anchor has K - 1 positives

    def extra_repr(self) -> str:
        """The options, for the printed module."""
        return f"temperature={self.temperature}"
