"""torchaudio's ``MelSpectrogram`` with its constants in persistent buffers, exact in a batch."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn
from torch.nn.functional import pad

from speaker_encoder.modeling.masked import instance_norm

WINDOW_SAMPLES, HOP_SAMPLES, N_FFT = 400, 160, 512
MIN_NUM_SAMPLES = N_FFT // 2 + 1
"""A mirrored end needs one sample more than it mirrors."""
PRE_EMPHASIS = 0.97


def mel_filters_torchaudio(num_mels: int, n_fft: int, sampling_rate: int) -> torch.Tensor:
    """Gives torchaudio's default filters: HTK's scale up to half the sampling rate, peaks of 1.

    Returns:
        (n_fft // 2 + 1, num_mels) float32.

    Source: ``torchaudio.functional.melscale_fbanks``.
    """
    high = 2595 * math.log10(1 + sampling_rate / 2 / 700)
    mels = torch.linspace(0, high, num_mels + 2, dtype=torch.float64)
    hz = 700 * (10 ** (mels / 2595) - 1)
    frequency = torch.linspace(0, sampling_rate / 2, n_fft // 2 + 1, dtype=torch.float64)[:, None]
    rising = (frequency - hz[:-2]) / (hz[1:-1] - hz[:-2])
    falling = (hz[2:] - frequency) / (hz[2:] - hz[1:-1])
    return torch.minimum(rising, falling).clamp(min=0.0).float()


def pre_emphasize(input_values: torch.Tensor) -> torch.Tensor:
    """Gives ``y[n] = x[n] - 0.97 x[n - 1]`` with ``x[-1] = x[1]``, (B, T)."""
    before = torch.cat([input_values[:, 1:2], input_values[:, :-1]], dim=1)
    return input_values - PRE_EMPHASIS * before


def mirror_ends(
    input_values: torch.Tensor, lengths: torch.Tensor | None, num_samples: int
) -> torch.Tensor:
    """Puts the mirror image of each utterance's first and last samples around it.

    Args:
        input_values: (B, T) waveforms.
        lengths: (B,) samples of each utterance, more than ``num_samples``; None: T.
        num_samples: How many are mirrored at each end.

    Returns:
        (B, T + 2 ``num_samples``); what lies behind a mirrored end is of no use.
    """
    if lengths is None:
        return pad(input_values[:, None], (num_samples, num_samples), "reflect")[:, 0]
    extended = pad(input_values, (0, num_samples))
    offset = torch.arange(num_samples, device=input_values.device)
    source, target = lengths[:, None] - 2 - offset, lengths[:, None] + offset
    extended = extended.scatter(1, target, extended.gather(1, source))
    return torch.cat([input_values[:, 1 : num_samples + 1].flip(1), extended], dim=1)


class PowerSpectrum(nn.Module):
    """Short-time power spectrum; frames start at the multiples of the hop.

    Args:
        window: (400,) weights of a frame, in the middle of ``N_FFT`` samples.
    """

    window: torch.Tensor

    def __init__(self, window: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("window", window)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Gives (B, 257, T') power of (B, T) float32 waveforms."""
        spectrum = torch.stft(
            waveforms,
            N_FFT,
            HOP_SAMPLES,
            len(self.window),
            self.window.float(),
            center=False,
            return_complex=True,
        )
        return spectrum.real.square() + spectrum.imag.square()


class NormalizedMel(nn.Module):
    """Mel spectrogram -> logarithm -> each band to zero mean and unit variance over the utterance.

    Args:
        num_mels: Bands.
        window: (400,) weights of a frame.
        has_pre_emphasis: Lifts the high frequencies of the waveform first.
        log_input: Takes the logarithm.

    Source: ``torchfb`` and ``instancenorm`` of the models of voxceleb_trainer.
    """

    mel_axis: ClassVar[int] = 1  # of the output; it has zero mean, SpecAugment may mask it

    filters: torch.Tensor

    def __init__(
        self, num_mels: int, window: torch.Tensor, *, has_pre_emphasis: bool, log_input: bool
    ) -> None:
        super().__init__()
        self.has_pre_emphasis = has_pre_emphasis
        self.log_input = log_input
        self.power = PowerSpectrum(window)
        self.register_buffer("filters", mel_filters_torchaudio(num_mels, N_FFT, 16000))

    def forward(self, input_values: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """Gives (B, num_mels, T // 160 + 1) float32, zero behind each end, whatever the autocast.

        Args:
            input_values: (B, T) waveforms, zero behind each end.
            lengths: (B,) samples of each utterance, or None for T.
        """
        with torch.autocast(input_values.device.type, enabled=False):
            mel = self.mel(input_values.float(), lengths) + 1e-6
            if self.log_input:
                mel = mel.log()
            return instance_norm(mel, self.num_frames(lengths), eps=1e-5)

    def mel(self, input_values: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """Gives (B, num_mels, T') power; as ``forward`` takes it."""
        if self.has_pre_emphasis:
            input_values = pre_emphasize(input_values)
        return self.filters.float().t() @ self.power(mirror_ends(input_values, lengths, N_FFT // 2))

    @staticmethod
    def num_frames(lengths: torch.Tensor | None) -> torch.Tensor | None:
        """Gives the frames of utterances of ``lengths`` samples."""
        return None if lengths is None else lengths // HOP_SAMPLES + 1
