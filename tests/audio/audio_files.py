"""Waveforms to write and to find again, and files in many formats."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

FFMPEG_CODECS = {
    ".m4a": "aac", ".mp4": "aac", ".aac": "aac", ".mkv": "aac", ".webm": "libopus", ".mka": "flac",
    ".mov": "pcm_s16le",
}  # fmt: skip


def make_waveform(num_samples: int, sampling_rate: int, seed: int = 0) -> NDArray[np.float32]:
    """A sweep with a second tone: every moment differs from every other one; no noise, for which
    lossy codecs put random numbers."""
    seconds = np.arange(num_samples) / sampling_rate
    chirp = 0.4 * np.sin(2 * np.pi * (150 + 40 * seed + 60 * seconds) * seconds)
    tone = 0.2 * np.sin(2 * np.pi * (311 + 7 * np.sin(seconds)) * seconds)
    return (chirp + tone).astype(np.float32)


def write_audio(
    path: Path,
    waveform: NDArray[np.float32],
    sampling_rate: int = 16_000,
    subtype: str | None = None,
) -> Path:
    """Writes a (T,) or (C, T) waveform; the extension says how."""
    if path.suffix in FFMPEG_CODECS:
        return write_with_ffmpeg(path, waveform, sampling_rate)
    soundfile.write(path, np.asarray(waveform).T, sampling_rate, subtype=subtype)
    return path


def write_with_ffmpeg(path: Path, waveform: NDArray[np.float32], sampling_rate: int) -> Path:
    """Encodes a (T,) or (C, T) waveform with the codec that the extension stands for."""
    import av

    channels = np.atleast_2d(waveform)
    layout = "mono" if len(channels) == 1 else "stereo"
    file_format = "adts" if path.suffix == ".aac" else None
    with av.open(str(path), "w", format=file_format) as container:
        stream = container.add_stream(FFMPEG_CODECS[path.suffix], rate=sampling_rate)
        stream.layout = layout
        context = stream.codec_context
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(channels, dtype=np.float32), format="fltp", layout=layout
        )
        frame.sample_rate, frame.pts, frame.time_base = sampling_rate, 0, Fraction(1, sampling_rate)
        resampler = av.AudioResampler(
            context.format, layout, sampling_rate, context.frame_size or None
        )
        for part in resampler.resample(frame) + resampler.resample(None):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path
