"""From an example's key to its crop, and from crops to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from torch.utils.data import Dataset

from speaker_encoder.audio import AudioError, fit_to_length
from speaker_encoder.corpora import Utterance
from speaker_encoder.training.sampler import ExampleKey
from speaker_encoder.training.speech import SpeechReader

if TYPE_CHECKING:
    from speaker_encoder.audio.augment import Augmenter

ShortUtterances: TypeAlias = Literal["repeat", "zero_pad"]

_WINDOW_STREAM = 2
_CROP_STREAM = 3
_SILENCE = 1e-5  # below one step of 16-bit audio: nothing was recorded


@dataclass(frozen=True)
class Crop:
    """One example: `waveform` (T,) float32 at the model's rate, and where it came from.

    `failure` is a text when no recording of the speaker could be used; an error that is raised in
    a loader's process would come out with that process's traceback.
    """

    waveform: np.ndarray
    label: int
    utterance: int
    position: int
    problems: tuple[tuple[str, str], ...]
    failure: str | None = None


class CropDataset(Dataset[Crop]):
    """Random crops, each a function of (seed, position) and of nothing else.

    Args:
        utterances: the utterances that keys refer to.
        speakers: utterance indices by speaker, for labels and for a replacement when a file
            turns out to be unusable.
        sampling_rate: Hz, of the model.
        window_seconds: shortest and longest crop; the length is drawn once per batch.
        batch_size: examples per batch over all processes; positions count through them.
        short_utterances: "repeat" or "zero_pad", for utterances shorter than the crop.
        seed: of the run.
        trim_silence: "off", "energy" or "vad": crops are taken from what trimming leaves.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        speakers: dict[str, list[int]],
        sampling_rate: int,
        window_seconds: tuple[float, float],
        batch_size: int,
        short_utterances: ShortUtterances,
        seed: int,
        trim_silence: str = "off",
    ) -> None:
        self._utterances = utterances
        self._speakers = speakers
        self._labels = {name: label for label, name in enumerate(speakers)}
        self._reader = SpeechReader(utterances, sampling_rate, trim_silence)
        self._sampling_rate = sampling_rate
        self._window_seconds = window_seconds
        self._batch_size = batch_size
        self._short_utterances = short_utterances
        self._seed = seed

    def __len__(self) -> int:
        return len(self._utterances)

    def num_samples(self, position: int) -> int:
        """Gives the crop length of the batch that `position` belongs to."""
        shortest, longest = self._window_seconds
        batch = position // self._batch_size
        generator = np.random.default_rng([self._seed, _WINDOW_STREAM, batch])
        seconds = shortest + (longest - shortest) * generator.random()
        return round(seconds * self._sampling_rate)

    def __getitem__(self, key: ExampleKey) -> Crop:
        """Reads the crop; an unusable file is replaced by another of its speaker, and named."""
        speaker_id = self._utterances[key.utterance].speaker_id
        members = self._speakers[speaker_id]
        first = members.index(key.utterance)
        generator = np.random.default_rng([self._seed, _CROP_STREAM, key.position])
        fraction = generator.random()
        problems: list[tuple[str, str]] = []
        for turn in range(len(members)):
            index = members[(first + turn) % len(members)]
            try:
                waveform = self._read(index, self.num_samples(key.position), fraction)
            except AudioError as error:
                problems.append((self._utterances[index].path, error.reason))
                continue
            label = self._labels[speaker_id]
            return Crop(waveform, label, index, key.position, tuple(problems))
        listed = "\n".join(f"  {path}: {reason}" for path, reason in problems)
        failure = (
            f"Speaker {speaker_id!r} has no usable recording:\n{listed}\n"
            "Repair or remove these files, or the speaker."
        )
        nothing = np.zeros(self.num_samples(key.position), dtype=np.float32)
        label = self._labels[speaker_id]
        return Crop(nothing, label, key.utterance, key.position, tuple(problems), failure)

    def _read(self, index: int, num_samples: int, fraction: float) -> np.ndarray:
        """Decodes the crop at `fraction` of the room for it; silence is an error."""
        available = self._reader.num_samples(index)
        start = int(fraction * (max(available - num_samples, 0) + 1))
        waveform = self._reader.read(index, start, num_samples)
        if is_silent(waveform):
            raise AudioError(self._utterances[index].path, "digital silence")
        return fit_to_length(waveform, num_samples, self._short_utterances)


def is_silent(waveform: np.ndarray) -> bool:
    """Was nothing recorded in this waveform (T,), or is there none."""
    return waveform.size == 0 or float(np.abs(waveform).max()) < _SILENCE


class CollateCrops:
    """Stacks crops into a batch, and augments it here when that happens on the CPU.

    The batch has `input_values` (B, T) float32, `labels` (B,) int64, `utterances` (B,) and
    `positions` (B,) int64, `problems`, the files that could not be used, and `failures`, texts of
    speakers without any that can.
    """

    def __init__(self, augmenter: Augmenter | None = None) -> None:
        self._augmenter = augmenter

    def __call__(self, crops: Sequence[Crop]) -> dict[str, Any]:
        """Gives the batch of these crops."""
        input_values = torch.from_numpy(np.stack([crop.waveform for crop in crops]))
        positions = torch.tensor([crop.position for crop in crops])
        if self._augmenter is not None:
            input_values = self._augmenter(input_values, positions)
        return {
            "input_values": input_values,
            "labels": torch.tensor([crop.label for crop in crops]),
            "utterances": torch.tensor([crop.utterance for crop in crops]),
            "positions": positions,
            "problems": [problem for crop in crops for problem in crop.problems],
            "failures": [crop.failure for crop in crops if crop.failure is not None],
        }
