"""How alike the speakers of a set of embeddings are, and which utterances look misplaced."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.errors import UserError
from speaker_encoder.plots.umap_plot import normalize

BLOCK = 4096
"""Utterances compared with all centroids at once."""


@dataclass(frozen=True, slots=True)
class SpeakerPair:
    """Two speakers.

    Attributes:
        first: a speaker.
        second: another one.
        similarity: mean cosine of an utterance of one and an utterance of the other.
        first_own: mean cosine of two utterances of the first; None when it has only one.
        second_own: the same of the second.
    """

    first: str
    second: str
    similarity: float
    first_own: float | None
    second_own: float | None


@dataclass(frozen=True, slots=True)
class SuspiciousUtterance:
    """An utterance beside its own speaker and the nearest other one.

    Attributes:
        utterance_id: which.
        speaker_id: of the label.
        nearest_speaker_id: the other speaker that it is most alike.
        own: cosine with the centroid of its speaker's other utterances.
        nearest: cosine with the centroid of the nearest other speaker.
        margin: own - nearest; below 0 it is more like the other speaker.
    """

    utterance_id: str
    speaker_id: str
    nearest_speaker_id: str
    own: float
    nearest: float
    margin: float


@dataclass(frozen=True, eq=False)
class SpeakerSimilarity:
    """Similarities of S speakers.

    Attributes:
        speakers: S names, sorted.
        matrix: (S, S) mean cosine of two different utterances, one of each speaker; NaN on the
            diagonal for a speaker with one utterance.
        pairs: the most alike ones first.
        utterances: the least margin first; only of speakers with two utterances or more.
        num_misplaced: utterances of all with a margin below 0.
    """

    speakers: list[str]
    matrix: NDArray[np.float64]
    pairs: list[SpeakerPair]
    utterances: list[SuspiciousUtterance]
    num_misplaced: int

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON data: no NaN, the matrix row by row."""
        from dataclasses import asdict

        return {
            "speakers": self.speakers,
            "matrix": [
                [round(cell, 6) if np.isfinite(cell) else None for cell in row]
                for row in self.matrix.tolist()
            ],
            "confusable_pairs": [asdict(pair) for pair in self.pairs],
            "num_misplaced": self.num_misplaced,
            "suspicious_utterances": [asdict(utterance) for utterance in self.utterances],
        }


def speaker_similarity(
    embeddings: NDArray[np.float32],
    speaker_ids: Sequence[str],
    utterance_ids: Sequence[str],
    *,
    num_listed: int = 20,
) -> SpeakerSimilarity:
    """Compares all speakers, and each utterance with the speakers.

    Args:
        embeddings: (N, D) finite; only their directions count.
        speaker_ids: (N,).
        utterance_ids: (N,).
        num_listed: the most pairs, and the most utterances, to list.

    Returns:
        The similarities. Memory grows with S x S, time with N x S.

    Raises:
        UserError: fewer than 2 speakers, or lengths that differ.
    """
    if not len(embeddings) == len(speaker_ids) == len(utterance_ids):
        raise UserError(
            f"A similarity needs one speaker and one id for each embedding; found "
            f"{len(embeddings)}, {len(speaker_ids)} and {len(utterance_ids)}."
        )
    speakers, numbers = np.unique(np.asarray(speaker_ids, dtype=object), return_inverse=True)
    if len(speakers) < 2:
        raise UserError(f"A similarity needs at least 2 speakers, found {len(speakers)}.")
    rows = normalize(np.asarray(embeddings, dtype=np.float32)).astype(np.float64)
    sums = np.zeros((len(speakers), rows.shape[1]))
    np.add.at(sums, numbers, rows)
    counts = np.bincount(numbers)
    names = [str(name) for name in speakers]
    matrix = _mean_cosines(rows, numbers, sums, counts)
    utterances, num_misplaced = _suspicious(rows, numbers, sums, counts, names, utterance_ids)
    return SpeakerSimilarity(
        names,
        matrix,
        _most_alike(matrix, names, num_listed),
        utterances[:num_listed],
        num_misplaced,
    )


def _mean_cosines(
    rows: NDArray[np.float64],
    numbers: NDArray[np.int64],
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> NDArray[np.float64]:
    """(S, S) mean cosine over pairs of different utterances."""
    matrix = sums @ sums.T / np.outer(counts, counts)
    squares = np.bincount(numbers, weights=np.square(rows).sum(axis=1))
    num_pairs = counts * (counts - 1.0)
    own = np.full(len(counts), np.nan)
    np.divide(np.square(sums).sum(axis=1) - squares, num_pairs, out=own, where=num_pairs > 0)
    np.fill_diagonal(matrix, own)
    return matrix


def _most_alike(
    matrix: NDArray[np.float64], names: list[str], num_listed: int
) -> list[SpeakerPair]:
    first, second = np.triu_indices(len(names), k=1)
    values = matrix[first, second]
    kept = np.argpartition(-values, min(num_listed, len(values)) - 1)[:num_listed]
    kept = kept[np.lexsort((kept, -values[kept]))]
    own = [value if np.isfinite(value) else None for value in np.diag(matrix).tolist()]
    return [
        SpeakerPair(names[a], names[b], float(matrix[a, b]), own[a], own[b])
        for a, b in zip(first[kept].tolist(), second[kept].tolist(), strict=True)
    ]


def _suspicious(
    rows: NDArray[np.float64],
    numbers: NDArray[np.int64],
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
    names: list[str],
    utterance_ids: Sequence[str],
) -> tuple[list[SuspiciousUtterance], int]:
    """Utterances by their margin, ascending, and how many have one below 0."""
    centroids = _unit(sums)
    found: list[SuspiciousUtterance] = []
    for start in range(0, len(rows), BLOCK):
        block, own_numbers = rows[start : start + BLOCK], numbers[start : start + BLOCK]
        scores = block @ centroids.T
        scores[np.arange(len(block)), own_numbers] = -np.inf
        nearest = scores.argmax(axis=1)
        own = (block * _unit(sums[own_numbers] - block)).sum(axis=1)
        for i in np.flatnonzero(counts[own_numbers] > 1).tolist():
            other = float(scores[i, nearest[i]])
            found.append(
                SuspiciousUtterance(
                    str(utterance_ids[start + i]), names[own_numbers[i]], names[nearest[i]],
                    float(own[i]), other, float(own[i]) - other,
                )
            )  # fmt: skip
    found.sort(key=lambda utterance: (utterance.margin, utterance.utterance_id))
    return found, sum(utterance.margin < 0 for utterance in found)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
