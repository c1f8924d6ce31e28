"""Recordings made of recordings: converted, split and cut; each is whole or absent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from speaker_encoder.audio import AudioError, read_audio, read_info


@dataclass(frozen=True)
class Cut:
    """A recording to be written: `source` from `start` on, `seconds` long, None: to its end."""

    source: Path
    target: Path
    start: float = 0.0
    seconds: float | None = None


def write_cuts(
    cuts: Sequence[Cut],
    sampling_rate: int | None,
    num_workers: int,
    progress: Callable[[int, int], None],
) -> dict[Path, str]:
    """Writes recordings as 16-bit mono files, where they are not there yet.

    Args:
        cuts: what is to be written; the target's ending says the format, flac or wav.
        sampling_rate: in Hz; None: each source's own.
        num_workers: recordings at a time.
        progress: is told (number done, number in all).

    Returns:
        Source -> why it could not be read, for those that could not.
    """
    failures: dict[Path, str] = {}
    missing = [cut for cut in cuts if not cut.target.exists()]

    def write(cut: Cut) -> tuple[Path, str | None]:
        try:
            _write_cut(cut, sampling_rate)
        except AudioError as error:
            return cut.source, error.reason
        return cut.source, None

    with ThreadPoolExecutor(num_workers) as pool:
        for number, (source, problem) in enumerate(pool.map(write, missing), start=1):
            if problem is not None:
                failures[source] = problem
            progress(len(cuts) - len(missing) + number, len(cuts))
    return failures


def _write_cut(cut: Cut, sampling_rate: int | None) -> None:
    info = read_info(cut.source)
    rate = sampling_rate or info.sampling_rate
    start = round(cut.start * rate)
    length = None if cut.seconds is None else round((cut.start + cut.seconds) * rate) - start
    waveform = read_audio(cut.source, rate, start=start, num_samples=length, info=info)
    if not len(waveform):
        raise AudioError(cut.source, f"ends before second {cut.start:g}")
    cut.target.parent.mkdir(parents=True, exist_ok=True)
    part = cut.target.with_name(f".{cut.target.name[:200]}.part")
    kind = cut.target.suffix.lstrip(".").upper()
    try:
        samples = np.clip(np.round(waveform * 32768.0), -32768, 32767).astype(np.int16)
        soundfile.write(part, samples, rate, format=kind, subtype="PCM_16")
        os.replace(part, cut.target)
    finally:
        part.unlink(missing_ok=True)


def conversions(paths: Iterable[Path], suffix: str) -> list[Cut]:
    """Gives one cut per recording: the whole of it, beside it, in another format."""
    return [Cut(path, path.with_suffix(suffix)) for path in sorted(paths)]


def pieces(
    paths: Iterable[Path], root: Path, target: Path, seconds: float, hop: float
) -> tuple[list[Cut], dict[Path, str]]:
    """Splits recordings into overlapping pieces of one length.

    A recording shorter than a piece becomes one piece as it is.

    Args:
        paths: of the recordings.
        root: the folder whose structure is kept.
        target: the folder that the pieces go to, as `<path without ending>/<number>.wav`.
        seconds: length of a piece.
        hop: seconds from piece to piece.

    Returns:
        The cuts, and path -> why a recording's header could not be read.

    Source: ``split_musan`` of ``clovaai/voxceleb_trainer``: 5 s every 3 s.
    """
    cuts, failures = [], {}
    for path in sorted(paths):
        try:
            length = read_info(path).num_samples / read_info(path).sampling_rate
        except AudioError as error:
            failures[path] = error.reason
            continue
        folder = target / path.relative_to(root).with_suffix("")
        count = 1 + max(0, int((length - seconds) / hop + 1e-9))
        cuts += [
            Cut(
                path,
                folder / f"{number:05d}.wav",
                number * hop,
                min(seconds, length - number * hop),
            )
            for number in range(count)
        ]
    return cuts, failures
