"""Recordings made of recordings: converted, split and cut; each is whole or absent."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from speaker_encoder.audio import AudioError, read_audio, read_info
from speaker_encoder.corpora.prepare.written import FULL_DISK, MadeFiles, Stamp, whole_file

_CUTS_AT_A_TIME = 1024
_MISSING_SECONDS = 0.1


@dataclass(frozen=True)
class Cut:
    """A recording to be written: `source` from `start` on, `seconds` long, None: to its end."""

    source: Path
    target: Path
    start: float = 0.0
    seconds: float | None = None


def write_cuts(
    cuts: Sequence[Cut],
    made: MadeFiles,
    sampling_rate: int | None,
    num_workers: int,
    progress: Callable[[int, int], None],
) -> dict[Cut, str]:
    """Writes recordings as 16-bit mono files, where they are not there yet as they should be.

    Args:
        cuts: what is to be written; the target's ending says the format, flac or wav.
        made: the record of what was written; other files are never written over.
        sampling_rate: in Hz; None: each source's own.
        num_workers: recordings at a time.
        progress: is told (number done, number in all).

    Returns:
        Cut -> why it could not be written, for those that could not.
    """
    missing, failures = _plan(cuts, made, sampling_rate)

    def write(task: tuple[Cut, Stamp]) -> tuple[Cut, str | None]:
        cut, stamp = task
        try:
            content = _encode(cut, sampling_rate)
            with whole_file(cut.target) as part:
                part.write_bytes(content)
                made.add(cut.target, cut.source, stamp)
        except AudioError as error:
            return cut, f"{error.reason} ({error.detail})" if error.detail else error.reason
        except OSError as error:
            if error.errno in FULL_DISK:
                raise
            return cut, f"{cut.target} cannot be written: {error.strerror}"
        return cut, None

    done = len(cuts) - len(missing)
    with ThreadPoolExecutor(num_workers) as pool:
        # In batches: an interrupt does not wait for all that is left.
        for start in range(0, len(missing), _CUTS_AT_A_TIME):
            for cut, problem in pool.map(write, missing[start : start + _CUTS_AT_A_TIME]):
                if problem is not None:
                    failures[cut] = problem
                done += 1
                progress(done, len(cuts))
    made.compact()
    return failures


def _plan(
    cuts: Sequence[Cut], made: MadeFiles, sampling_rate: int | None
) -> tuple[list[tuple[Cut, Stamp]], dict[Cut, str]]:
    """Gives what is to be written, and what cannot; removes what was made otherwise before."""
    missing: list[tuple[Cut, Stamp]] = []
    failures: dict[Cut, str] = {}
    targets: set[Path] = set()
    for cut in cuts:
        if cut.target in targets:
            failures[cut] = f"another recording becomes {cut.target} already; rename one of them"
            continue
        targets.add(cut.target)
        try:
            status = cut.source.stat()
        except OSError as error:
            failures[cut] = f"cannot be read: {error.strerror}"
            continue
        stamp: Stamp = [
            *(status.st_size, status.st_mtime_ns, cut.start, cut.seconds, sampling_rate)
        ]
        before = made.stamp_of(cut.target)
        is_there = cut.target.exists()
        if is_there and before is None:
            failures[cut] = f"{cut.target} is there and was not made by prepare; move it away"
        elif not is_there or before != (Path(os.path.abspath(cut.source)), stamp):
            cut.target.unlink(missing_ok=True)
            missing.append((cut, stamp))
    return missing, failures


def _encode(cut: Cut, sampling_rate: int | None) -> bytes:
    info = read_info(cut.source)
    rate = sampling_rate or info.sampling_rate
    start = round(cut.start * rate)
    length = None if cut.seconds is None else round((cut.start + cut.seconds) * rate) - start
    waveform = read_audio(cut.source, rate, start=start, num_samples=length, info=info)
    if not len(waveform):
        raise AudioError(cut.source, f"ends before second {cut.start:g}")
    if length is not None and length - len(waveform) > _MISSING_SECONDS * rate:
        end = (start + len(waveform)) / rate
        raise AudioError(
            cut.source, f"ends at second {end:.2f}, asked up to {(start + length) / rate:.2f}"
        )
    samples = np.clip(np.round(waveform * 32768.0), -32768, 32767).astype(np.int16)
    file, kind = io.BytesIO(), cut.target.suffix.lstrip(".").upper()
    try:
        soundfile.write(file, samples, rate, format=kind, subtype="PCM_16")
    except soundfile.LibsndfileError as error:
        detail = f"{kind}, {rate} Hz: {error.error_string}"
        raise AudioError(cut.source, "cannot be encoded", detail) from error
    return file.getvalue()


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
            length = read_info(path).seconds
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
