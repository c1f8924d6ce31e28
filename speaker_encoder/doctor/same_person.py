"""Speakers of different names that are likely one person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MISSED_SHARE = 0.05
"""Of one person's two halves, how many may look less alike than the limit."""
CHANCE_DEVIATIONS = 3.0
MIN_SPEAKERS = 5

_MIN_HALVES = 5
_NUM_HALVES_WANTED = 2000
_MAX_REPEATS = 20
_MAX_ROUNDS = 20

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SamePerson:
    """Two speakers that are likely one.

    Attributes:
        first: number of a speaker.
        second: number of another.
        likeness: 1 where the two differ no more than two halves of one speaker, about 0 for
            strangers; can exceed 1.
        limit: for speakers of so many utterances.
    """

    first: int
    second: int
    likeness: float
    limit: float


@dataclass(frozen=True)
class SpeakerLikeness:
    """How alike the speakers are.

    Attributes:
        likeness: (S, S); nan where a speaker has too few or too different utterances.
        sizes: (S,) utterances.
    """

    likeness: NDArray[np.float32]
    sizes: NDArray[np.int64]

    def nearest(self) -> NDArray[np.int64]:
        """(S,) the speaker most like each."""
        others = np.where(np.isfinite(self.likeness), self.likeness, -np.inf)
        np.fill_diagonal(others, -np.inf)
        return others.argmax(axis=1)


def compare_speakers(
    embeddings: NDArray[np.float32], speakers: NDArray[np.int64]
) -> SpeakerLikeness:
    """The cosine between the speakers' true means, without what few utterances take from it.

    The mean m of n utterances is longer and less exact the fewer they are. What two different
    utterances of a speaker have in common, ``v = mean_{i != j} e_i . e_j``, is the squared length
    of the true mean whatever n is, so

    ``likeness[s, t] = (m_s . m_t) / sqrt(v_s * v_t)``

    is 1 in expectation for two parts of one speaker, of any size: Spearman's correction for
    attenuation. All is centred on the mean of the speakers.

    Args:
        embeddings: (N, D), rows L2-normalised.
        speakers: (N,) numbers 0..S-1.

    Source: Spearman, "The proof and measurement of association between two things", 1904.
    """
    means, sizes = scaled_means(embeddings, speakers)
    rows: NDArray[np.float32] = means.astype(np.float32)
    return SpeakerLikeness(rows @ rows.T, sizes)


def scaled_means(
    embeddings: NDArray[np.float32], speakers: NDArray[np.int64]
) -> tuple[Floats, NDArray[np.int64]]:
    """The centred means of the speakers, divided by the length of the true ones.

    Returns:
        (S, D) with nan where that length is unknown, and (S,) utterances.
    """
    num_speakers = int(speakers.max()) + 1
    sizes = np.bincount(speakers, minlength=num_speakers)
    sums = np.zeros((num_speakers, embeddings.shape[1]))
    np.add.at(sums, speakers, embeddings)
    means = sums / np.maximum(sizes, 1)[:, None]
    centre = means[sizes > 0].mean(axis=0)
    means -= centre
    squares = np.bincount(
        speakers, np.square(embeddings - centre).sum(axis=1), minlength=num_speakers
    )
    pairs = sizes * (sizes - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        common = (np.square(sizes) * np.square(means).sum(axis=1) - squares) / pairs
        scale = np.where((common > 0) & (sizes > 1), 1 / np.sqrt(common), np.nan)
    return means * scale[:, None], sizes


def own_spread(
    embeddings: NDArray[np.float32], speakers: NDArray[np.int64], seed: int = 0
) -> Floats:
    """How far the likeness of two random halves of one speaker is from 1, for one utterance.

    For halves of a and b utterances the difference to 1 is divided by ``sqrt(1/a + 1/b)``.

    Args:
        embeddings: (N, D), rows L2-normalised.
        speakers: (N,) numbers 0..S-1.
        seed: of the halves.

    Returns:
        (H,) differences, of all speakers with at least 4 utterances, several times each.
    """
    generator = np.random.default_rng(seed)
    sizes = np.bincount(speakers)
    usable = np.flatnonzero(sizes >= 4)
    if len(usable) == 0:
        return np.zeros(0)
    repeats = int(np.clip(_NUM_HALVES_WANTED // len(usable), 1, _MAX_REPEATS))
    groups = np.split(np.argsort(speakers, kind="stable"), np.cumsum(sizes)[:-1])
    spread = []
    for _ in range(repeats):
        halves = np.empty(len(speakers), dtype=np.int64)
        for speaker, indices in enumerate(groups):
            shuffled = generator.permutation(indices)
            halves[shuffled] = 2 * speaker
            halves[shuffled[: len(shuffled) // 2]] = 2 * speaker + 1
        means, half_sizes = scaled_means(embeddings, halves)
        likeness = (means[2 * usable] * means[2 * usable + 1]).sum(axis=1)
        a, b = half_sizes[2 * usable], half_sizes[2 * usable + 1]
        spread.append((likeness - 1) / np.sqrt(1 / a + 1 / b))
    differences = np.concatenate(spread)
    return differences[np.isfinite(differences)]


def find_same_persons(
    embeddings: NDArray[np.float32], speakers: NDArray[np.int64], seed: int = 0
) -> list[SamePerson]:
    """Pairs that are as alike as two halves of one speaker are.

    The limit is the 5 % quantile of the likeness of halves of this corpus' own speakers, for the
    number of utterances of the pair; it is at least 3 robust deviations above the median of all
    pairs. Each must be the other's nearest. What is found is joined and compared again, so that a
    third part of one person is found too.

    Args:
        embeddings: (N, D), rows L2-normalised.
        speakers: (N,) numbers 0..S-1.
        seed: of the halves.

    Returns:
        The pairs, the most alike first; none where fewer than 5 speakers, or too few with 4
        utterances, say what is usual.
    """
    if len(np.unique(speakers)) < MIN_SPEAKERS:
        return []
    differences = own_spread(embeddings, speakers, seed)
    if len(differences) < _MIN_HALVES:
        return []
    lowest = float(np.quantile(differences, MISSED_SHARE))
    joined = speakers.copy()
    found: list[SamePerson] = []
    for _ in range(_MAX_ROUNDS):
        pairs = _pairs(compare_speakers(embeddings, joined), lowest)
        found += pairs
        for pair in pairs:
            joined[joined == pair.second] = pair.first
        if not pairs:
            break
    return sorted(found, key=lambda pair: -pair.likeness)


def _pairs(compared: SpeakerLikeness, lowest: float) -> list[SamePerson]:
    nearest = compared.nearest()
    first = np.flatnonzero(nearest[nearest] == np.arange(len(nearest)))
    first = first[first < nearest[first]]
    likeness = compared.likeness[np.triu_indices(len(nearest), 1)]
    likeness = likeness[np.isfinite(likeness)]
    if len(likeness) == 0:
        return []
    median = float(np.median(likeness))
    chance = median + CHANCE_DEVIATIONS * 1.4826 * float(np.median(np.abs(likeness - median)))
    pairs = []
    for a, b in zip(first.tolist(), nearest[first].tolist(), strict=True):
        size = np.sqrt(1 / compared.sizes[a] + 1 / compared.sizes[b])
        limit = max(1 + lowest * size, chance)
        if compared.likeness[a, b] >= limit:
            pairs.append(SamePerson(a, b, float(compared.likeness[a, b]), float(limit)))
    return pairs
