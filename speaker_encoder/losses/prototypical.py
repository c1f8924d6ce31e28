"""The prototypical loss.

Source: J. Snell, K. Swersky, R. Zemel, "Prototypical Networks for Few-shot Learning", NIPS 2017,
arXiv:1703.05175, eq. 2; with one query, as J. S. Chung et al. 2020, arXiv:2003.11982.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speaker_encoder.losses.batch import group_by_speaker


class PrototypicalLoss(nn.Module):
    """`S[j,k] = -|| e[j,1] - c[k] ||^2`, then softmax cross-entropy with `k = j`.

    `e[j,1]`, the query, is the first utterance of speaker j in the batch, and
    `c[k] = mean_{m > 1} e[k,m]` over the other ones. The embeddings are not normalised: how far
    apart they are is what the loss sees.
    """

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The mean loss over the P speakers of a batch.

        Args:
            embeddings: (B, D), raw; half precision is computed in float32.
            labels: (B,) integer speaker numbers in any order, every speaker K >= 2 times.

        Returns:
            Scalar.

        Raises:
            UserError: fewer than two speakers or utterances, or not equally many of each.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            groups = group_by_speaker(embeddings, labels, "prototypical")  # (P, K, D)
            apart = groups[:, None, 0] - groups[:, 1:].mean(dim=1)  # (P, P, D)
            similarity = -apart.square().sum(dim=-1)
            return F.cross_entropy(similarity, torch.arange(len(groups), device=groups.device))
