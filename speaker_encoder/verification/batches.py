"""Figures of one batch or set of embeddings that training logs: in-batch EER and health."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from speaker_encoder.errors import UserError
from speaker_encoder.verification.metrics import equal_error_rate, to_numpy


class EmbeddingHealth(NamedTuple):
    """Signs of collapse: all embeddings alike, or spread over few directions.

    Attributes:
        mean_off_diagonal_cosine: mean cosine of two different embeddings; 1 when all are alike.
        effective_rank: from 1 (one direction) to min(N, D).
    """

    mean_off_diagonal_cosine: float
    effective_rank: float


def in_batch_eer(embeddings: ArrayLike, labels: ArrayLike) -> float:
    """EER of each utterance against each speaker's centroid within the batch.

    As the original system logs it: the own speaker's centroid is exclusive (without the
    utterance), B * P scores of which B are targets. It is easier than a trial EER; do not compare
    the two.

    Args:
        embeddings: (B, D) array or tensor, rows need not be normalised.
        labels: (B,) integer speaker numbers, at least 2 speakers with at least 2 utterances each.

    Returns:
        The equal error rate, a fraction.

    Raises:
        UserError: fewer than 2 speakers, or a speaker with 1 utterance; or not finite.
    """
    rows = _normalize(to_numpy(embeddings))
    speakers, numbers, counts = np.unique(to_numpy(labels), return_inverse=True, return_counts=True)
    if len(speakers) < 2 or counts.min() < 2:
        raise UserError(
            "An in-batch EER needs at least 2 speakers with at least 2 utterances each; found "
            f"{len(speakers)} speakers, the smallest with {counts.min(initial=0)} utterances."
        )
    sums = np.zeros((len(speakers), rows.shape[1]))
    np.add.at(sums, numbers, rows)
    cosines = rows @ _normalize(sums).T  # (B, P)
    own = np.einsum("bd,bd->b", rows, _normalize(sums[numbers] - rows))
    is_own = numbers[:, None] == np.arange(len(speakers))
    return equal_error_rate(np.where(is_own, own[:, None], cosines).ravel(), is_own.ravel())[0]


def embedding_health(embeddings: ArrayLike) -> EmbeddingHealth:
    """Mean off-diagonal cosine and effective rank of a set of embeddings.

    The effective rank is `exp(-sum_i p_i log p_i)`, `p_i = s_i / sum_j s_j` over the singular
    values s of the L2-normalised, uncentred embeddings.

    Source: Roy & Vetterli, "The effective rank", EUSIPCO 2007; as a measure of collapse:
    Garrido et al., "RankMe", ICML 2023.

    Args:
        embeddings: (N, D) array or tensor, N >= 2, rows need not be normalised.

    Returns:
        (mean_off_diagonal_cosine, effective_rank); nan for both when an embedding is not finite.

    Raises:
        UserError: fewer than 2 embeddings.
    """
    rows = to_numpy(embeddings)
    if rows.ndim != 2 or len(rows) < 2:
        raise UserError(f"Embedding health needs at least 2 embeddings, found shape {rows.shape}.")
    if not np.isfinite(rows).all():
        return EmbeddingHealth(float("nan"), float("nan"))
    rows = _normalize(rows)
    num_rows = len(rows)
    # ||sum of rows||^2 holds each ordered pair once, and each row with itself.
    total = float(np.square(rows.sum(axis=0)).sum()) - float(np.square(rows).sum())
    gram = rows @ rows.T if num_rows < rows.shape[1] else rows.T @ rows
    singular_values = np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0.0, None))
    shares = singular_values / max(singular_values.sum(), np.finfo(np.float64).tiny)
    shares = shares[shares > 0]
    return EmbeddingHealth(
        total / (num_rows * (num_rows - 1)), float(np.exp(-(shares * np.log(shares)).sum()))
    )


def _normalize(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return rows / np.maximum(norms, np.finfo(np.float64).tiny)
