"""Reads parts of utterances, counted in what trimming leaves of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from speaker_encoder.audio import AudioError, AudioInfo, read_audio
from speaker_encoder.audio.trim import TrimMethod, find_speech
from speaker_encoder.corpora import Utterance

_PIECE_SECONDS = 60.0  # as the exporter, which trims long recordings piece by piece too


class SpeechReader:
    """Utterances without their silence, at the model's rate.

    Where a recording is silent is found when it is first read, by decoding it whole, and then
    remembered; with ``off`` nothing is decoded but what is asked for.

    Args:
        utterances: what indices refer to.
        sampling_rate: Hz, of the model.
        trim_silence: ``off``, ``energy`` or ``vad``, as `speaker_encoder.audio.trim`.
    """

    def __init__(
        self, utterances: Sequence[Utterance], sampling_rate: int, trim_silence: str = "off"
    ) -> None:
        self.utterances = utterances
        self._rate = sampling_rate
        self._method = cast(TrimMethod, trim_silence)
        self._spans: dict[int, list[tuple[int, int]]] = {}

    def num_samples(self, index: int) -> int:
        """Gives the samples of an utterance that are left.

        Raises:
            AudioError: it cannot be read, or nothing is left.
        """
        return sum(stop - start for start, stop in self._speech(index))

    def read(self, index: int, start: int, num_samples: int) -> np.ndarray:
        """Reads a part of what is left of an utterance.

        Args:
            index: the utterance.
            start: first sample, counted in what is left.
            num_samples: how many; fewer come back at the end.

        Returns:
            (T,) float32.

        Raises:
            AudioError: it cannot be read.
        """
        pieces, position = [], 0
        for first, last in self._speech(index):
            low = max(start, position)
            high = min(start + num_samples, position + last - first)
            if low < high:
                pieces.append(self._read(index, first + low - position, high - low))
            position += last - first
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.zeros(0, "f4"), *pieces])

    def _speech(self, index: int) -> list[tuple[int, int]]:
        """(start, stop) of the speech in an utterance, in samples."""
        utterance = self.utterances[index]
        total = int(utterance.num_samples * self._rate / utterance.played_rate)
        if self._method == "off":
            return [(0, max(total, 1))]
        if index not in self._spans:
            spans: list[tuple[int, int]] = []
            piece = round(_PIECE_SECONDS * self._rate)
            for start in range(0, total, piece):
                waveform = self._read(index, start, piece)
                found = find_speech(waveform, self._rate, self._method)
                spans += [(start + first, start + last) for first, last in found]
            if self._method == "energy" and spans:  # only the two ends are cut off
                spans = [(spans[0][0], spans[-1][1])]
            self._spans[index] = spans
        if not self._spans[index]:
            raise AudioError(utterance.path, "only silence")
        return self._spans[index]

    def _read(self, index: int, start: int, num_samples: int) -> np.ndarray:
        utterance = self.utterances[index]
        info = AudioInfo(utterance.num_samples, utterance.sampling_rate, 1)
        return read_audio(
            utterance.path,
            self._rate,
            start=start,
            num_samples=num_samples,
            info=info,
            played_rate=utterance.played_rate,
        )
