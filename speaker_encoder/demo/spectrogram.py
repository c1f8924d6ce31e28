"""The picture of a recording: its spectrogram."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_SECONDS = 60.0
_WINDOW_SECONDS, _HOP_SECONDS = 0.025, 0.010
_MOST_FRAMES = 1200
_DYNAMIC_RANGE_DB = 80.0


def power_in_db(waveform: np.ndarray, sampling_rate: int) -> tuple[np.ndarray, float]:
    """Gives a spectrogram for the eye.

    Args:
        waveform: (T,) float32 in [-1, 1].
        sampling_rate: In Hz.

    Returns:
        (F, T') float32 dB under the loudest value, -80 at least; and the seconds from one frame to
        the next, which grow where a recording is long.
    """
    window = round(_WINDOW_SECONDS * sampling_rate)
    hop = max(round(_HOP_SECONDS * sampling_rate), -(-len(waveform) // _MOST_FRAMES))
    padded = np.pad(waveform, (0, max(0, window - len(waveform))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    spectrum = np.fft.rfft(frames * np.hanning(window), axis=1)
    decibel = 20 * np.log10(np.abs(spectrum).T + 1e-10)
    return np.clip(decibel - decibel.max(), -_DYNAMIC_RANGE_DB, 0), hop / sampling_rate


def draw_spectrogram(path: str, sampling_rate: int, title: str) -> Figure:
    """Draws the spectrogram of an audio file, of the first minute where it is longer.

    Args:
        path: Of the audio file.
        sampling_rate: Hz of the encoder: what it sees of the recording.
        title: Of the picture.

    Raises:
        UserError: the file cannot be read.
    """
    from matplotlib.figure import Figure

    from speaker_encoder.audio import read_audio, read_info

    total = read_info(path).seconds
    waveform = read_audio(path, sampling_rate, num_samples=int(MOST_SECONDS * sampling_rate))
    decibel, step = power_in_db(waveform, sampling_rate)
    figure = Figure(figsize=(6.4, 3.0), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(
        decibel,
        origin="lower",
        aspect="auto",
        cmap="magma",
        extent=(0.0, decibel.shape[1] * step, 0.0, sampling_rate / 2000),
        vmin=-_DYNAMIC_RANGE_DB,
        vmax=0.0,
    )
    shown = f", the first {MOST_SECONDS:.0f} s of {total:.0f} s" if total > MOST_SECONDS else ""
    axes.set_title(f"{title}{shown}")
    axes.set_xlabel("time (s)")
    axes.set_ylabel("frequency (kHz)")
    figure.colorbar(image, ax=axes, label="dB under the loudest")
    return figure
