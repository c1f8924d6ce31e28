"""What of an utterance is embedded, and how two utterances are scored."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.errors import UserError
from speaker_encoder.verification.trials import SCORING_CHUNK, Trials, score_trials

SCORES = ("cosine", "l2")
_WANTED = "full, crops:N:SECONDS (such as crops:10:4), or windows:SECONDS:HOP"


@dataclass(frozen=True)
class Protocol:
    """What of an utterance is embedded.

    Attributes:
        kind: ``full``: all of it; ``crops``: evenly spaced crops, each with an embedding of its
            own; ``windows``: the mean embedding of windows.
        seconds: of a crop or window.
        num_crops: crops of an utterance.
        hop_seconds: from window to window.
    """

    kind: str = "full"
    seconds: float = 0.0
    num_crops: int = 1
    hop_seconds: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Protocol:
        """The protocol that a user writes.

        Raises:
            UserError: it is none.
        """
        kind, *values = text.split(":")
        try:
            if not all(math.isfinite(float(value)) for value in values):
                raise ValueError(text)
            if kind == "full" and not values:
                return cls()
            if kind == "crops" and len(values) == 2 and int(values[0]) > 0 < float(values[1]):
                return cls("crops", float(values[1]), num_crops=int(values[0]))
            if kind == "windows" and len(values) == 2 and 0 < float(values[1]) <= float(values[0]):
                return cls("windows", float(values[0]), hop_seconds=float(values[1]))
        except ValueError:
            pass
        raise UserError(
            f"Unknown --protocol {text!r}. Wanted {_WANTED}; N at least 1, lengths above 0, the "
            "hop no longer than the window."
        )

    def __str__(self) -> str:
        if self.kind == "crops":
            return f"crops:{self.num_crops}:{self.seconds:g}"
        if self.kind == "windows":
            return f"windows:{self.seconds:g}:{self.hop_seconds:g}"
        return "full"

    def segments(self, num_samples: int, sampling_rate: int) -> list[tuple[int, int]]:
        """The parts of an utterance that are embedded, (start, stop) in samples.

        Crops start at ``linspace(0, num_samples - crop, N)``, rounded down. An utterance that is
        no longer than a crop has one part; it is repeated to the length of a crop.

        Source: crops: voxceleb_trainer, ``loadWAV`` with ``evalmode``.
        """
        if self.kind != "crops":
            from speaker_encoder.modeling.windows import plan_segments

            window = round(self.seconds * sampling_rate) or None
            return plan_segments(
                num_samples, sampling_rate, window, round(self.hop_seconds * sampling_rate) or None
            )
        crop = self.crop_samples(sampling_rate)
        if num_samples <= crop:
            return [(0, num_samples)]
        starts = np.linspace(0, num_samples - crop, self.num_crops).astype(np.int64)
        return [(int(start), int(start) + crop) for start in starts]

    def crop_samples(self, sampling_rate: int) -> int:
        """The length of a crop; 0 where shorter utterances are taken as they are."""
        return round(self.seconds * sampling_rate) if self.kind == "crops" else 0


def score_vectors(
    vectors: NDArray[np.float32], trials: Trials, kind: str = "cosine"
) -> NDArray[np.float64]:
    """Scores trials of utterances with one or several embeddings.

    cosine: ``mean_ij cos(a_i, b_j)``; l2: ``-mean_ij ||a_i - b_j||``, both over the K x K pairs.

    Args:
        vectors: (U, K, D), each (D,) L2-normalised.
        trials: N pairs of positions in U.
        kind: of ``SCORES``.

    Returns:
        (N,) float64; higher means more alike.

    Raises:
        UserError: an embedding is not finite.

    Source: l2: voxceleb_trainer, ``SpeakerNet.evaluateFromList``.
    """
    if kind == "cosine" and vectors.shape[1] == 1:
        return score_trials(vectors[:, 0], trials)
    scores = np.empty(len(trials))
    if kind == "cosine":
        # The mean of all cosines is the dot product of the two means.
        means = vectors.astype(np.float64).mean(axis=1)
        for start in range(0, len(trials), SCORING_CHUNK):
            part = slice(start, start + SCORING_CHUNK)
            scores[part] = np.einsum(
                "nd,nd->n", means[trials.enrolment[part]], means[trials.test[part]]
            )
        return scores
    size = max(1, SCORING_CHUNK // vectors.shape[1])
    for start in range(0, len(trials), size):
        part = slice(start, start + size)
        a = vectors[trials.enrolment[part]].astype(np.float64)
        b = vectors[trials.test[part]].astype(np.float64)
        if vectors.shape[1] == 1:
            scores[part] = -np.linalg.norm(a[:, 0] - b[:, 0], axis=1)
            continue
        squares = np.square(a).sum(2)[:, :, None] + np.square(b).sum(2)[:, None, :]
        squares -= 2.0 * a @ b.transpose(0, 2, 1)  # (n, K, K)
        scores[part] = -np.sqrt(np.maximum(squares, 0.0)).mean(axis=(1, 2))
    return scores
