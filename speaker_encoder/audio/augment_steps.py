"""The kinds of augmentation: each changes one waveform, with the random numbers it is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from speaker_encoder.audio.codec import CODECS, transcode
from speaker_encoder.audio.noise_bank import SILENT_RMS, NoiseBank
from speaker_encoder.audio.pitch import shift_pitch

if TYPE_CHECKING:
    import torch

    from speaker_encoder.audio.voice_bank import VoiceBank

MAX_IMPULSE_RESPONSE_SECONDS = 10.0
_MAX_DRAWS = 16


class Step(Protocol):
    """One kind of augmentation."""

    def __call__(
        self, waveform: torch.Tensor, random: np.random.Generator, utterance: int
    ) -> torch.Tensor:
        """Changes one example.

        Args:
            waveform: (1, 1, T) float32; not changed.
            random: draws what is random.
            utterance: the example's utterance in the training corpus, -1 where none is known.

        Returns:
            (1, 1, T) float32.
        """


def _make_transform(class_name: str, **attributes: Any) -> Any:
    """A transform of torch-audiomentations that never looks for files.

    Its own constructor lists and opens files, which the bank replaces, so only the constructor
    of its base class is called.
    """
    import torch_audiomentations
    from torch_audiomentations.core.transforms_interface import BaseWaveformTransform

    transform_class = getattr(torch_audiomentations, class_name)
    transform = transform_class.__new__(transform_class)
    BaseWaveformTransform.__init__(transform, p=1.0, output_type="dict")
    for name, value in attributes.items():
        setattr(transform, name, value)
    return transform


class AddBackground:
    """Adds a stretch of recordings at a random signal-to-noise ratio."""

    def __init__(self, bank: NoiseBank, snr_db: tuple[float, float]) -> None:
        self._bank = bank
        self._pieces = np.arange(len(bank))
        self._snr_db = snr_db
        self._transform = _make_transform("AddBackgroundNoise")

    def __call__(
        self, waveform: torch.Tensor, random: np.random.Generator, utterance: int
    ) -> torch.Tensor:
        """(1, 1, T) -> (1, 1, T)."""
        import torch

        snr_db = random.uniform(*self._snr_db)
        background = draw_stretch(self._bank, self._pieces, waveform.shape[-1], random)
        self._transform.transform_parameters = {
            "background": background.to(waveform.device),  # (1, T), RMS 1
            "snr_in_db": torch.tensor([snr_db], dtype=torch.float32, device=waveform.device),
        }
        return self._transform.apply_transform(samples=waveform).samples


def draw_stretch(
    bank: NoiseBank,
    pieces: Sequence[int] | np.ndarray,
    num_samples: int,
    random: np.random.Generator,
) -> torch.Tensor:
    """A stretch of pieces, one after the other until it is long enough.

    As `AddBackgroundNoise.random_background`, but parts that are silent are drawn again.

    Args:
        bank: what the pieces are of.
        pieces: numbers of those that may be drawn.
        num_samples: T.
        random: draws.

    Returns:
        (1, T), RMS 1.
    """
    import torch
    from torch_audiomentations.utils.io import Audio

    parts: list[torch.Tensor] = []
    missing = num_samples
    while missing > 0:
        part = torch.from_numpy(_draw_part(bank, pieces, missing, random).copy())[None]
        missing -= part.shape[1]
        parts.append(Audio.rms_normalize(part))
    return Audio.rms_normalize(torch.cat(parts, dim=1))


def _draw_part(
    bank: NoiseBank,
    pieces: Sequence[int] | np.ndarray,
    num_samples: int,
    random: np.random.Generator,
) -> np.ndarray:
    for _ in range(_MAX_DRAWS):
        number = int(pieces[int(random.integers(len(pieces)))])
        spare = max(int(bank.lengths[number]) - num_samples, 0)
        part = bank.piece(number, int(random.integers(spare + 1)), num_samples)
        if np.sqrt(np.mean(np.square(part))) >= SILENT_RMS:
            break
    return part


class AddBabble:
    """Adds other people's voices, each at its own random signal-to-noise ratio.

    Source: Kaldi's `augment_data_dir.py` (Snyder et al. 2018, "X-vectors"), 3-7 voices at 13-20 dB.
    """

    def __init__(
        self, voices: VoiceBank, num_voices: tuple[int, int], snr_db: tuple[float, float]
    ) -> None:
        self._voices = voices
        self._num_voices = num_voices
        self._snr_db = snr_db
        self._pieces = {
            speaker: np.flatnonzero(voices.speakers == speaker)
            for speaker in np.unique(voices.speakers).tolist()
        }

    def __call__(
        self, waveform: torch.Tensor, random: np.random.Generator, utterance: int
    ) -> torch.Tensor:
        """(1, 1, T) -> (1, 1, T)."""
        import torch

        own = self._voices.speaker_of(utterance)
        others = [speaker for speaker in self._pieces if speaker != own]
        count = int(random.integers(self._num_voices[0], self._num_voices[1] + 1))
        babble = torch.zeros(1, waveform.shape[-1])
        for place in random.choice(len(others), count, replace=False).tolist():
            gain = 10 ** (-random.uniform(*self._snr_db) / 20)
            pieces = self._pieces[others[place]]
            babble += gain * draw_stretch(self._voices.bank, pieces, waveform.shape[-1], random)
        level = waveform.square().mean().sqrt()
        return waveform + level * babble.to(waveform.device)


class ShiftPitch:
    """Speaks it higher or lower; computed on the CPU."""

    def __init__(self, semitones: tuple[float, float], sampling_rate: int) -> None:
        self._semitones = semitones
        self._sampling_rate = sampling_rate

    def __call__(
        self, waveform: torch.Tensor, random: np.random.Generator, utterance: int
    ) -> torch.Tensor:
        """(1, 1, T) -> (1, 1, T)."""
        import torch

        semitones = float(random.uniform(*self._semitones))
        shifted = shift_pitch(waveform.flatten().cpu().numpy(), self._sampling_rate, semitones)
        return torch.from_numpy(shifted).reshape(waveform.shape).to(waveform.device)


class Transcode:
    """Sends it through one of some codecs, at one of its bit rates; computed on the CPU."""

    def __init__(self, codecs: tuple[str, ...], sampling_rate: int) -> None:
        self._codecs = codecs
        self._sampling_rate = sampling_rate

    def __call__(
        self, waveform: torch.Tensor, random: np.random.Generator, utterance: int
    ) -> torch.Tensor:
        """(1, 1, T) -> (1, 1, T)."""
        import torch

        name = self._codecs[int(random.integers(len(self._codecs)))]
        bit_rates = CODECS[name].bit_rates
        bit_rate = bit_rates[int(random.integers(len(bit_rates)))]
        coded = transcode(waveform.flatten().cpu().numpy(), self._sampling_rate, name, bit_rate)
        return torch.from_numpy(coded).reshape(waveform.shape).to(waveform.device)


class Reverberate:
    """Convolves with a room impulse response, and takes its delay out."""

    def __init__(self, bank: NoiseBank) -> None:
        self._bank = bank
        self._max_samples = int(MAX_IMPULSE_RESPONSE_SECONDS * bank.sampling_rate)
        self._transform = _make_transform(
            "ApplyImpulseResponse",
            convolve_mode="full",
            compensate_for_propagation_delay=True,
        )

    def __call__(
        self, waveform: torch.Tensor, random: np.random.Generator, utterance: int
    ) -> torch.Tensor:
        """(1, 1, T) -> (1, 1, T)."""
        import torch

        number = int(random.integers(len(self._bank)))
        response = torch.from_numpy(self._bank.piece(number, 0, self._max_samples).copy())
        self._transform.transform_parameters = {"ir": response.reshape(1, 1, -1)}
        return self._transform.apply_transform(samples=waveform).samples
