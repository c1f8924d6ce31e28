"""Bootstrap over speakers: how far a figure would move with other speakers of the same kind.

Trials of one speaker are not independent, so whole speakers are drawn with replacement, not
trials. A speaker drawn m times counts m times: a nontarget trial of speakers a and b gets weight
m[a] * m[b]; a target trial of speaker a gets weight m[a], since a speaker's copies are not
compared with each other (that would be utterances against themselves).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.errors import UserError
from speaker_encoder.verification.metrics import SortedScores, crossing_rate, least_cost
from speaker_encoder.verification.trials import Trials

CONFIDENCE = 0.95
MAX_TRIES = 20
"""Draws of speakers made for each one wanted, before giving up."""


@dataclass(frozen=True, slots=True)
class SpeakerBootstrap:
    """Weights of labelled trials for seeded draws of speakers.

    Attributes:
        enrolment_speaker: (N,) number of the enrolment utterance's speaker.
        test_speaker: (N,) number of the test utterance's speaker.
        is_target: (N,) bool.
        num_speakers: number of speakers in the trials.
    """

    enrolment_speaker: NDArray[np.int64]
    test_speaker: NDArray[np.int64]
    is_target: NDArray[np.bool_]
    num_speakers: int

    @classmethod
    def from_trials(cls, trials: Trials, speaker_ids: Sequence[str]) -> "SpeakerBootstrap":
        """The speakers of labelled trials.

        Args:
            trials: with labels.
            speaker_ids: the speaker of each utterance that the trials point to.

        Returns:
            The bootstrap.

        Raises:
            UserError: trials without labels.
        """
        if trials.labels is None:
            raise UserError("These trials have no labels; error rates need them.")
        pairs = np.stack([trials.enrolment, trials.test])
        used, inverse = np.unique(pairs, return_inverse=True)
        names, numbers = np.unique(
            [speaker_ids[position] for position in used], return_inverse=True
        )
        enrolment_speaker, test_speaker = numbers[inverse.reshape(pairs.shape)]
        return cls(enrolment_speaker, test_speaker, trials.labels, len(names))

    def draws(self, num_bootstrap: int, seed: int) -> Iterator[NDArray[np.float64]]:
        """Trial weights of each draw; draws without a target or a nontarget are drawn again.

        Args:
            num_bootstrap: number of draws, at least 1.
            seed: of the draws.

        Yields:
            (N,) whole numbers, in the order of the trials.

        Raises:
            UserError: `num_bootstrap` below 1, or speakers so few that (almost) no draw has both
                kinds of trials.
        """
        if num_bootstrap < 1:
            raise UserError(f"num_bootstrap must be at least 1, found {num_bootstrap}.")
        rng = np.random.default_rng(seed)
        same_speaker = self.enrolment_speaker == self.test_speaker
        probabilities = np.full(self.num_speakers, 1.0 / self.num_speakers)
        num_made = 0
        for _ in range(num_bootstrap * MAX_TRIES):
            times_drawn = rng.multinomial(self.num_speakers, probabilities).astype(np.float64)
            weights = times_drawn[self.enrolment_speaker]
            np.multiply(weights, times_drawn[self.test_speaker], out=weights, where=~same_speaker)
            target_weight = weights[self.is_target].sum()
            if target_weight in (0.0, weights.sum()):
                continue
            yield weights
            num_made += 1
            if num_made == num_bootstrap:
                return
        raise UserError(
            f"A confidence interval needs more than {self.num_speakers} speakers in the trials: "
            "drawing speakers gave target and nontarget trials too rarely."
        )


def error_rate_draws(
    scores: Sequence[SortedScores],
    bootstrap: SpeakerBootstrap,
    *,
    p_target: float,
    num_bootstrap: int,
    seed: int,
) -> NDArray[np.float64]:
    """EER and minDCF of several systems on the same draws of speakers.

    Args:
        scores: sorted scores of S systems on the same trials.
        bootstrap: of those trials.
        p_target: prior probability of a target trial.
        num_bootstrap: number of draws.
        seed: of the draws.

    Returns:
        (num_bootstrap, S, 2): the equal error rate, and the minimum detection cost.

    Raises:
        UserError: as `SpeakerBootstrap.draws`.
    """
    figures = np.empty((num_bootstrap, len(scores), 2))
    for draw, weights in enumerate(bootstrap.draws(num_bootstrap, seed)):
        for system, sorted_scores in enumerate(scores):
            false_accept_rate, miss_rate = sorted_scores.error_rates(weights)
            figures[draw, system, 0] = crossing_rate(false_accept_rate, miss_rate)
            figures[draw, system, 1] = least_cost(false_accept_rate, miss_rate, p_target)
    return figures


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The central 95 % of bootstrap values (percentile interval).

    Args:
        values: (num_bootstrap,).

    Returns:
        (low, high).
    """
    tail = (1.0 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return float(low), float(high)
