"""Score normalisation against a cohort of other speakers: z-, t-, s-norm and adaptive s-norm.

An utterance whose scores are high against everybody (noise, a common voice) is brought down, by
the mean and the deviation of its scores against a cohort of speakers that are not in the trials.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from speaker_encoder.errors import UserError
from speaker_encoder.verification.metrics import to_numpy
from speaker_encoder.verification.trials import LEAST_NORM, Trials

Kind = Literal["z", "t", "s", "as"]
TOP_K = 300
LEAST_COHORT = 2
SCORES_AT_ONCE = 2**22
"""Most cohort scores held at a time (32 MiB)."""
LEAST_DEVIATION = 1e-9


class ScoreNormaliser:
    """Normalises scores of trials by the utterances' scores against a cohort.

    With `m(u), d(u)` the mean and the (population) standard deviation of the scores of utterance
    u against the cohort, and `s` the score of enrolment e and test t:

    - z: `(s - m(e)) / d(e)`
    - t: `(s - m(t)) / d(t)`
    - s: `1/2 ( (s - m(e)) / d(e) + (s - m(t)) / d(t) )`
    - as: as s, but m(u) and d(u) over the `top_k` highest scores of u only, each side its own.

    Source: z-norm: Li & Porter, ICASSP 1988. t-norm: Auckenthaler et al., Digital Signal
    Processing 2000. s-norm: Shum et al., Odyssey 2010. Adaptive s-norm as "adaptive S-norm 1" of
    Matejka et al., "Analysis of score normalization in multilingual speaker recognition",
    Interspeech 2017, eq. 4.

    Attributes:
        kind: which normalisation.
        top_k: cohort entries that count for an utterance: the whole cohort unless kind is "as".
        cohort_size: number of cohort entries.
    """

    def __init__(
        self,
        embeddings: ArrayLike,
        cohort: ArrayLike,
        kind: Kind = "as",
        top_k: int = TOP_K,
        *,
        score: Literal["cosine", "l2"] = "cosine",
    ) -> None:
        """Checks the cohort; nothing is computed yet.

        Args:
            embeddings: (U, D) array or tensor, rows need not be normalised.
            cohort: (C, D) embeddings of utterances of other speakers or their `cohort_means`.
                The cohort should hold no utterance and no speaker of the trials.
            kind: z, t, s or as.
            top_k: for adaptive s-norm, at least 2; at most the whole cohort is used.
            score: what the scores of the trials are: "cosine", or "l2" for the negative distance
                of L2-normalised embeddings.

        Raises:
            UserError: an unknown kind, a cohort of fewer than 2, a top_k below 2, embeddings that
                are not finite, or another dimension than the cohort's.
        """
        if kind not in get_args(Kind):
            known = ", ".join(get_args(Kind))
            raise UserError(f"Unknown score normalisation {kind!r}; known: {known}.")
        if top_k < LEAST_COHORT:
            raise UserError(f"top_k must be at least {LEAST_COHORT}, found {top_k}.")
        self._embeddings = _normalize(embeddings, "The embeddings")
        self._cohort = _normalize(cohort, "The cohort's embeddings")
        if len(self._cohort) < LEAST_COHORT:
            raise UserError(
                f"Score normalisation needs a cohort of at least {LEAST_COHORT} entries, found "
                f"{len(self._cohort)}. A few hundred other speakers are usual."
            )
        if self._cohort.shape[1] != self._embeddings.shape[1]:
            raise UserError(
                f"The cohort has embeddings of {self._cohort.shape[1]} dimensions, the trials of "
                f"{self._embeddings.shape[1]}. Embed both with the same model."
            )
        self.kind = kind
        self.cohort_size = len(self._cohort)
        self.top_k = min(top_k, self.cohort_size) if kind == "as" else self.cohort_size
        self._score = score

    def apply(self, scores: ArrayLike, trials: Trials) -> NDArray[np.float64]:
        """Normalised scores of trials.

        The statistics of each utterance are computed once, and only of the side that counts.

        Args:
            scores: (N,) raw scores of the trials, of the kind given at the start.
            trials: N trials over the U utterances.

        Returns:
            (N,) float64, without a fixed range.

        Raises:
            UserError: an utterance whose scores against the counted cohort are all equal.
            ValueError: not one score for each trial, or trials that point outside the embeddings.
        """
        values = to_numpy(scores).astype(np.float64)
        if values.shape != (len(trials),):
            raise ValueError(f"Wanted {len(trials)} scores, found shape {values.shape}.")
        sides = {"z": [trials.enrolment], "t": [trials.test]}.get(
            self.kind, [trials.enrolment, trials.test]
        )
        used, inverse = np.unique(np.stack(sides), return_inverse=True)
        mean, deviation = self.statistics(used)
        positions = inverse.reshape(len(sides), -1)
        return ((values - mean[positions]) / deviation[positions]).mean(axis=0)

    def statistics(
        self, utterances: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation of utterances' scores against the cohort entries that count.

        Args:
            utterances: (V,) positions in the embeddings.

        Returns:
            (mean, deviation), each (V,).

        Raises:
            UserError: an utterance whose scores against the counted cohort are all equal.
        """
        mean, deviation = np.empty(len(utterances)), np.empty(len(utterances))
        num_rows = max(1, SCORES_AT_ONCE // self.cohort_size)
        for start in range(0, len(utterances), num_rows):
            rows = slice(start, start + num_rows)
            scores = self._embeddings[utterances[rows]] @ self._cohort.T  # (rows, C)
            if self._score == "l2":
                scores = -np.sqrt(np.maximum(2.0 - 2.0 * scores, 0.0))
            if self.top_k < self.cohort_size:
                scores = np.partition(scores, -self.top_k, axis=1)[:, -self.top_k :]
            mean[rows], deviation[rows] = scores.mean(axis=1), scores.std(axis=1)
        flat = np.flatnonzero(deviation < LEAST_DEVIATION)
        if len(flat):
            raise UserError(
                f"The scores of {len(flat)} utterances against the cohort are all equal, the "
                f"first at position {utterances[flat[0]]}. The cohort needs different speakers, "
                "and the utterances speech."
            )
        return mean, deviation


def cohort_means(embeddings: ArrayLike, speaker_ids: Sequence[str]) -> NDArray[np.float64]:
    """One entry for each speaker of a cohort: the normalised mean of normalised embeddings.

    Args:
        embeddings: (N, D) array or tensor, rows need not be normalised.
        speaker_ids: (N,) the speaker of each.

    Returns:
        (S, D) float64, rows L2-normalised, in the sorted order of the speakers.

    Raises:
        UserError: embeddings that are not finite, or not one speaker for each.
    """
    rows = _normalize(embeddings, "The cohort's embeddings")
    if len(rows) != len(speaker_ids):
        raise UserError(
            f"A cohort needs a speaker for each embedding; found {len(rows)} embeddings and "
            f"{len(speaker_ids)} speakers."
        )
    names, numbers = np.unique(np.asarray(speaker_ids, dtype=str), return_inverse=True)
    sums = np.zeros((len(names), rows.shape[1]))
    np.add.at(sums, numbers, rows)
    return _normalize(sums, "The cohort's means")


def _normalize(embeddings: ArrayLike, what: str) -> NDArray[np.float64]:
    rows = to_numpy(embeddings).astype(np.float64)
    if rows.ndim != 2:
        raise UserError(f"{what} must be a table, a row for each; found shape {rows.shape}.")
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise UserError(f"{what} are not finite in {len(bad)} rows, the first is row {bad[0]}.")
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), LEAST_NORM)
