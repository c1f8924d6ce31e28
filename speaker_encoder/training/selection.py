"""Which utterances of the training corpus are trained on, and at which speeds."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from speaker_encoder.corpora import Utterance

_SPEAKERS_STREAM = 4  # sets these random numbers apart from those of batches and crops
_MOST_SHOWN = 20
_SPEED_PREFIX = re.compile(r"^sp[0-9.]+-")

_logger = logging.getLogger(__name__)


def select_speakers(
    utterances: Sequence[Utterance], max_speakers: int, least_utterances: int, seed: int
) -> set[str]:
    """A random choice of speakers; with the same seed that of fewer is a part of that of more.

    Args:
        utterances: of the corpus.
        max_speakers: how many are chosen, at most.
        least_utterances: speakers with fewer are chosen last.
        seed: of the choice.
    """
    counts = Counter(utterance.speaker_id for utterance in utterances)
    names = sorted(counts)
    order = np.random.default_rng([seed, _SPEAKERS_STREAM]).permutation(len(names)).tolist()
    shuffled = [names[place] for place in order]
    shuffled.sort(key=lambda name: counts[name] < least_utterances)  # stable
    return set(shuffled[:max_speakers])


def cap_speakers(
    utterances: Sequence[Utterance], max_speakers: int | None, least_utterances: int, seed: int
) -> tuple[Utterance, ...]:
    """Leaves the utterances of a random choice of speakers, which is named in the log.

    Args:
        utterances: of the corpus.
        max_speakers: how many are left, at most; None for all.
        least_utterances: as in `select_speakers`.
        seed: of the choice.
    """
    num_found = len({utterance.speaker_id for utterance in utterances})
    if max_speakers is None or num_found <= max_speakers:
        return tuple(utterances)
    chosen = select_speakers(utterances, max_speakers, least_utterances, seed)
    shown = ", ".join(sorted(chosen)[:_MOST_SHOWN])
    rest = f" and {len(chosen) - _MOST_SHOWN} more" if len(chosen) > _MOST_SHOWN else ""
    _logger.info(
        "max_speakers: %d of %d training speakers, chosen with seed %d: %s%s",
        *(len(chosen), num_found, seed, shown, rest),
    )
    return tuple(utterance for utterance in utterances if utterance.speaker_id in chosen)


def perturb_speed(
    utterances: Sequence[Utterance], speeds: Sequence[float]
) -> tuple[Utterance, ...]:
    """The utterances, and each of them again at each speed as one of a new speaker.

    Args:
        utterances: as recorded.
        speeds: factors; 1.1 is a tenth faster, and higher.

    Returns:
        The same, then those of each speed; speakers and utterances of a speed have Kaldi's
        prefix: `sp1.1-<name>`.
    """
    copies = [
        replace(
            utterance,
            utterance_id=f"sp{speed:g}-{utterance.utterance_id}",
            speaker_id=f"sp{speed:g}-{utterance.speaker_id}",
            speed=speed,
        )
        for speed in speeds
        for utterance in utterances
    ]
    return (*utterances, *copies)


def person_of(utterance: Utterance) -> str:
    """Who speaks: the speaker as recorded, at whatever speed."""
    if utterance.speed == 1:
        return utterance.speaker_id
    return _SPEED_PREFIX.sub("", utterance.speaker_id, count=1)
