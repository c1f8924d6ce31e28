"""Augments waveforms with music, noise and room impulse responses, each example by itself.

The mathematics are torch-audiomentations' `AddBackgroundNoise` and `ApplyImpulseResponse`. What
they mix in comes from banks in memory instead of files, and what is random comes from counters:
the augmentation of an example depends on (seed, position, its waveform) and on nothing else, to
the bit. For that each example is computed alone and on one thread, since the summation order of
a reduction or a transform may change with the shape of a batch and the number of threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from speaker_encoder.audio.noise_bank import SILENT_RMS, NoiseBank, load_bank

if TYPE_CHECKING:
    import torch

MAX_IMPULSE_RESPONSE_SECONDS = 10.0
_MAX_DRAWS = 16
_MUSIC_STREAM, _NOISE_STREAM, _REVERB_STREAM = 12, 13, 14


@dataclass(frozen=True)
class AugmentConfig:
    """What is mixed in, how often and how loud; music first, then noise, then rooms.

    Attributes:
        noise_paths, music_paths, reverb_paths: folders or files; empty leaves that kind out.
        noise_p, music_p, reverb_p: probability per example.
        snr_db: least and largest signal-to-noise ratio in dB, of music and of noise.
        bank_seconds: bound on the audio of each kind in memory.
    """

    noise_paths: tuple[str, ...] = ()
    music_paths: tuple[str, ...] = ()
    reverb_paths: tuple[str, ...] = ()
    noise_p: float = 0.6
    music_p: float = 0.6
    reverb_p: float = 0.6
    snr_db: tuple[float, float] = (10.0, 15.0)
    bank_seconds: float = 600.0


class _Step(Protocol):
    """One kind of augmentation."""

    stream: int
    probability: float

    def __call__(self, waveform: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
        """(1, 1, T) -> (1, 1, T)."""


class Augmenter:
    """Augments batches; the same example is augmented alike in every batch, to the bit.

    Peaks may exceed 1, as in torch-audiomentations; nothing is clipped. On a CUDA device the
    result is the same for any batch, not the same as on the CPU.

    Args:
        config: what is mixed in.
        sampling_rate: in Hz, of the waveforms.
        device: where it is computed.
        seed: of everything random, also of the choice of recordings.

    Attributes:
        device: as given.
        banks: kind -> what is mixed in.

    Raises:
        UserError: a path does not exist, or holds no usable recording.
    """

    def __init__(
        self, config: AugmentConfig, sampling_rate: int, device: str = "cpu", seed: int = 0
    ) -> None:
        self.config = config
        self.sampling_rate = sampling_rate
        self.device = device
        self.seed = seed
        self.banks: dict[str, NoiseBank] = {}
        steps = [
            self._add_background("music", config.music_paths, config.music_p, _MUSIC_STREAM),
            self._add_background("noise", config.noise_paths, config.noise_p, _NOISE_STREAM),
            self._add_reverb(config.reverb_paths, config.reverb_p),
        ]
        self._steps: list[_Step] = [step for step in steps if step is not None]

    def _add_background(
        self, what: str, paths: tuple[str, ...], probability: float, stream: int
    ) -> _Background | None:
        if not paths or probability == 0:
            return None
        self.banks[what] = load_bank(
            paths,
            self.sampling_rate,
            what=what,
            max_seconds=self.config.bank_seconds,
            seed=self.seed,
        )
        return _Background(self.banks[what], self.config.snr_db, probability, stream)

    def _add_reverb(self, paths: tuple[str, ...], probability: float) -> _Reverb | None:
        if not paths or probability == 0:
            return None
        what = "impulse responses"
        self.banks[what] = load_bank(
            paths,
            self.sampling_rate,
            what=what,
            max_seconds=self.config.bank_seconds,
            seed=self.seed,
            from_start=True,
        )
        return _Reverb(self.banks[what], probability, _REVERB_STREAM)

    def __call__(self, waveforms: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Augments a batch.

        Args:
            waveforms: (B, T) float32; not changed.
            positions: (B,) int64, the number of each example, counted over the whole run.

        Returns:
            (B, T) float32, on the device of `waveforms`.
        """
        import torch

        augmented = waveforms.detach().to(self.device, dtype=torch.float32, copy=True)
        if waveforms.numel() == 0:
            return augmented.to(waveforms.device)
        with torch.no_grad(), _one_thread():
            for row, position in enumerate(positions.tolist()):
                example = augmented[row].reshape(1, 1, -1)
                for step in self._steps:
                    random = _random(self.seed, step.stream, position)
                    if random.random() < step.probability:
                        example = step(example, random)
                augmented[row] = example[0, 0]
        return augmented.to(waveforms.device)


def _random(seed: int, stream: int, position: int) -> np.random.Generator:
    """The random numbers of one kind of augmentation for one example."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, stream, position))))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Computes on one thread: with more, torch splits long sums, and their last bits change."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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


class _Background:
    """Adds a stretch of recordings at a random signal-to-noise ratio."""

    def __init__(
        self, bank: NoiseBank, snr_db: tuple[float, float], probability: float, stream: int
    ) -> None:
        self._bank = bank
        self._snr_db = snr_db
        self.probability = probability
        self.stream = stream
        self._transform = _make_transform("AddBackgroundNoise")

    def __call__(self, waveform: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
        """(1, 1, T) -> (1, 1, T)."""
        import torch

        snr_db = random.uniform(*self._snr_db)
        background = self._draw(waveform.shape[-1], random)
        self._transform.transform_parameters = {
            "background": background.to(waveform.device),  # (1, T), RMS 1
            "snr_in_db": torch.tensor([snr_db], dtype=torch.float32, device=waveform.device),
        }
        return self._transform.apply_transform(samples=waveform).samples

    def _draw(self, num_samples: int, random: np.random.Generator) -> torch.Tensor:
        """A stretch of pieces, one after the other until it is long enough: (1, T), RMS 1.

        As `AddBackgroundNoise.random_background`, but parts that are silent are drawn again.
        """
        import torch
        from torch_audiomentations.utils.io import Audio

        parts: list[torch.Tensor] = []
        missing = num_samples
        while missing > 0:
            part = torch.from_numpy(self._draw_part(missing, random).copy())[None]  # (1, part)
            missing -= part.shape[1]
            parts.append(Audio.rms_normalize(part))
        return Audio.rms_normalize(torch.cat(parts, dim=1))

    def _draw_part(self, num_samples: int, random: np.random.Generator) -> np.ndarray:
        for _ in range(_MAX_DRAWS):
            number = int(random.integers(len(self._bank)))
            spare = max(int(self._bank.lengths[number]) - num_samples, 0)
            part = self._bank.piece(number, int(random.integers(spare + 1)), num_samples)
            if np.sqrt(np.mean(np.square(part))) >= SILENT_RMS:
                break
        return part


class _Reverb:
    """Convolves with a room impulse response, and takes its delay out."""

    def __init__(self, bank: NoiseBank, probability: float, stream: int) -> None:
        self._bank = bank
        self._max_samples = int(MAX_IMPULSE_RESPONSE_SECONDS * bank.sampling_rate)
        self.probability = probability
        self.stream = stream
        self._transform = _make_transform(
            "ApplyImpulseResponse",
            convolve_mode="full",
            compensate_for_propagation_delay=True,
        )

    def __call__(self, waveform: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
        """(1, 1, T) -> (1, 1, T)."""
        import torch

        number = int(random.integers(len(self._bank)))
        response = torch.from_numpy(self._bank.piece(number, 0, self._max_samples).copy())
        self._transform.transform_parameters = {"ir": response.reshape(1, 1, -1)}
        return self._transform.apply_transform(samples=waveform).samples
