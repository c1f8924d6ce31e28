"""Additive angular margin softmax (AAM-softmax, ArcFace), with sub-centres and inter-top-k penalty.

Source: J. Deng, J. Guo, N. Xue, S. Zafeiriou, "ArcFace: Additive Angular Margin Loss for Deep Face
Recognition", CVPR 2019, arXiv:1801.07698, eq. 3; J. Deng, J. Guo, T. Liu, M. Gong, S. Zafeiriou,
"Sub-center ArcFace", ECCV 2020; M. Zhao, Y. Ma, M. Liu, M. Xu, "Multi-query multi-head
attention pooling and Inter-topK penalty for speaker verification", ICASSP 2022, arXiv:2110.05042.

Written here, not taken from pytorch-metric-learning: its ArcFaceLoss has neither sub-centres nor
the penalty nor a margin that changes. ESPnet's class of the same parts keeps the penalty at zero
until its `update` is called; here it always counts.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from speaker_encoder.errors import UserError
from speaker_encoder.losses.classes import MarginSoftmax


class AAMSoftmaxLoss(MarginSoftmax):
    """Cross-entropy over `s cos(theta[i,j])`, with the margin inside the cosine.

    `cos(theta[i,j]) = max_k cos(e_i, W[j,k])` over the sub-centres. The own speaker's logit is
    `s cos(theta[i,y_i] + m)` as long as `theta <= pi - m`, and `s (cos(theta[i,y_i]) - m sin(m))`
    beyond, so that it keeps falling with the angle (as in the authors' code and in
    voxceleb_trainer). The `inter_top_k` nearest other speakers, all where there are fewer, have
    `s cos(theta[i,j] - m')`.

    While the margin rises, the penalty m' rises with it, in proportion.

    Args:
        embedding_dim: D.
        num_speakers: number of training speakers.
        margin: m in radians, below pi / 2.
        scale: s.
        easy_margin: the margin only where `cos(theta[i,y_i]) > 0`, the plain cosine elsewhere.
        sub_centres: K, vectors of each speaker.
        inter_top_k: how many of the nearest other speakers are penalised; 0: none.
        inter_top_k_penalty: m' in radians.
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
        easy_margin: bool = False,
        sub_centres: int = 1,
        inter_top_k: int = 0,
        inter_top_k_penalty: float = 0.06,
        initial_margin: float = 0.0,
        margin_start_step: int = 0,
        margin_end_step: int = 0,
    ) -> None:
        if sub_centres < 1 or inter_top_k < 0 or not inter_top_k_penalty >= 0:
            raise UserError(
                "aam_softmax needs sub_centres of at least 1, inter_top_k and inter_top_k_penalty "
                f"of at least 0; found {sub_centres!r}, {inter_top_k!r}, {inter_top_k_penalty!r}."
            )
        if not max(margin, initial_margin) < math.pi / 2:
            raise UserError(
                "aam_softmax's margin is an angle in radians, below pi / 2; found "
                f"{max(margin, initial_margin)!r}."
            )
        super().__init__(
            "aam_softmax",
            embedding_dim,
            num_speakers,
            margin,
            scale,
            initial_margin,
            margin_start_step,
            margin_end_step,
            sub_centres,
        )
        self.easy_margin = easy_margin
        self.inter_top_k = min(inter_top_k, num_speakers - 1)
        self.inter_top_k_penalty = float(inter_top_k_penalty)

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
            own = labels[:, None]
            logits = cosines.scatter(1, own, self._with_margin(cosines.gather(1, own)))
            if self.inter_top_k:
                others = cosines.detach().scatter(1, own, -torch.inf)
                nearest = others.topk(self.inter_top_k, dim=1).indices
                penalised = _turned(cosines.gather(1, nearest), -self._current_penalty())
                logits = logits.scatter(1, nearest, penalised)
            return F.cross_entropy(self.scale * logits, labels)

    def _with_margin(self, cosines: Tensor) -> Tensor:
        margin = self.current_margin
        turned = _turned(cosines, margin)
        if self.easy_margin:
            return torch.where(cosines > 0, turned, cosines)
        is_monotonic = cosines > math.cos(math.pi - margin)
        return torch.where(is_monotonic, turned, cosines - margin * math.sin(margin))

    def _current_penalty(self) -> float:
        risen = self.current_margin / self.margin if self.margin else 1.0
        return self.inter_top_k_penalty * risen


def _turned(cosines: Tensor, angle: float) -> Tensor:
    """`cos(theta + angle)` of `cos(theta)`."""
    # clamped: the gradient of the root at 0 is infinite
    sines = (1 - cosines.square()).clamp(min=torch.finfo(cosines.dtype).eps).sqrt()
    return cosines * math.cos(angle) - sines * math.sin(angle)
