"""Finds the speech in a recording and leaves out the silence around it."""

from __future__ import annotations

import difflib
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.errors import UserError

TRIM_METHODS = ("off", "energy", "vad")
TrimMethod = Literal["off", "energy", "vad"]

ENERGY_THRESHOLD = 1e-3
"""Squared sample above which ``energy`` hears sound: |x| > 0.0316, about -30 dBFS."""

_FRAME_SECONDS = 0.02
_MARGIN_SECONDS = 0.1
_GAP_SECONDS = 0.3
_SHORTEST_SPEECH_SECONDS = 0.06
_ABOVE_NOISE_DB = 12.0
_BELOW_SPEECH_DB = 40.0
_AT_LEAST_BELOW_SPEECH_DB = 15.0
_SILENCE_DB = -70.0


def check_trim_method(method: str) -> None:
    """Checks the name of a method.

    Raises:
        UserError: it is unknown.
    """
    if method not in TRIM_METHODS:
        nearest = difflib.get_close_matches(method, TRIM_METHODS, n=1, cutoff=0)[0]
        raise UserError(
            f"Unknown trim_silence {method!r}. Known: {', '.join(TRIM_METHODS)}; nearest: "
            f"{nearest!r}."
        )


def trim_silence(
    waveform: NDArray[np.float32], sampling_rate: int, method: TrimMethod
) -> NDArray[np.float32]:
    """A recording without its silence.

    ``energy`` keeps all from the first to the last sample with ``x^2 > 0.001``, as the exporter
    that this one replaces did. ``vad`` also leaves out pauses of more than 0.3 s: it keeps the
    frames that are well above the recording's own noise, with 0.1 s around them, whatever the
    level of the recording.

    Args:
        waveform: (T,) float32 in [-1, 1].
        sampling_rate: in Hz.
        method: ``off``, ``energy`` or ``vad``.

    Returns:
        (T',) float32, T' <= T; empty where there is nothing but silence.
    """
    spans = find_speech(waveform, sampling_rate, method)
    if len(spans) == 1:
        return waveform[spans[0][0] : spans[0][1]]
    return np.concatenate([waveform[:0], *(waveform[start:stop] for start, stop in spans)])


def find_speech(
    waveform: NDArray[np.float32], sampling_rate: int, method: TrimMethod
) -> list[tuple[int, int]]:
    """Where a recording is not silent.

    Args:
        waveform: (T,) float32 in [-1, 1].
        sampling_rate: in Hz.
        method: ``off``, ``energy`` or ``vad``.

    Returns:
        (start, stop) in samples, in order and apart from each other.

    Raises:
        UserError: an unknown method.
    """
    check_trim_method(method)
    if method == "off":
        return [(0, len(waveform))]
    if method == "energy":
        loud = np.flatnonzero(np.square(waveform) > ENERGY_THRESHOLD)
        return [(int(loud[0]), int(loud[-1]) + 1)] if len(loud) else []
    return _speech_spans(waveform, sampling_rate)


def _speech_spans(waveform: NDArray[np.float32], sampling_rate: int) -> list[tuple[int, int]]:
    frame = max(1, round(_FRAME_SECONDS * sampling_rate))
    num_frames = -(-len(waveform) // frame)
    if num_frames == 0:
        return []
    padded = np.zeros(num_frames * frame, dtype=np.float32)
    padded[: len(waveform)] = waveform
    power = np.square(padded.reshape(num_frames, frame)).mean(axis=1, dtype=np.float64)
    level_db = 10 * np.log10(power + 1e-12)
    speech_db = float(np.percentile(level_db, 95))
    if speech_db < _SILENCE_DB:
        return []
    noise_db = float(np.percentile(level_db, 10))
    threshold_db = np.clip(
        noise_db + _ABOVE_NOISE_DB,
        speech_db - _BELOW_SPEECH_DB,
        speech_db - _AT_LEAST_BELOW_SPEECH_DB,
    )
    runs = _runs(level_db > threshold_db)
    gap = _GAP_SECONDS / _FRAME_SECONDS
    joined: list[tuple[int, int]] = []
    for start, stop in runs:
        if joined and start - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    margin = round(_MARGIN_SECONDS / _FRAME_SECONDS)
    shortest = _SHORTEST_SPEECH_SECONDS / _FRAME_SECONDS
    return [
        (max(0, start - margin) * frame, min(len(waveform), (stop + margin) * frame))
        for start, stop in joined
        if stop - start >= shortest
    ]


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(start, stop) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
