"""Shifts the pitch of speech, and leaves its tempo and its formants as they are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

FRAME_SAMPLES = 512
HOP_SAMPLES = 128
# Cepstral coefficients that make the envelope: at 16 kHz below the period of a voice of 400 Hz.
_ENVELOPE_COEFFICIENTS = 40
_MAX_GAIN = 10.0
_FLOOR = 1e-5


def shift_pitch(
    waveform: NDArray[np.float32], sampling_rate: int, semitones: float
) -> NDArray[np.float32]:
    """The same words, as long and as loud as before, spoken higher or lower by the same voice.

    The waveform is stretched by a phase vocoder and resampled to its old length, which moves the
    formants too; a filter per frame then gives it the spectral envelope that it had.

    Args:
        waveform: (T,).
        sampling_rate: in Hz.
        semitones: up, or down where it is negative.

    Returns:
        (T,) float32, computed on one thread the same to the bit anywhere on a machine.

    Source: Laroche and Dolson 1999, "Improved phase vocoder time-scale modification of audio";
        the envelope as in Röbel and Rodet 2005, without its iterations.
    """
    if semitones == 0 or len(waveform) < FRAME_SAMPLES:
        return waveform
    shifted = resample_pitch(waveform, sampling_rate, semitones)
    before, after = _spectrogram(waveform), _spectrogram(shifted)
    gain = (_envelope(before) / _envelope(after)).clamp(1 / _MAX_GAIN, _MAX_GAIN)
    found = _waveform(after * gain, len(waveform))
    level = float(np.sqrt(np.mean(np.square(found)))) or 1.0
    return found * np.float32(np.sqrt(np.mean(np.square(waveform))) / level)


def resample_pitch(
    waveform: NDArray[np.float32], sampling_rate: int, semitones: float
) -> NDArray[np.float32]:
    """Stretches in time and resamples back: pitch and formants move together.

    Args:
        waveform: (T,).
        sampling_rate: in Hz.
        semitones: up, or down where it is negative.

    Returns:
        (T,) float32. Equal to ``librosa.effects.pitch_shift`` with these frames.
    """
    import soxr

    rate = 2.0 ** (-semitones / 12)
    stretched = _waveform(_stretch(_spectrogram(waveform), rate), round(len(waveform) / rate))
    resampled = soxr.resample(stretched, sampling_rate / rate, sampling_rate)
    return np.pad(resampled, (0, max(0, len(waveform) - len(resampled))))[: len(waveform)]


def _window() -> torch.Tensor:
    import torch

    return torch.hann_window(FRAME_SAMPLES)


def _spectrogram(waveform: NDArray[np.float32]) -> torch.Tensor:
    """(T,) -> (F, N) complex."""
    import torch

    return torch.stft(
        torch.from_numpy(np.ascontiguousarray(waveform)),
        FRAME_SAMPLES,
        HOP_SAMPLES,
        window=_window(),
        pad_mode="constant",
        return_complex=True,
    )


def _waveform(spectrogram: torch.Tensor, num_samples: int) -> NDArray[np.float32]:
    """(F, N) complex -> (num_samples,)."""
    import torch

    found = torch.istft(
        spectrogram, FRAME_SAMPLES, HOP_SAMPLES, window=_window(), length=num_samples
    )
    return found.numpy()


def _stretch(spectrogram: torch.Tensor, rate: float) -> torch.Tensor:
    """Plays a spectrogram (F, N) `rate` times as fast: (F, ceil(N / rate)).

    The phase of each band advances from frame to frame as it does where the frame is from.
    """
    import torch

    num_bands, num_frames = spectrogram.shape
    padded = torch.nn.functional.pad(spectrogram, (0, 2))
    places = torch.arange(0, num_frames, rate, dtype=torch.float64)
    first = places.long()
    weight = (places - first).float()
    now, following = padded[:, first], padded[:, first + 1]
    magnitude = (1 - weight) * now.abs() + weight * following.abs()
    expected = torch.linspace(0, math.pi * HOP_SAMPLES, num_bands, dtype=torch.float64)[:, None]
    advance = (following.angle() - now.angle()).double() - expected
    advance = advance - 2 * math.pi * torch.round(advance / (2 * math.pi)) + expected
    phase = torch.cumsum(advance, dim=1).roll(1, dims=1)
    phase[:, 0] = 0.0
    phase = torch.remainder(phase + spectrogram[:, :1].angle(), 2 * math.pi).float()
    return torch.polar(magnitude, phase)


def _envelope(spectrogram: torch.Tensor) -> torch.Tensor:
    """The smooth part of each frame's magnitude, (F, N) -> (F, N), through its cepstrum."""
    import torch

    magnitude = spectrogram.abs()
    loudest = magnitude.amax().clamp(min=1e-10)
    cepstrum = torch.fft.irfft(torch.log(magnitude.clamp(min=_FLOOR * loudest)), dim=0)
    cepstrum[_ENVELOPE_COEFFICIENTS:-_ENVELOPE_COEFFICIENTS] = 0.0
    return torch.exp(torch.fft.rfft(cepstrum, dim=0).real)
