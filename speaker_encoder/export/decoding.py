"""Decodes and trims the utterances of a unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.audio import AudioError, read_audio
from speaker_encoder.audio.trim import trim_silence
from speaker_encoder.export.options import ExportOptions
from speaker_encoder.export.planning import Unit
from speaker_encoder.export.source import Source

Waveform = NDArray[np.float32]


class UnitLoader:
    """Decodes the utterances of a unit; a dataset for torch's DataLoader.

    Args:
        source: the corpus.
        units: what to load.
        options: trimming.
        sampling_rate: of the model, in Hz.
        min_num_samples: of the shortest utterance that the model can embed.
    """

    def __init__(
        self,
        source: Source,
        units: Sequence[Unit],
        options: ExportOptions,
        sampling_rate: int,
        min_num_samples: int,
    ) -> None:
        self._source = source
        self._units = units
        self._method: Any = options.trim_silence
        self._rate = sampling_rate
        self._min_num_samples = min_num_samples

    def __len__(self) -> int:
        return len(self._units)

    def __getitem__(self, number: int) -> tuple[int, dict[int, Waveform], dict[int, str]]:
        """(number of the unit, index -> waveform, index -> why it cannot be used)."""
        unit = self._units[number]
        waveforms: dict[int, Waveform] = {}
        failures: dict[int, str] = {}
        if not unit.is_long:
            for index in unit.indices:
                try:
                    waveforms[index] = self.read(index)
                except AudioError as error:
                    failures[index] = error.reason + (f" ({error.detail})" if error.detail else "")
        return number, waveforms, failures

    def read(self, index: int, start: int = 0, num_samples: int | None = None) -> Waveform:
        """(T,) of an utterance or a part of it, trimmed.

        Raises:
            AudioError: it cannot be read, or is too short to be embedded.
        """
        path = self._source.items[index].relative_path
        with self._source.audio_path(index) as name:
            waveform = read_audio(name, self._rate, start=start, num_samples=num_samples)
        trimmed = trim_silence(waveform, self._rate, self._method)
        if len(trimmed) < self._min_num_samples:
            what = "too short" if len(waveform) < self._min_num_samples else "only silence"
            raise AudioError(
                path,
                what,
                f"{len(trimmed) / self._rate:.3f} s"
                + (" after trimming" if what == "only silence" else "")
                + f"; the encoder needs {self._min_num_samples / self._rate:.3f} s",
            )
        return trimmed
