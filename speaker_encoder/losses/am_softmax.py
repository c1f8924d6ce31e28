"""Additive margin softmax (AM-softmax, CosFace).

Source: F. Wang, J. Cheng, W. Liu, H. Liu, "Additive Margin Softmax for Face Verification", IEEE
Signal Processing Letters 2018, arXiv:1801.05599, eq. 6; H. Wang et al., "CosFace", CVPR 2018.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from speaker_encoder.losses.classes import MarginSoftmax


class AMSoftmaxLoss(MarginSoftmax):
    """`mean_i( -log( exp(s (cos[i,y_i] - m)) / (exp(s (cos[i,y_i] - m)) + sum_{j != y_i} ...) ) )`.

    The other speakers' terms are `exp(s cos[i,j])`, with `cos[i,j] = cos(e_i, W[j])`.

    Args:
        embedding_dim: D.
        num_speakers: number of training speakers.
        margin: m, taken off the cosine to the own speaker.
        scale: s.
        initial_margin: as in `MarginSoftmax`.
        margin_start_step: as in `MarginSoftmax`.
        margin_end_step: as in `MarginSoftmax`.

    Raises:
        UserError: a value that is impossible.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_speakers: int,
        margin: float = 0.2,
        scale: float = 30.0,
        initial_margin: float = 0.0,
        margin_start_step: int = 0,
        margin_end_step: int = 0,
    ) -> None:
        schedule = (initial_margin, margin_start_step, margin_end_step)
        super().__init__("am_softmax", embedding_dim, num_speakers, margin, scale, *schedule)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of a batch.

        Args:
            embeddings: (B, D), raw or L2-normalised; half precision is computed in float32.
            labels: (B,) training speakers, 0 .. num_speakers - 1.

        Returns:
            Scalar.

        Raises:
            UserError: a label that is no training speaker.
        """
        embeddings, labels = self.prepare(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            cosines = self.cosines(embeddings)
            own = F.one_hot(labels, self.num_speakers).to(cosines.dtype)
            return F.cross_entropy(self.scale * (cosines - self.current_margin * own), labels)
