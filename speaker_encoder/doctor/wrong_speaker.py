"""Utterances that likely belong to another speaker than their label says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_NEAREST = 5
"""Other speakers of an utterance that are looked at."""
STRANGER_PRIOR = 0.1
"""Of wrong labels, how many are of somebody whom the corpus does not have."""

_FIRST_WRONG_SHARE = 0.02
_LEAST_DEVIATION = 1e-3
_NUM_FITS = 30
_BLOCK_ROWS = 2048

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Similarities:
    """How alike utterances are to speakers.

    Attributes:
        own: (N,) cosine to the mean of the other utterances of its speaker; nan without others.
        nearest: (N, K) cosines to the nearest means of other speakers, the nearest first.
        nearest_speakers: (N, K) which speakers these are.
        other_mean: mean of the cosines of all utterances to all other speakers.
        other_deviation: standard deviation of these.
    """

    own: Floats
    nearest: Floats
    nearest_speakers: NDArray[np.int64]
    other_mean: float
    other_deviation: float


@dataclass(frozen=True)
class WrongSpeakers:
    """What the voices say about the labels.

    Attributes:
        log_odds: (N,) that the label is wrong; -inf for the only utterance of a speaker.
        is_stranger: (N,) a wrong one is likelier of nobody in the corpus than of the nearest.
        similarities: what it follows from.
        wrong_share: how many labels of the corpus are wrong, as estimated from all.
        own_mean: cosine of an utterance to its own speaker, in the mean.
        own_deviation: its standard deviation.
    """

    log_odds: Floats
    is_stranger: NDArray[np.bool_]
    similarities: Similarities
    wrong_share: float
    own_mean: float
    own_deviation: float

    @property
    def probability(self) -> Floats:
        """(N,) that the label is wrong; 0 for the only utterance of a speaker."""
        return _probability(self.log_odds)


def find_wrong_speakers(
    embeddings: NDArray[np.float32],
    speakers: NDArray[np.int64],
    counted: NDArray[np.bool_] | None = None,
) -> WrongSpeakers:
    """Weighs for each utterance whether its own speaker explains it, or another one.

    The cosines of utterances to the mean of their own speaker's others are one distribution, those
    to other speakers' means another; both are fitted to this corpus, together with the share of
    wrong labels, by expectation maximisation. With ``l(s) = log p(s | own) - log p(s | other)``:

    ``odds = w / (1 - w) * (q + (1 - q) * mean_t exp(l(s_t))) / exp(l(s_own))``

    where w is the share of wrong labels, q that of strangers among them, and t the other speakers.
    What is likely wrong no longer counts in its speaker's mean; the worst of a speaker goes first,
    and at least half of a speaker's utterances stay.

    Args:
        embeddings: (N, D), rows L2-normalised.
        speakers: (N,) numbers 0..S-1, S >= 2.
        counted: (N,) which may count in the means; None: all.
    """
    counted = np.ones(len(speakers), dtype=bool) if counted is None else counted.copy()
    sizes = np.bincount(speakers, counted)
    num_removed = np.zeros(len(sizes), dtype=np.int64)
    while True:
        found = _weigh(embeddings, speakers, counted)
        doubt = np.where(counted, found.log_odds, -np.inf)
        doubt[num_removed[speakers] >= sizes[speakers] // 2] = -np.inf
        worst = _worst_of_each(doubt, speakers)
        if len(worst) == 0:
            return found
        counted[worst] = False
        num_removed[speakers[worst]] += 1


def _worst_of_each(doubt: Floats, speakers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The utterance of each speaker that is most likely wrong, if one is."""
    order = np.argsort(-doubt, kind="stable")
    order = order[doubt[order] > 0]
    _, first = np.unique(speakers[order], return_index=True)
    return order[first]


def compare_to_speakers(
    embeddings: NDArray[np.float32], speakers: NDArray[np.int64], counted: NDArray[np.bool_]
) -> Similarities:
    """Compares all utterances with all speakers, in blocks.

    Args:
        embeddings: (N, D), rows L2-normalised.
        speakers: (N,) numbers 0..S-1.
        counted: (N,) which count in the means.
    """
    num_speakers = int(speakers.max()) + 1
    sums = np.zeros((num_speakers, embeddings.shape[1]))
    np.add.at(sums, speakers[counted], embeddings[counted])
    means = _unit(sums).astype(np.float32)
    num_nearest = min(NUM_NEAREST, num_speakers - 1)
    own, nearest, nearest_speakers = [], [], []
    total = squares = count = 0.0
    for start in range(0, len(embeddings), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        others = sums[speakers[rows]] - embeddings[rows] * counted[rows, None]
        alone = np.linalg.norm(others, axis=1) < 1e-6
        own.append(np.where(alone, np.nan, (embeddings[rows] * _unit(others)).sum(axis=1)))
        cosines = embeddings[rows] @ means.T  # (B, S)
        here = np.arange(len(cosines))
        cosines[here, speakers[rows]] = 0.0
        total += float(cosines.sum(dtype=np.float64))
        squares += float(np.square(cosines, dtype=np.float64).sum())
        count += cosines.size - len(cosines)
        cosines[here, speakers[rows]] = -np.inf
        top = np.argpartition(-cosines, num_nearest - 1, axis=1)[:, :num_nearest]
        order = np.argsort(-np.take_along_axis(cosines, top, axis=1), axis=1, kind="stable")
        top = np.take_along_axis(top, order, axis=1)
        nearest_speakers.append(top)
        nearest.append(np.take_along_axis(cosines, top, axis=1))
    mean = total / count
    deviation = float(np.sqrt(max(squares / count - mean**2, 0.0)))
    return Similarities(
        np.concatenate(own),
        np.concatenate(nearest).astype(np.float64),
        np.concatenate(nearest_speakers),
        mean,
        max(deviation, _LEAST_DEVIATION),
    )


def _weigh(
    embeddings: NDArray[np.float32], speakers: NDArray[np.int64], counted: NDArray[np.bool_]
) -> WrongSpeakers:
    similarities = compare_to_speakers(embeddings, speakers, counted)
    own = similarities.own
    known = np.isfinite(own)
    num_others = int(speakers.max())
    log_odds, stranger = np.full(len(own), -np.inf), np.zeros(len(own), dtype=bool)
    share = _FIRST_WRONG_SHARE
    mean = float(np.median(own[known])) if known.any() else 1.0
    spread = 1.4826 * float(np.median(np.abs(own[known] - mean))) if known.any() else 0.0
    spread = max(spread, _LEAST_DEVIATION)
    for _ in range(_NUM_FITS if known.any() else 0):
        ratio = _LogRatio(mean, spread, similarities.other_mean, similarities.other_deviation)
        neighbour = np.logaddexp.reduce(ratio(similarities.nearest), axis=1) - np.log(num_others)
        neighbour += np.log(1 - STRANGER_PRIOR)
        wrong = np.logaddexp(neighbour, np.log(STRANGER_PRIOR)) + np.log(share)
        right = ratio(np.where(known, own, mean)) + np.log1p(-share)
        log_odds = np.where(known, wrong - right, -np.inf)
        probability = _probability(log_odds)
        stranger = neighbour < np.log(STRANGER_PRIOR)
        share = max(float(probability.sum()), 0.5) / len(own)
        weights = (1 - probability[known]) + 1e-12
        mean = float(np.average(own[known], weights=weights))
        variance = float(np.average(np.square(own[known] - mean), weights=weights))
        spread = max(float(np.sqrt(variance)), _LEAST_DEVIATION)
    return WrongSpeakers(log_odds, stranger, similarities, share, mean, spread)


def _probability(log_odds: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(log_odds, -500, 500)))


class _LogRatio:
    """``log p(s | own speaker) - log p(s | another)`` of two normal distributions, never falling.

    Args:
        own_mean: of cosines to the own speaker.
        own_deviation: of these.
        other_mean: of cosines to other speakers.
        other_deviation: of these.
    """

    def __init__(
        self, own_mean: float, own_deviation: float, other_mean: float, other_deviation: float
    ) -> None:
        self._own, self._other = (own_mean, own_deviation), (other_mean, other_deviation)
        curvature = 1 / other_deviation**2 - 1 / own_deviation**2
        self._lowest, self._highest = -np.inf, np.inf
        if curvature != 0:
            turn = (other_mean / other_deviation**2 - own_mean / own_deviation**2) / curvature
            if curvature < 0:
                self._highest = turn
            else:
                self._lowest = turn

    def __call__(self, cosines: Floats) -> Floats:
        """Weighs cosines of any shape; beyond the turn of the parabola it stays as at the turn."""
        cosines = np.clip(cosines, self._lowest, self._highest)
        return _log_density(cosines, *self._own) - _log_density(cosines, *self._other)


def _log_density(values: Floats, mean: float, deviation: float) -> Floats:
    return -0.5 * np.square((values - mean) / deviation) - np.log(deviation)


def _unit(rows: Floats) -> Floats:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
