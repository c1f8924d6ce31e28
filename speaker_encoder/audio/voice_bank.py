"""Voices in memory, to be mixed into the babble behind an example."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.audio.noise_bank import (
    MIN_PIECE_SECONDS,
    NoiseBank,
    find_audio_files,
    load_bank,
)
from speaker_encoder.errors import UserError

_VOICES_STREAM = 15  # sets these random numbers apart from those of the bank itself


@dataclass(frozen=True)
class VoiceBank:
    """Pieces of speech, and whose they are.

    Attributes:
        bank: the pieces.
        speakers: (N,) int64, the number of each piece's speaker.
        owners: (U,) int64, the number of the speaker of each utterance of the training corpus;
            empty where the voices are not of it.
    """

    bank: NoiseBank
    speakers: NDArray[np.int64]
    owners: NDArray[np.int64]

    def speaker_of(self, utterance: int) -> int:
        """The number of the speaker of an utterance; -1 where the voices are not of its corpus.

        Raises:
            ValueError: no utterance is given and one is needed.
        """
        if len(self.owners) == 0:
            return -1
        if utterance < 0:
            raise ValueError("Babble of the corpus needs to know each example's utterance.")
        return int(self.owners[utterance])


def load_voices(
    recordings: Sequence[tuple[str, str]],
    folders: Sequence[str],
    sampling_rate: int,
    *,
    most_voices: int,
    max_seconds: float = 600.0,
    seed: int = 0,
) -> VoiceBank:
    """Reads speech into memory, `max_seconds` of it at most, of as many speakers as it goes.

    Args:
        recordings: path and speaker of each utterance of the training corpus; empty: none of it.
        folders: folders or files of speech besides, such as MUSAN's; each file is a speaker.
        sampling_rate: in Hz, of what is kept.
        most_voices: of one babble.
        max_seconds: bound on what is kept.
        seed: of the choice.

    Raises:
        UserError: a folder does not exist, nothing is usable, or there are too few speakers.
    """
    names = sorted({speaker for _, speaker in recordings})
    numbers = {name: number for number, name in enumerate(names)}
    chosen = _deal(recordings, names, int(max_seconds / MIN_PIECE_SECONDS) + 1, seed)
    chosen.update(
        (path, len(numbers) + place)
        for place, path in enumerate(find_audio_files(folders, "voices"))
    )
    bank = load_bank(list(chosen), sampling_rate, what="voices", max_seconds=max_seconds, seed=seed)
    speakers = np.array([chosen[path] for path in bank.paths], dtype=np.int64)
    found, needed = len(np.unique(speakers)), most_voices + bool(recordings)
    if found < needed:
        raise UserError(
            f"Babble of up to {most_voices} voices, none of them the example's own, needs voices "
            f"of {needed} speakers, found {found}. Lower augment_babble_voices, raise "
            "augment_bank_seconds, or give more recordings."
        )
    owners = np.array([numbers[speaker] for _, speaker in recordings], dtype=np.int64)
    return VoiceBank(bank, speakers, owners)


def _deal(
    recordings: Sequence[tuple[str, str]], names: Sequence[str], count: int, seed: int
) -> dict[str, int]:
    """Chooses recordings, one of each speaker before the second of any: path -> speaker."""
    paths: dict[str, list[str]] = {name: [] for name in names}
    for path, speaker in recordings:
        paths[speaker].append(path)
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, _VOICES_STREAM))))
    rows = []
    for number in random.permutation(len(names)).tolist():
        own = list(dict.fromkeys(paths[names[number]]))
        rows.append([(own[place], number) for place in random.permutation(len(own)).tolist()])
    turns = itertools.chain.from_iterable(itertools.zip_longest(*rows))
    return dict(itertools.islice((turn for turn in turns if turn is not None), count))
