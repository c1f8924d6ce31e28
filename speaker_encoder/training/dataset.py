"""From an example's key to its crop, and from crops to a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
Views: TypeAlias = Literal["speaker", "utterance", "halves"]

_WINDOW_STREAM = 2
_CROP_STREAM = 3
_OWN_TRIES, _OTHER_TRIES = 4, 16
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
            turns out to be unusable; of views, by utterance.
        sampling_rate: Hz, of the model.
        window_seconds: shortest and longest crop; the length is drawn once per batch.
        batch_size: examples per batch over all processes; positions count through them.
        short_utterances: "repeat" or "zero_pad", for utterances shorter than the crop.
        seed: of the run.
        trim_silence: "off", "energy" or "vad": crops are taken from what trimming leaves.
        views: "speaker": each example is a crop by itself. "utterance": the examples of an
            utterance are as many random crops of it. "halves": they are the halves of one crop
            of twice the length, one after the other, over and over.
        num_views: examples of each utterance, neighbours in the batch.
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
        views: Views = "speaker",
        num_views: int = 1,
    ) -> None:
        self._utterances = utterances
        self._members = list(speakers.values())
        self._labels = {
            index: label for label, members in enumerate(self._members) for index in members
        }
        self._reader = SpeechReader(utterances, sampling_rate, trim_silence)
        self._sampling_rate = sampling_rate
        self._window_seconds = window_seconds
        self._batch_size = batch_size
        self._short_utterances = short_utterances
        self._seed = seed
        self._views = views
        self._num_views = num_views

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
        label = self._labels[key.utterance]
        problems: list[tuple[str, str]] = []
        for index, fraction in self._attempts(key):
            try:
                waveform = self._read(index, key.position, fraction)
            except AudioError as error:
                problems.append((self._utterances[index].path, error.reason))
                continue
            return Crop(waveform, label, index, key.position, tuple(problems))
        listed = "\n".join(f"  {path}: {reason}" for path, reason in dict.fromkeys(problems))
        failure = (
            f"Speaker {self._utterances[key.utterance].speaker_id!r} has no usable recording:\n"
            f"{listed}\nRepair or remove these files, or the speaker."
        )
        nothing = np.zeros(self.num_samples(key.position), dtype=np.float32)
        return Crop(nothing, label, key.utterance, key.position, tuple(problems), failure)

    def _attempts(self, key: ExampleKey) -> Iterator[tuple[int, float]]:
        """Gives utterances, and places in them, until one can be used.

        A view has no other recording to go to: other places in its own are tried, and then the
        utterances that follow in the corpus, for all views of the utterance the same ones.
        """
        counter = key.position if self._views != "halves" else key.position // self._num_views
        generator = np.random.default_rng([self._seed, _CROP_STREAM, counter])
        if self._views == "speaker":
            fraction = generator.random()
            members = self._members[self._labels[key.utterance]]
            first = members.index(key.utterance)
            yield from ((index, fraction) for index in (*members[first:], *members[:first]))
            return
        for _ in range(_OWN_TRIES):
            yield key.utterance, generator.random()
        for turn in range(1, min(_OTHER_TRIES, len(self._utterances))):
            yield (key.utterance + turn) % len(self._utterances), generator.random()

    def _read(self, index: int, position: int, fraction: float) -> np.ndarray:
        """Decodes the crop at `fraction` of the room for it; silence is an error."""
        wanted = self.num_samples(position)
        length = 2 * wanted if self._views == "halves" else wanted
        available = self._reader.num_samples(index)
        start = int(fraction * (max(available - length, 0) + 1))
        waveform = self._reader.read(index, start, length)
        if waveform.size:
            waveform = fit_to_length(waveform, length, self._short_utterances)
        parts = [waveform[first : first + wanted] for first in range(0, length, wanted)]
        if any(is_silent(part) for part in parts):
            raise AudioError(self._utterances[index].path, "digital silence")
        return parts[position % self._num_views % len(parts)]


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
        utterances = torch.tensor([crop.utterance for crop in crops])
        if self._augmenter is not None:
            input_values = self._augmenter(input_values, positions, utterances)
        return {
            "input_values": input_values,
            "labels": torch.tensor([crop.label for crop in crops]),
            "utterances": utterances,
            "positions": positions,
            "problems": [problem for crop in crops for problem in crop.problems],
            "failures": [crop.failure for crop in crops if crop.failure is not None],
        }
