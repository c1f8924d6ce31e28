"""Augments waveforms with music, noise, voices, rooms and more, each example by itself.

The mathematics of noise and rooms are torch-audiomentations' `AddBackgroundNoise` and
`ApplyImpulseResponse`. What is mixed in comes from banks in memory instead of files, and what is
random comes from counters: the augmentation of an example depends on (seed, position, its
waveform), and for babble on its speaker, and on nothing else, to the bit. For that each example
is computed alone and on one thread, since the summation order of a reduction or a transform may
change with the shape of a batch and the number of threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from speaker_encoder.audio.augment_steps import (
    AddBabble,
    AddBackground,
    Reverberate,
    ShiftPitch,
    Step,
    Transcode,
)
from speaker_encoder.audio.codec import check_codecs
from speaker_encoder.audio.noise_bank import NoiseBank, load_bank

if TYPE_CHECKING:
    import torch

    from speaker_encoder.audio.voice_bank import VoiceBank

Policy = Literal["each", "one_of", "stacked"]
_STREAMS = {"music": 12, "noise": 13, "reverb": 14, "babble": 16, "pitch": 17, "codec": 18}
_POLICY_STREAM = 19
_ORDER = ("pitch", "music", "noise", "babble", "reverb", "codec")
_BACKGROUNDS = ("music", "noise", "babble")


@dataclass(frozen=True)
class AugmentConfig:
    """What is done to examples, how often and how strongly.

    Attributes:
        noise_paths, music_paths, reverb_paths: folders or files; empty leaves that kind out.
        noise_p, music_p, reverb_p, babble_p, pitch_p, codec_p: probability per example; 0 leaves
            that kind out.
        noise_snr_db, music_snr_db: least and largest signal-to-noise ratio in dB.
        babble_snr_db: the same, of each voice of a babble by itself.
        babble_voices: least and largest number of voices.
        pitch_semitones: lowest and highest shift.
        codecs: names of `speaker_encoder.audio.codec.CODECS`, one of which is drawn.
        bank_seconds: bound on the audio of each kind in memory.
        policy: "each": every kind with its own probability; pitch first, then music, noise,
            babble, room, codec. "one_of": one of the kinds, or none, all with the same chance.
            "stacked": pitch, a room, one background (music, noise or babble), codec; a
            background comes with the largest of the three probabilities, and which one in
            proportion to them.
        num_views: 0, or the number of views of an utterance, which are neighbours: the second
            half of them is shifted in pitch, always, and the others never.
    """

    noise_paths: tuple[str, ...] = ()
    music_paths: tuple[str, ...] = ()
    reverb_paths: tuple[str, ...] = ()
    noise_p: float = 0.6
    music_p: float = 0.6
    reverb_p: float = 0.6
    babble_p: float = 0.6
    pitch_p: float = 0.0
    codec_p: float = 0.0
    noise_snr_db: tuple[float, float] = (10.0, 15.0)
    music_snr_db: tuple[float, float] = (10.0, 15.0)
    babble_snr_db: tuple[float, float] = (13.0, 20.0)
    babble_voices: tuple[int, int] = (3, 7)
    pitch_semitones: tuple[float, float] = (-2.0, 2.0)
    codecs: tuple[str, ...] = ("mp3", "opus", "aac", "mulaw", "alaw")
    bank_seconds: float = 600.0
    policy: Policy = "each"
    num_views: int = 0


class Augmenter:
    """Augments batches; the same example is augmented alike in every batch, to the bit.

    Peaks may exceed 1, as in torch-audiomentations; nothing is clipped. On a CUDA device the
    result is the same for any batch, not the same as on the CPU.

    Args:
        config: what is done.
        sampling_rate: in Hz, of the waveforms.
        device: where it is computed.
        seed: of everything random, also of the choice of recordings.
        voices: of babble; None: no babble.

    Attributes:
        device: as given.
        banks: what is mixed in.
        kinds: of augmentation that are on.

    Raises:
        UserError: a path does not exist, holds no usable recording, or a codec is missing.
    """

    def __init__(
        self,
        config: AugmentConfig,
        sampling_rate: int,
        device: str = "cpu",
        seed: int = 0,
        voices: VoiceBank | None = None,
    ) -> None:
        self.config = config
        self.sampling_rate = sampling_rate
        self.device = device
        self.seed = seed
        self.banks: dict[str, NoiseBank] = {}
        steps: dict[str, Step] = {}
        if config.music_paths and config.music_p:
            bank = self._load("music", config.music_paths)
            steps["music"] = AddBackground(bank, config.music_snr_db)
        if config.noise_paths and config.noise_p:
            bank = self._load("noise", config.noise_paths)
            steps["noise"] = AddBackground(bank, config.noise_snr_db)
        if config.reverb_paths and config.reverb_p:
            bank = self._load("impulse responses", config.reverb_paths, from_start=True)
            steps["reverb"] = Reverberate(bank)
        if voices is not None and config.babble_p:
            self.banks["voices"] = voices.bank
            steps["babble"] = AddBabble(voices, config.babble_voices, config.babble_snr_db)
        if config.pitch_p or config.num_views:
            steps["pitch"] = ShiftPitch(config.pitch_semitones, sampling_rate)
        if config.codec_p:
            check_codecs(config.codecs)
            steps["codec"] = Transcode(config.codecs, sampling_rate)
        self._steps = {name: steps[name] for name in _ORDER if name in steps}
        self.kinds = tuple(self._steps)
        self._probabilities = {name: getattr(config, f"{name}_p") for name in self._steps}

    def _load(self, what: str, paths: tuple[str, ...], *, from_start: bool = False) -> NoiseBank:
        self.banks[what] = load_bank(
            paths,
            self.sampling_rate,
            what=what,
            max_seconds=self.config.bank_seconds,
            seed=self.seed,
            from_start=from_start,
        )
        return self.banks[what]

    def __call__(
        self,
        waveforms: torch.Tensor,
        positions: torch.Tensor,
        utterances: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Augments a batch.

        Args:
            waveforms: (B, T) float32; not changed.
            positions: (B,) int64, the number of each example, counted over the whole run.
            utterances: (B,) int64, each example's utterance in the training corpus; needed where
                voices of that corpus are mixed in.

        Returns:
            (B, T) float32, on the device of `waveforms`.
        """
        import torch

        augmented = waveforms.detach().to(self.device, dtype=torch.float32, copy=True)
        if waveforms.numel() == 0:
            return augmented.to(waveforms.device)
        sources = [-1] * len(augmented) if utterances is None else utterances.tolist()
        with torch.no_grad(), _one_thread():
            for row, position in enumerate(positions.tolist()):
                example = augmented[row].reshape(1, 1, -1)
                for name, random in self._draw(position):
                    example = self._steps[name](example, random, sources[row])
                augmented[row] = example[0, 0]
        return augmented.to(waveforms.device)

    def _draw(self, position: int) -> Iterator[tuple[str, np.random.Generator]]:
        """What is done to an example, in order, and the random numbers of each kind."""
        names = list(self._steps)
        if self.config.num_views:
            names.remove("pitch")
            if position % self.config.num_views >= self.config.num_views // 2:
                yield "pitch", self._random(_STREAMS["pitch"], position)
        if self.config.policy == "one_of":
            number = int(self._random(_POLICY_STREAM, position).integers(len(names) + 1))
            if number < len(names):
                yield names[number], self._random(_STREAMS[names[number]], position)
            return
        probabilities = self._probabilities
        if self.config.policy == "stacked":
            names, probabilities = self._stack(names, position)
        for name in names:
            random = self._random(_STREAMS[name], position)
            if random.random() < probabilities[name]:
                yield name, random

    def _stack(self, names: list[str], position: int) -> tuple[list[str], dict[str, float]]:
        """Leaves one background, with the probability of any, and puts it behind the room."""
        backgrounds = [name for name in names if name in _BACKGROUNDS]
        if not backgrounds:
            return names, self._probabilities
        weights = np.array([self._probabilities[name] for name in backgrounds])
        ends = np.cumsum(weights / weights.sum())
        drawn = self._random(_POLICY_STREAM, position).random()
        chosen = backgrounds[min(int(np.searchsorted(ends, drawn, "right")), len(ends) - 1)]
        order = [name for name in ("pitch", "reverb", chosen, "codec") if name in names]
        return order, {**self._probabilities, chosen: float(weights.max())}

    def _random(self, stream: int, position: int) -> np.random.Generator:
        """The random numbers of one kind of augmentation for one example."""
        entropy = np.random.SeedSequence((self.seed, stream, position))
        return np.random.Generator(np.random.PCG64(entropy))


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
