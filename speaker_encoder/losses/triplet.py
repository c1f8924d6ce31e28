"""The triplet loss, with negatives chosen in the batch.

Source: F. Schroff, D. Kalenichenko, J. Philbin, "FaceNet: A Unified Embedding for Face Recognition
and Clustering", CVPR 2015, arXiv:1503.03832, eq. 3 and 4; A. Hermans, L. Beyer, B. Leibe, "In
Defense of the Triplet Loss for Person Re-Identification", arXiv:1703.07737, eq. 5;
clovaai/voxceleb_trainer, `loss/triplet.py`.

Written here, not taken from pytorch-metric-learning: its TripletMarginLoss leaves triplets whose
loss is zero out of the mean by default, and it has no choice by rank.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speaker_encoder.errors import UserError
from speaker_encoder.losses.batch import group_by_speaker

MININGS = ("batch_hard", "semi_hard", "hard_rank")
_MINING_STREAM = 1


class TripletLoss(nn.Module):
    """`mean( max(0, d(a, p) - d(a, n) + m) )`, `d = || z - z' ||^2` of L2-normalised embeddings.

    Every utterance is an anchor a.

    - `batch_hard`: p is the farthest utterance of the own speaker, n the nearest of another one.
    - `semi_hard`: p is each other utterance of the own speaker; n is drawn from the utterances of
      other speakers with `d(a, p) < d(a, n) < d(a, p) + m`, from all of them where there is none.
    - `hard_rank`: p as before; with probability `hard_prob` n is drawn from the `hard_rank` + 1
      nearest utterances of other speakers, otherwise from all of them.

    voxceleb_trainer does the latter two with two utterances of each speaker, the first as
    anchor and the second ones as positives and negatives; its semi-hard fallback may draw the
    positive itself. What is drawn follows from (`seed`, the step that `set_step` told), so that
    all processes and a resumed run draw the same; evaluation draws as step 0.

    Args:
        mining: "batch_hard", "semi_hard" or "hard_rank".
        margin: m, positive.
        hard_rank: the highest rank, from 0, that is hard.
        hard_prob: how often a hard one is drawn, 0 to 1.
        seed: of the draws.

    Raises:
        UserError: a value that is impossible.
    """

    def __init__(
        self,
        mining: str = "batch_hard",
        margin: float = 0.1,
        hard_rank: int = 10,
        hard_prob: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if mining not in MININGS:
            raise UserError(f"triplet has the minings {', '.join(MININGS)}; found {mining!r}.")
        if not margin > 0 or not 0 <= hard_prob <= 1 or hard_rank < 0 or seed < 0:
            raise UserError(
                "triplet needs a positive margin, a hard_prob from 0 to 1, a hard_rank and a seed "
                f"of at least 0; found {margin!r}, {hard_prob!r}, {hard_rank!r}, {seed!r}."
            )
        self.mining = mining
        self.margin = float(margin)
        self.hard_rank = hard_rank
        self.hard_prob = float(hard_prob)
        self.seed = seed
        self.step = 0

    def set_step(self, step: int) -> None:
        """Tells the number of optimizer steps done, which the draws follow from."""
        self.step = step

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of a batch, triplets without loss included.

        Args:
            embeddings: (B, D), raw or L2-normalised; half precision is computed in float32.
            labels: (B,) integer speaker numbers in any order, every speaker K >= 2 times.

        Returns:
            Scalar.

        Raises:
            UserError: fewer than two speakers or utterances, or not equally many of each.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            groups = F.normalize(group_by_speaker(embeddings, labels, "triplet"), dim=-1)
            positive, negative = _distances(groups)
            if self.mining == "batch_hard":
                farthest, nearest = positive.amax(dim=1), negative.amin(dim=1)
                return (farthest - nearest + self.margin).relu().mean()
            negative = negative.sort(dim=1).values
            chosen = negative.gather(1, self._ranks(positive.detach(), negative.detach()))
            return (positive - chosen + self.margin).relu().mean()

    def _ranks(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Gives the rank of the negative of each anchor and positive.

        Args:
            positive: (B, K - 1) distances.
            negative: (B, M) distances, ascending.

        Returns:
            (B, K - 1) in 0 .. M - 1.
        """
        step = self.step if self.training else 0
        generator = np.random.default_rng([self.seed, _MINING_STREAM, step])
        draws = torch.from_numpy(generator.random((2, *positive.shape))).to(positive.device)
        whole = torch.full_like(positive, negative.shape[1], dtype=torch.long)
        if self.mining == "semi_hard":
            above = (negative[:, None] <= positive[:, :, None]).sum(dim=-1)
            below = (negative[:, None] < positive[:, :, None] + self.margin).sum(dim=-1)
            has_any = below > above
            first = torch.where(has_any, above, 0)
            count = torch.where(has_any, below - above, whole)
        else:
            first = torch.zeros_like(whole)
            hard = whole.clamp(max=self.hard_rank + 1)
            count = torch.where(draws[1] < self.hard_prob, hard, whole)
        return first + (draws[0] * count).long()

    def extra_repr(self) -> str:
        """The options, for the printed module."""
        return f"mining={self.mining!r}, margin={self.margin}"


def _distances(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances to the own speaker's other utterances and to all of other speakers.

    Args:
        groups: (P, K, D), rows L2-normalised.

    Returns:
        (P K, K - 1) and (P K, (P - 1) K).
    """
    num_speakers, num_utterances, _ = groups.shape
    rows = groups.flatten(0, 1)
    distances = 2 - 2 * rows @ rows.T  # (B, B)
    is_self = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    speakers = torch.arange(num_speakers, device=rows.device).repeat_interleave(num_utterances)
    is_own = speakers[:, None] == speakers
    positive = distances[is_own & ~is_self].unflatten(0, (len(rows), -1))
    return positive, distances[~is_own].unflatten(0, (len(rows), -1))
