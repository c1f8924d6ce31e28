"""The generalised end-to-end loss (GE2E), softmax and contrast forms.

Source: L. Wan, Q. Wang, A. Papir, I. Lopez Moreno, "Generalized End-to-End Loss for Speaker
Verification", ICASSP 2018, arXiv:1710.10467v5 (the equations below are numbered as there).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speaker_encoder.errors import UserError
from speaker_encoder.losses.batch import group_by_speaker, positive_scale, require_positive

VARIANTS = ("softmax", "contrast")
OWN_CENTROIDS = ("exclusive", "inclusive")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
SCALE_GRADIENT = 0.01
"""The factor on the gradients of w and b, section 3 of the paper."""


class GE2ELoss(nn.Module):
    """GE2E over a batch of P speakers with K utterances each.

    The loss is the mean over the P * K utterances (the paper writes the sum; the mean makes it
    independent of the batch size, and is what the well-known implementations do).

    `w` stays positive: before each training step's use it is projected back to `w >= MIN_SCALE`
    (projected gradient descent, in the stored parameter itself, so its gradient never dies), and
    evaluation uses `max(w, MIN_SCALE)` without touching the parameter. The parameter can only be
    below `MIN_SCALE` between an optimiser step and the next forward.

    Attributes:
        w: (1,) scale of the cosines, its gradient multiplied by 0.01.
        b: (1,) offset of the cosines, its gradient multiplied by 0.01. The softmax form does not
            depend on it (without an activation).

    Args:
        variant: "softmax" (eq. 6) or "contrast" (eq. 7).
        init_w: initial scale, positive.
        init_b: initial offset.
        activation: None, "relu", "tanh" or "sigmoid", applied to the similarity matrix.
        own_centroid: "exclusive" (eq. 8), or "inclusive": the utterance is in its own speaker's
            centroid too, as in Speaker_Embedding_Torch, for comparison only: the loss then sees
            the utterance's likeness to itself.

    Raises:
        UserError: unknown variant, activation or own_centroid, or an `init_w` that is not positive.
    """

    def __init__(
        self,
        variant: str = "softmax",
        init_w: float = 10.0,
        init_b: float = -5.0,
        activation: str | None = None,
        own_centroid: str = "exclusive",
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise UserError(
                f"GE2E has the variants {', '.join(VARIANTS)}; found variant {variant!r}."
            )
        if activation is not None and activation not in ACTIVATIONS:
            raise UserError(
                f"GE2E has the activations null, {', '.join(ACTIVATIONS)}; "
                f"found activation {activation!r}."
            )
        if own_centroid not in OWN_CENTROIDS:
            raise UserError(
                f"GE2E has the own_centroid {' or '.join(OWN_CENTROIDS)}; found {own_centroid!r}."
            )
        self.variant = variant
        self.activation = activation
        self.own_centroid = own_centroid
        self.w = nn.Parameter(torch.tensor([require_positive("GE2E", "init_w", init_w)]))
        self.b = nn.Parameter(torch.tensor([float(init_b)]))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The mean GE2E loss of a batch.

        Args:
            embeddings: (B, D), raw or L2-normalised (they are normalised here, eq. 4), any
                floating dtype; half precision is computed in float32, also under autocast.
            labels: (B,) integer speaker numbers in any order, every speaker equally often. On a
                GPU, labels left on the CPU spare the one synchronisation of this loss.

        Returns:
            Scalar, float32 (float64 for float64 embeddings).

        Raises:
            UserError: fewer than two speakers, a speaker with fewer than two utterances, or not
                equally many of each.
        """
        similarity = self.similarity(embeddings, labels)
        return softmax_loss(similarity) if self.variant == "softmax" else contrast_loss(similarity)

    def similarity(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Scaled cosines between all utterances and all centroids, the own one as `own_centroid`.

        `S[j,i,k] = w * cos(e[j,i], c[k]) + b` (eq. 9), then the activation.

        Args:
            embeddings: (B, D), as in `forward`.
            labels: (B,), as in `forward`.

        Returns:
            (P, K, P), speakers in ascending order of label, a speaker's utterances in the order
            of the batch.

        Raises:
            UserError: as in `forward`.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            groups = group_by_speaker(embeddings, labels, "GE2E")
            cosines = centroid_cosines(groups, self.own_centroid == "inclusive")
            w = _scale_gradient(positive_scale(self.w, self.training), SCALE_GRADIENT)
            b = _scale_gradient(self.b, SCALE_GRADIENT)
            similarity = w.to(cosines.dtype) * cosines + b.to(cosines.dtype)
            if self.activation is not None:
                similarity = ACTIVATIONS[self.activation](similarity)
            return similarity

    def extra_repr(self) -> str:
        """The options, for the printed module."""
        return (
            f"variant={self.variant!r}, activation={self.activation!r}, "
            f"own_centroid={self.own_centroid!r}"
        )


def centroid_cosines(embeddings: Tensor, is_inclusive: bool = False) -> Tensor:
    """Cosines between all utterances and all centroids; not clamped, so all have a gradient.

    `cos(e[j,i], c[k])` with `c[k] = mean_m e[k,m]` (eq. 1) for the other speakers, and
    `c[j]^(-i) = mean_{m != i} e[j,m]` (eq. 8) for the own one, e L2-normalised (eq. 4).

    Args:
        embeddings: (P, K, D), K >= 2.
        is_inclusive: `c[j]` (eq. 1) for the own one too.

    Returns:
        (P, K, P) in [-1, 1] up to rounding.
    """
    embeddings = F.normalize(embeddings, dim=-1)
    sums = embeddings.sum(dim=1)  # (P, D)
    others = embeddings @ F.normalize(sums, dim=-1).T  # (P, K, P)
    if is_inclusive:
        return others
    exclusive = F.normalize(sums[:, None] - embeddings, dim=-1)  # (P, K, D)
    own = (embeddings * exclusive).sum(dim=-1, keepdim=True)  # (P, K, 1)
    return torch.where(_own_columns(others), own, others)


def softmax_loss(similarity: Tensor) -> Tensor:
    """`mean_ji( -S[j,i,j] + log sum_k exp S[j,i,k] )`  (eq. 6).

    Args:
        similarity: (P, K, P).

    Returns:
        Scalar.
    """
    return (similarity.logsumexp(dim=-1) - _own(similarity)).mean()


def contrast_loss(similarity: Tensor) -> Tensor:
    """`mean_ji( 1 - sigmoid(S[j,i,j]) + max_{k != j} sigmoid(S[j,i,k]) )`  (eq. 7).

    Args:
        similarity: (P, K, P), P >= 2.

    Returns:
        Scalar.
    """
    hardest = similarity.masked_fill(_own_columns(similarity), -torch.inf).amax(dim=-1)
    # sigmoid grows with S: the largest sigmoid is the sigmoid of the largest.
    return (1 - _own(similarity).sigmoid() + hardest.sigmoid()).mean()


def _own(similarity: Tensor) -> Tensor:
    """(P, K): `S[j,i,j]`."""
    return similarity.diagonal(dim1=0, dim2=2).T


def _own_columns(similarity: Tensor) -> Tensor:
    """(P, 1, P): true where the centroid is the utterance's own speaker's."""
    return torch.eye(similarity.shape[0], dtype=torch.bool, device=similarity.device)[:, None]


def _scale_gradient(value: Tensor, factor: float) -> Tensor:
    """The same value, exactly, with its gradient multiplied by `factor`."""
    return value.detach() + factor * (value - value.detach())
