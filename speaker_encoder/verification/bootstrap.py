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
from speaker_encoder.verification.trials import Trials

CONFIDENCE = 0.95
MAX_TRIES = 20
"""Draws of speakers made for each one wanted, before giving up."""


class TooFewSpeakersError(UserError):
    """Drawing speakers gives target and nontarget trials too rarely."""


@dataclass(frozen=True, slots=True)
class SpeakerBootstrap:
    """The speakers of labelled trials, and seeded draws of them.

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

    def copies(
        self, num_bootstrap: int, seed: int, block_size: int = 1
    ) -> Iterator[NDArray[np.float32]]:
        """How often each speaker is drawn; draws without a target or a nontarget are drawn again.

        Args:
            num_bootstrap: number of draws, at least 1.
            seed: of the draws; they do not depend on `block_size`.
            block_size: the most draws to give at once.

        Yields:
            (num_speakers + 1, K) whole numbers, a column for each draw, K at most `block_size`.
            The last row is 1: the weight of a trial is the product of two rows, that of its
            enrolment speaker and `partner`.

        Raises:
            UserError: `num_bootstrap` below 1.
            TooFewSpeakersError: speakers so few that (almost) no draw has both kinds of trials.
        """
        if num_bootstrap < 1:
            raise UserError(f"num_bootstrap must be at least 1, found {num_bootstrap}.")
        rng = np.random.default_rng(seed)
        probabilities = np.full(self.num_speakers, 1.0 / self.num_speakers)
        pairs_of_class = [self._pairs(self.is_target), self._pairs(~self.is_target)]
        num_left, num_tries = num_bootstrap, num_bootstrap * MAX_TRIES
        while num_left and num_tries:
            size = min(block_size, num_tries)
            drawn = rng.multinomial(self.num_speakers, probabilities, size=size).T
            copies = np.ones((self.num_speakers + 1, size), dtype=np.float32)
            copies[:-1] = drawn
            has_both = np.logical_and(*(_any_drawn(copies, *pairs) for pairs in pairs_of_class))
            block = copies[:, has_both][:, :num_left]
            num_left -= block.shape[1]
            num_tries -= size
            if block.shape[1]:
                yield np.ascontiguousarray(block)
        if num_left:
            raise TooFewSpeakersError(
                f"A confidence interval needs more than {self.num_speakers} speakers in the "
                "trials: drawing speakers gave target and nontarget trials too rarely."
            )

    @property
    def partner(self) -> NDArray[np.int64]:
        """(N,) the row of `copies` to multiply with: of the test speaker, or the last row (1)."""
        is_same = self.enrolment_speaker == self.test_speaker
        return np.where(is_same, self.num_speakers, self.test_speaker)

    def _pairs(self, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The distinct rows of `copies` that the chosen trials multiply."""
        width = self.num_speakers + 1
        keys = np.unique(self.enrolment_speaker[chosen] * width + self.partner[chosen])
        return keys // width, keys % width


def _any_drawn(
    copies: NDArray[np.float32], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """(K,) whether a draw has any of the pairs."""
    found = np.zeros(copies.shape[1], dtype=np.bool_)
    for start in range(0, len(first), 4096):  # the first few pairs decide nearly always
        chunk = slice(start, start + 4096)
        found |= ((copies[first[chunk]] > 0) & (copies[second[chunk]] > 0)).any(axis=0)
        if found.all():
            break
    return found


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
