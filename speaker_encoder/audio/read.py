"""Reads an audio file, or a crop of it without decoding the rest."""

import os

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.audio import ffmpeg_decoder, libsndfile_decoder
from speaker_encoder.audio.formats import AudioError, AudioInfo, is_read_by_ffmpeg
from speaker_encoder.audio.header import read_info
from speaker_encoder.audio.resample import resample, resampled_num_samples, source_span

# Beyond this a float file was surely not scaled to [-1, 1], for example one of int16 values.
MAX_AMPLITUDE = 64.0


def read_audio(
    path: str | os.PathLike[str],
    sampling_rate: int,
    *,
    start: int = 0,
    num_samples: int | None = None,
    info: AudioInfo | None = None,
    played_rate: int | None = None,
) -> NDArray[np.float32]:
    """A recording, or a crop of it, as a mono waveform at the wanted sampling rate.

    Only the crop is decoded, and for another sampling rate the few samples around it that the
    resampler needs: the crop equals the slice of the whole recording read at once. Channels are
    averaged.

    Args:
        path: any format of ``AUDIO_EXTENSIONS``.
        sampling_rate: in Hz; what ``start`` and ``num_samples`` are counted at.
        start: first sample of the crop.
        num_samples: length of the crop; up to the end where it is None.
        info: the file's header when it is known from the scan; saves reading and checking it.
        played_rate: the rate in Hz at which the file's samples are played, for other speeds; its
            own where it is None.

    Returns:
        (T,) float32 in [-1, 1]; T < ``num_samples`` where the recording ends before the crop.

    Raises:
        AudioError: the file is missing, not audio, truncated, or has non-finite samples.
        ValueError: ``start`` or ``num_samples`` is negative.
    """
    if start < 0 or (num_samples is not None and num_samples < 0):
        raise ValueError(f"A crop cannot start at {start} and have {num_samples} samples.")
    if info is None:
        info = read_info(path)
    rate = played_rate or info.sampling_rate
    available = resampled_num_samples(info.num_samples, rate, sampling_rate) - start
    wanted = available if num_samples is None else min(num_samples, available)
    if wanted <= 0:
        return np.zeros(0, dtype=np.float32)
    span = source_span(start, wanted, info.num_samples, rate, sampling_rate)
    decoder = ffmpeg_decoder if is_read_by_ffmpeg(path) else libsndfile_decoder
    decoded = decoder.decode(path, span.start, span.num_samples, info)
    _check_samples(decoded, path)
    waveform = resample(decoded, rate, sampling_rate)
    waveform = waveform[span.offset : span.offset + wanted]
    return np.clip(waveform, -1.0, 1.0)


def _check_samples(decoded: NDArray[np.float32], path: str | os.PathLike[str]) -> None:
    """Refuses NaN, infinity and float files that are not scaled to [-1, 1]."""
    if len(decoded) == 0:
        return
    peak = max(float(decoded.max()), -float(decoded.min()))
    if not np.isfinite(peak):
        raise AudioError(path, "non-finite samples", "NaN or infinity")
    if peak > MAX_AMPLITUDE:
        raise AudioError(path, "samples far outside [-1, 1]", f"found {peak:.6g}; rescale them")
