"""One embedding of a speaker from those of its utterances, and what does not fit among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_UTTERANCES = 4
"""Of fewer utterances it cannot be said which one does not fit."""
OUTLIER_DEVIATIONS = 4.0
OUTLIER_MARGIN = 0.1


@dataclass(frozen=True)
class SpeakerAverage:
    """A speaker's embedding.

    Attributes:
        vector: (D,) float32.
        similarities: (N,) of each utterance to the mean of the speaker's others.
        is_outlier: (N,) whether the utterance was left out.
        dispersion: 1 - the mean cosine of the utterances to their mean; 0 for copies.
    """

    vector: NDArray[np.float32]
    similarities: NDArray[np.float64]
    is_outlier: NDArray[np.bool_]
    dispersion: float


def average_speaker(embeddings: NDArray[np.float32], method: str) -> SpeakerAverage:
    """Makes a speaker's embedding.

    Args:
        embeddings: (N, D) of its utterances, rows L2-normalised.
        method: ``mean`` (the plain mean, not of unit length), ``normalized`` (of unit length), or
            ``robust`` (the plain mean without outliers).

    Returns:
        The embedding, and how the utterances stand to each other.
    """
    rows = embeddings.astype(np.float64)
    is_outlier = np.zeros(len(rows), dtype=bool)
    if method == "robust":
        is_outlier = find_outliers(embeddings)
    mean = rows[~is_outlier].mean(axis=0)
    length = np.linalg.norm(mean)
    unit = mean / length if length > 0 else mean
    return SpeakerAverage(
        vector=(unit if method == "normalized" else mean).astype(np.float32),
        similarities=leave_one_out_similarity(embeddings),
        is_outlier=is_outlier,
        dispersion=float(1 - (rows @ unit).mean()),
    )


def leave_one_out_similarity(
    embeddings: NDArray[np.float32], kept: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """The cosine of each utterance to the mean of the others.

    ``s[i] = cos(e[i], sum(e[j] for j != i))``

    Args:
        embeddings: (N, D), rows L2-normalised.
        kept: (N,) which of them count in the means; None: all.

    Returns:
        (N,) in [-1, 1]; 1 for a single utterance.
    """
    rows = embeddings.astype(np.float64)
    counted = rows if kept is None else rows * kept[:, None]
    others = counted.sum(axis=0) - counted  # (N, D)
    lengths = np.linalg.norm(others, axis=1)
    cosines = (rows * others).sum(axis=1) / np.maximum(lengths, 1e-12)
    return np.where(lengths > 1e-9, np.clip(cosines, -1, 1), 1.0)


def find_outliers(embeddings: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Utterances that are not of this speaker, or hardly speech.

    The one that is least like the mean of the others is left out while it lies more than 4
    deviations (1.4826 times the median absolute deviation) and more than 0.1 below the median.
    At least half of the utterances stay.

    Args:
        embeddings: (N, D), rows L2-normalised.

    Returns:
        (N,) True for an outlier.
    """
    kept = np.ones(len(embeddings), dtype=bool)
    if len(embeddings) < MIN_UTTERANCES:
        return ~kept
    for _ in range(len(embeddings) // 2):
        similarities = leave_one_out_similarity(embeddings, kept)
        median = np.median(similarities[kept])
        deviation = 1.4826 * np.median(np.abs(similarities[kept] - median))
        limit = median - max(OUTLIER_DEVIATIONS * deviation, OUTLIER_MARGIN)
        worst = int(np.argmin(np.where(kept, similarities, np.inf)))
        if similarities[worst] >= limit:
            break
        kept[worst] = False
    return ~kept


def least_similar(
    utterance_ids: Sequence[str], similarities: NDArray[np.float64], count: int = 3
) -> list[tuple[str, float]]:
    """The utterances that are least like the others of their speaker, the worst first."""
    order = np.argsort(similarities, kind="stable")[:count]
    return [(utterance_ids[number], round(float(similarities[number]), 4)) for number in order]
