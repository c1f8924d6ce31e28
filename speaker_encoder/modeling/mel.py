"""Mel spectrograms with all constants in persistent buffers, exact in a padded batch."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn


def is_valid_frame(num_frames: torch.Tensor, total: int) -> torch.Tensor:
    """Gives (B, total) bool, true for the frames of each utterance; ``num_frames`` is (B,)."""
    return torch.arange(total, device=num_frames.device) < num_frames[:, None]


def mel_filters_htk(
    num_mels: int, n_fft: int, sampling_rate: int, f_min: float, f_max: float
) -> torch.Tensor:
    """Gives SpeechBrain's triangular filters, each as wide as the step to its left neighbour.

    Returns:
        (n_fft // 2 + 1, num_mels) float32.

    Source: ``speechbrain.processing.features.Filterbank``.
    """
    low, high = (2595 * math.log10(1 + hz / 700) for hz in (f_min, f_max))
    hz = 700 * (10 ** (torch.linspace(low, high, num_mels + 2) / 2595) - 1)
    band, centre = (hz[1:] - hz[:-1])[:-1], hz[1:-1]
    frequencies = torch.linspace(0, sampling_rate // 2, n_fft // 2 + 1)
    slope = (frequencies[:, None] - centre) / band
    return torch.clamp(torch.minimum(slope + 1.0, 1.0 - slope), min=0.0)


def mel_filters_slaney(num_mels: int, n_fft: int, sampling_rate: int) -> torch.Tensor:
    """Gives librosa's default filters: Slaney's scale, each of unit area.

    Returns:
        (n_fft // 2 + 1, num_mels) float32.

    Source: ``librosa.filters.mel``.
    """
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        n_fft // 2 + 1, num_mels, 0.0, sampling_rate / 2, sampling_rate, "slaney", "slaney"
    )
    return torch.from_numpy(filters).float()


class PowerMel(nn.Module):
    """Power mel spectrogram of frames centred on multiples of the hop, zeros around the ends.

    Args:
        window: (n_fft,) weights of a frame.
        filters: (n_fft // 2 + 1, num_mels).
        hop: Samples from frame to frame.
    """

    window: torch.Tensor
    filters: torch.Tensor

    def __init__(self, window: torch.Tensor, filters: torch.Tensor, hop: int, n_fft: int) -> None:
        super().__init__()
        self.hop = hop
        self.n_fft = n_fft
        self.register_buffer("window", window)
        self.register_buffer("filters", filters)

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        """Gives (B, T // hop + 1, num_mels) float32 power, whatever the autocast.

        Args:
            input_values: (B, T) waveforms, zero behind each end.
        """
        with torch.autocast(input_values.device.type, enabled=False):
            spectrum = torch.stft(
                input_values.float(),
                self.n_fft,
                self.hop,
                len(self.window),
                self.window.float(),
                center=True,
                pad_mode="constant",
                return_complex=True,
            )
            power = spectrum.real.square() + spectrum.imag.square()  # (B, F, T')
            return power.transpose(1, 2) @ self.filters.float()


class SentenceNormalizedLogMel(nn.Module):
    """Log-mel in dB, cut 80 dB under the utterance's loudest value, minus the utterance's mean.

    Args:
        power_mel: Gives the power mel spectrogram.

    Source: ``speechbrain.lobes.features.Fbank`` and
    ``InputNormalization(norm_type="sentence", std_norm=False)``.
    """

    mel_axis: ClassVar[int] = 2  # of the output; it has zero mean, SpecAugment may mask it

    def __init__(self, power_mel: PowerMel) -> None:
        super().__init__()
        self.power_mel = power_mel

    def forward(self, input_values: torch.Tensor, num_frames: torch.Tensor | None) -> torch.Tensor:
        """Gives (B, T', num_mels) float32 features, zero behind each utterance's last frame.

        Args:
            input_values: (B, T) waveforms, zero behind each end.
            num_frames: (B,) frames of each utterance; None: all are valid.
        """
        decibel = 10 * torch.log10(self.power_mel(input_values).clamp(min=1e-10))
        if num_frames is None:
            decibel = torch.maximum(decibel, decibel.amax(dim=(1, 2), keepdim=True) - 80.0)
            return decibel - decibel.mean(dim=1, keepdim=True)
        valid = is_valid_frame(num_frames, decibel.shape[1])[..., None]
        loudest = decibel.masked_fill(~valid, -torch.inf).amax(dim=(1, 2), keepdim=True)
        decibel = torch.maximum(decibel, loudest - 80.0).masked_fill(~valid, 0.0)
        mean = decibel.sum(dim=1, keepdim=True) / num_frames[:, None, None]
        return (decibel - mean).masked_fill(~valid, 0.0)
