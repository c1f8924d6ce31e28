"""The angular prototypical loss.

Source: J. S. Chung, J. Huh, S. Mun, M. Lee, H. S. Heo, S. Choe, C. Ham, S. Jung, B.-J. Lee, I. Han,
"In Defence of Metric Learning for Speaker Recognition", Interspeech 2020, arXiv:2003.11982.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speaker_encoder.losses.batch import group_by_speaker, positive_scale, require_positive


class AngularPrototypicalLoss(nn.Module):
    """`S[j,k] = w cos(e[j,1], c[k]) + b`, then softmax cross-entropy with `k = j`.

    `e[j,1]`, the query, is the first utterance of speaker j in the batch, and
    `c[k] = mean_{m > 1} e[k,m]` over the other ones, not normalised before the mean. `w` stays
    positive as in GE2E.

    Attributes:
        w: (1,) scale of the cosines.
        b: (1,) offset; the softmax does not depend on it.

    Args:
        init_w: initial scale, positive.
        init_b: initial offset.

    Raises:
        UserError: an `init_w` that is not positive.
    """

    def __init__(self, init_w: float = 10.0, init_b: float = -5.0) -> None:
        super().__init__()
        init_w = require_positive("angular_prototypical", "init_w", init_w)
        self.w = nn.Parameter(torch.tensor([init_w]))
        self.b = nn.Parameter(torch.tensor([float(init_b)]))

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
            groups = group_by_speaker(embeddings, labels, "angular_prototypical")  # (P, K, D)
            queries = F.normalize(groups[:, 0], dim=-1)
            prototypes = F.normalize(groups[:, 1:].mean(dim=1), dim=-1)
            w = positive_scale(self.w, self.training).to(groups.dtype)
            similarity = w * (queries @ prototypes.T) + self.b.to(groups.dtype)  # (P, P)
            return F.cross_entropy(similarity, torch.arange(len(groups), device=groups.device))
