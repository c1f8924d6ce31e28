"""Resamples a crop so that it equals the slice of the resampled whole."""

from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray

# Samples at the lower of both rates. soxr's "HQ" filter has died away (below 1e-6) after about
# 130 of them on either side; the rest is reserve.
FILTER_MARGIN = 256


def resampled_num_samples(num_samples: int, source_rate: int, sampling_rate: int) -> int:
    """How many samples a recording has at another sampling rate, rounded as soxr does.

    Args:
        num_samples: at ``source_rate``.
        source_rate: in Hz.
        sampling_rate: the wanted rate in Hz.
    """
    return (2 * num_samples * sampling_rate + source_rate) // (2 * source_rate)


@dataclass(frozen=True, slots=True)
class SourceSpan:
    """The samples of the source that a crop needs, and where the crop lies in their resampling.

    Attributes:
        start: first sample, at the source's rate.
        num_samples: at the source's rate.
        offset: of the crop in the resampled span, at the target's rate.
    """

    start: int
    num_samples: int
    offset: int


def source_span(
    start: int, num_samples: int, source_num_samples: int, source_rate: int, sampling_rate: int
) -> SourceSpan:
    """What to decode for the crop ``[start, start + num_samples)`` counted at the target's rate.

    The span starts at a source sample that falls exactly on a target sample, so that the
    resampler's phase is the one it has in the whole recording. At most one second is decoded in
    vain for that, and only for rates without a common divisor.
    """
    if source_rate == sampling_rate:
        return SourceSpan(start, min(num_samples, source_num_samples - start), 0)
    divisor = gcd(source_rate, sampling_rate)
    source_period, target_period = source_rate // divisor, sampling_rate // divisor
    margin = -(-FILTER_MARGIN * max(sampling_rate, source_rate) // source_rate)
    period = max(0, start - margin) // target_period
    stop = -(-(start + num_samples + margin) * source_period // target_period)
    first = period * source_period
    return SourceSpan(first, min(stop, source_num_samples) - first, start - period * target_period)


def resample(
    waveform: NDArray[np.float32], source_rate: int, sampling_rate: int
) -> NDArray[np.float32]:
    """The waveform at another sampling rate.

    Args:
        waveform: (T,).
        source_rate: of the waveform, in Hz.
        sampling_rate: the wanted rate in Hz.

    Returns:
        (``resampled_num_samples(T, ...)``,) float32.

    Source: the SoX resampler library, quality HQ (librosa's default as well).
    """
    if source_rate == sampling_rate or len(waveform) == 0:
        return waveform
    import soxr

    return soxr.resample(waveform, source_rate, sampling_rate)
