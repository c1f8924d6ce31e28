"""The normalised temperature-scaled cross-entropy of SimCLR (NT-Xent), on crops of one utterance.

Source: T. Chen, S. Kornblith, M. Norouzi, G. Hinton, "A Simple Framework for Contrastive Learning
of Visual Representations", ICML 2020, arXiv:2002.05709, eq. 1.

Written here, not taken from pytorch-metric-learning: its NTXentLoss has no pairs of views, and adds
a small number inside the logarithm.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speaker_encoder.errors import UserError
from speaker_encoder.losses.batch import group_by_speaker, require_positive


class NTXentLoss(nn.Module):
    """`mean over the 2 N rows of -log( exp(z_i z_j / t) / sum_{k != i} exp(z_i z_k / t) )`.

    z are the L2-normalised embeddings and j is the other view of i's utterance. Labels say nothing
    of speakers here, but which rows are views of one utterance; the views of an utterance are
    numbered in the order of the batch. For each pair of `pairs` the loss is computed over the 2 N
    rows of these two views alone, and the losses of the pairs are summed.

    Args:
        temperature: t, positive.
        pairs: which views, numbered from 0, should be alike: ESPnet-SPK has the halves
            of a crop and their shifted copies as 4 views and [[0, 1], [0, 2], [1, 3]].

    Raises:
        UserError: a temperature that is not positive, or a pair that is not two different views.
    """

    only_for_training = True

    def __init__(
        self, temperature: float = 0.5, pairs: Sequence[Sequence[int]] = ((0, 1),)
    ) -> None:
        super().__init__()
        self.temperature = require_positive("nt_xent", "temperature", temperature)
        self.pairs = tuple(tuple(pair) for pair in pairs)
        views = {view for pair in self.pairs for view in pair}
        if any(len(pair) != 2 or len(set(pair)) != 2 for pair in self.pairs) or (
            not views or views != set(range(len(views)))
        ):
            raise UserError(
                "nt_xent's pairs are two different views each, numbered from 0 with none left "
                f"out, such as [[0, 1]]; found {[list(pair) for pair in self.pairs]}."
            )
        self.num_views = len(views)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of a batch, summed over the pairs of views.

        Args:
            embeddings: (B, D), raw or L2-normalised; half precision is computed in float32.
            labels: (B,), equal for the views of an utterance and different for utterances.

        Returns:
            Scalar.

        Raises:
            UserError: fewer than two utterances, or not the views that `pairs` names.
        """
        groups = group_by_speaker(embeddings, labels, "nt_xent")  # (N, views, D)
        if groups.shape[1] != self.num_views:
            raise UserError(
                f"nt_xent's pairs name {self.num_views} views, and the batch has "
                f"{groups.shape[1]} of each utterance. Set utterances_per_speaker to "
                f"{self.num_views}, or name other pairs."
            )
        with torch.autocast(embeddings.device.type, enabled=False):
            views = F.normalize(groups, dim=-1)
            values = [self._pair(views[:, first], views[:, second]) for first, second in self.pairs]
            return torch.stack(values).sum()

    def _pair(self, first: Tensor, second: Tensor) -> Tensor:
        """(N, D) and (N, D) -> scalar."""
        rows = torch.cat((first, second))
        similarity = rows @ rows.T / self.temperature  # (2 N, 2 N)
        is_self = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        partners = torch.arange(len(rows), device=rows.device).roll(len(first))
        return F.cross_entropy(similarity.masked_fill(is_self, -torch.inf), partners)

    def extra_repr(self) -> str:
        """The options, for the printed module."""
        return f"temperature={self.temperature}, pairs={self.pairs}"
