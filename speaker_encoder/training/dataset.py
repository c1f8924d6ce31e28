"""From an example's key to its crop, and from crops to a batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from torch.utils.data import Dataset

from speaker_encoder.audio import AudioError, fit_to_length
from speaker_encoder.audio.ranges import UNREACHABLE
from speaker_encoder.corpora import Utterance
from speaker_encoder.training.sampler import ExampleKey
from speaker_encoder.training.speech import SpeechReader

if TYPE_CHECKING:
    from speaker_encoder.audio.augment import Augmenter

ShortUtterances: TypeAlias = Literal["repeat", "zero_pad"]
Views: TypeAlias = Literal["speaker", "utterance", "halves"]

_WINDOW_STREAM = 2
_CROP_STREAM = 3
_MOST_RECORDINGS = 16  # that a view goes to
_FRAMES_PER_SECOND, _FRAMES_AT_ONCE = 100, 6000
_SILENCE = 1e-5  # below one step of 16-bit audio: nothing was recorded


@dataclass(frozen=True)
class Crop:
    """One example: `waveform` (T,) float32 at the model's rate, and where it came from.

    `failure` is a text when no recording of the speaker could be used, or the server of the
    recordings does not answer; an error that is raised in a loader's process would come out with
    that process's traceback.
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
        self._lost: str | None = None  # what the server that does not answer said

    def __len__(self) -> int:
        return len(self._utterances)

    @property
    def longest_crop(self) -> int:
        """Samples of the longest crop that there can be."""
        return round(self._window_seconds[1] * self._sampling_rate)

    def num_samples(self, position: int) -> int:
        """Gives the crop length of the batch that `position` belongs to."""
        shortest, longest = self._window_seconds
        batch = position // self._batch_size
        generator = np.random.default_rng([self._seed, _WINDOW_STREAM, batch])
        seconds = shortest + (longest - shortest) * generator.random()
        return round(seconds * self._sampling_rate)

    def __getitem__(self, key: ExampleKey) -> Crop:
        """Reads the crop; an unusable file is replaced by another of its speaker, and named.

        Where the server of a recording does not answer, the others are not tried, nor those of
        crops after this one: each would wait for it as long.
        """
        label = self._labels[key.utterance]
        problems: list[tuple[str, str]] = []
        for index in self._recordings(key) if self._lost is None else ():
            for fraction, is_of_sound in self._places(key.position):
                try:
                    waveform = self._read(index, key.position, fraction, is_of_sound)
                except AudioError as error:
                    if error.reason in UNREACHABLE:
                        self._lost = str(error)
                        return self._failed(key, problems)
                    problems.append((self._utterances[index].path, error.reason))
                    continue
                return Crop(waveform, label, index, key.position, tuple(problems))
        return self._failed(key, problems)

    def _failed(self, key: ExampleKey, problems: Sequence[tuple[str, str]]) -> Crop:
        """Gives a crop of nothing, with the reason."""
        if self._lost is not None:
            failure = (
                f"{self._lost}. The training data cannot be reached. When its server answers "
                "again, the same command with force_restart false goes on from the newest "
                "checkpoint."
            )
        else:
            listed = "\n".join(f"  {path}: {reason}" for path, reason in dict.fromkeys(problems))
            failure = (
                f"Speaker {self._utterances[key.utterance].speaker_id!r} has no usable "
                f"recording:\n{listed}\nRepair or remove these files, or the speaker."
            )
        nothing = np.zeros(self.num_samples(key.position), dtype=np.float32)
        label = self._labels[key.utterance]
        return Crop(nothing, label, key.utterance, key.position, tuple(problems), failure)

    def _recordings(self, key: ExampleKey) -> Iterable[int]:
        """Gives utterances until one can be used: those of the speaker, in a circle.

        A view has no speaker: it goes to the utterances that follow in the corpus.
        """
        if self._views == "speaker":
            members = self._members[self._labels[key.utterance]]
            first = members.index(key.utterance)
            return (*members[first:], *members[:first])
        count = len(self._utterances)
        return ((key.utterance + turn) % count for turn in range(min(_MOST_RECORDINGS, count)))

    def _places(self, position: int) -> Iterator[tuple[float, bool]]:
        """Gives places in a recording, as fractions of all that it has, or of where it sounds.

        The views of an utterance must take theirs from one recording, and know nothing of each
        other. So one whose place is unusable tries where there is sound, and then where the others
        try first: it leaves the recording only where all of them do.
        """
        counter = position // self._num_views if self._views == "halves" else position
        own, again = self._fractions(counter)
        yield own, False
        if self._views == "speaker":
            return
        yield again, True
        first = position - position % self._num_views
        others = range(first, first + self._num_views) if self._views == "utterance" else ()
        for other in others:
            if other != position:
                yield self._fractions(other)[0], False

    def _fractions(self, counter: int) -> tuple[float, float]:
        own, again = np.random.default_rng([self._seed, _CROP_STREAM, counter]).random(2)
        return own, again

    def _read(
        self, index: int, position: int, fraction: float, is_of_sound: bool = False
    ) -> np.ndarray:
        """Decodes the crop at `fraction` of the room for it; silence is an error."""
        wanted = self.num_samples(position)
        num_parts = 2 if self._views == "halves" else 1
        length = num_parts * wanted
        room = max(self._reader.num_samples(index) - length, 0)
        if is_of_sound:
            start = self._find_sound(index, wanted, num_parts, fraction)
        else:
            start = int(fraction * (room + 1))
        waveform = self._reader.read(index, start, length)
        if waveform.size:
            waveform = fit_to_length(waveform, length, self._short_utterances)
        parts = [waveform[first : first + wanted] for first in range(0, length, wanted)]
        if any(is_silent(part) for part in parts):
            raise AudioError(self._utterances[index].path, "digital silence")
        return parts[position % self._num_views % len(parts)]

    def _find_sound(self, index: int, wanted: int, num_parts: int, fraction: float) -> int:
        """Gives a sample from which each of the parts holds sound, having decoded everything."""
        available = self._reader.num_samples(index)
        frame = self._sampling_rate // _FRAMES_PER_SECOND
        loud = [np.zeros(1, bool)]
        for start in range(0, available, frame * _FRAMES_AT_ONCE):
            waveform = self._reader.read(index, start, frame * _FRAMES_AT_ONCE)
            frames = waveform[: waveform.size // frame * frame].reshape(-1, frame)
            loud.append(np.abs(frames).max(axis=1) >= _SILENCE)
        num_loud = np.cumsum(np.concatenate(loud))  # before each frame
        starts = np.arange(max(available - num_parts * wanted, 0) // frame + 1)
        has_sound = np.ones(starts.size, bool)
        for part in range(num_parts):
            first, last = -(-part * wanted // frame), (part + 1) * wanted // frame
            before, behind = (
                num_loud[np.minimum(starts + bound, num_loud.size - 1)] for bound in (first, last)
            )
            has_sound &= behind > before
        found = np.flatnonzero(has_sound)
        if not found.size:
            raise AudioError(self._utterances[index].path, "digital silence")
        return frame * int(found[int(fraction * found.size)])


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
