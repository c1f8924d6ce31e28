"""What a recording's samples tell without a model: level, clipping, silence, fingerprint."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.audio import AudioError, AudioInfo, read_audio, read_info
from speaker_encoder.audio.resample import resample
from speaker_encoder.audio.trim import find_speech
from speaker_encoder.corpora import Utterance
from speaker_encoder.doctor.fingerprint import SAMPLING_RATE, Words, fingerprint

_BLOCK_SECONDS = 300.0
_FLAT_TOP_SAMPLES = 3
_FLATNESS = 1e-3


@dataclass(frozen=True)
class AudioFacts:
    """What was measured of one recording.

    Attributes:
        info: its header.
        digest: SHA-256 of its rate and samples: equal for the same sound in another container.
        words: its fingerprint.
        speech_seconds: without silence.
        level_db: mean power of its speech, relative to full scale; -inf without speech.
        clipped_share: of its samples, in [0, 1].
    """

    info: AudioInfo
    digest: str
    words: Words
    speech_seconds: float
    level_db: float
    clipped_share: float


def measure(path: str) -> AudioFacts:
    """Reads a recording from its start to its end, in blocks of five minutes.

    Raises:
        AudioError: it cannot be decoded.
    """
    info = read_info(path)
    rate = info.sampling_rate
    digest = hashlib.sha256(str(rate).encode())
    words, powers = [], []
    num_samples = num_speech = num_clipped = 0
    for waveform in _blocks(path, info):
        digest.update((waveform + 0.0).tobytes())  # -0.0 becomes 0.0
        words.append(fingerprint(resample(waveform, rate, SAMPLING_RATE)))
        spans = find_speech(waveform, rate, "vad")
        num_samples += len(waveform)
        num_speech += sum(stop - start for start, stop in spans)
        powers += [float(np.square(waveform[a:b], dtype=np.float64).sum()) for a, b in spans]
        num_clipped += count_clipped(waveform) if spans else 0
    if num_samples == 0:
        raise AudioError(path, "no audio samples")
    power = sum(powers) / max(1, num_speech)
    return AudioFacts(
        info=info,
        digest=digest.hexdigest(),
        words=np.concatenate(words),
        speech_seconds=num_speech / rate,
        level_db=10 * float(np.log10(power)) if power > 0 else float("-inf"),
        clipped_share=num_clipped / num_samples,
    )


def _blocks(path: str, info: AudioInfo) -> Iterator[NDArray[np.float32]]:
    size = round(_BLOCK_SECONDS * info.sampling_rate)
    for start in range(0, info.num_samples, size):
        waveform = read_audio(
            path, info.sampling_rate, start=start, num_samples=size, info=info
        )  # fmt: skip
        if len(waveform):
            yield waveform


def count_clipped(waveform: NDArray[np.float32]) -> int:
    """Samples in flat tops: 3 or more in a row at the highest, or at the lowest, level.

    A recording that was made quieter after it was clipped is found as well.

    Args:
        waveform: (T,) float32.
    """
    count = 0
    for side in (waveform, -waveform):
        peak = float(side.max(initial=0.0))
        is_top = side >= (1 - _FLATNESS) * peak if peak > 0 else np.zeros(len(side), dtype=bool)
        edges = np.flatnonzero(np.diff(is_top.astype(np.int8), prepend=0, append=0))
        lengths = edges[1::2] - edges[::2]
        count += int(lengths[lengths >= _FLAT_TOP_SAMPLES].sum())
    return count


def measure_all(
    utterances: Sequence[Utterance],
    *,
    num_workers: int | None = None,
    show_progress: bool | None = None,
) -> list[AudioFacts | AudioError]:
    """Measures all recordings of a corpus.

    Args:
        utterances: where they are.
        num_workers: threads; None: one per core, at most 8.
        show_progress: a progress bar on stderr; None shows it on a terminal only.

    Returns:
        In their order; why, of those that cannot be decoded.
    """
    from tqdm import tqdm

    if show_progress is None:
        show_progress = sys.stderr.isatty()

    def measure_one(utterance: Utterance) -> AudioFacts | AudioError:
        try:
            return measure(utterance.path)
        except AudioError as error:
            return error

    workers = num_workers or min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        measured = pool.map(measure_one, utterances)
        return list(
            tqdm(measured, "listening", len(utterances), unit="file", disable=not show_progress)
        )
