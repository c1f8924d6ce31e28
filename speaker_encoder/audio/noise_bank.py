"""Noises, music or impulse responses in memory, in a bounded number of seconds."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.audio.formats import AUDIO_EXTENSIONS, AudioError, AudioInfo, extension_of
from speaker_encoder.audio.header import read_info
from speaker_encoder.audio.read import read_audio
from speaker_encoder.audio.resample import resampled_num_samples
from speaker_encoder.errors import UserError

MIN_PIECE_SECONDS = 5.0  # a bank too small for all files has fewer files, not shorter pieces
SILENT_RMS = 1e-5  # below one step of 16-bit audio
_CHUNK = 64
_BANK_STREAM = 11  # sets these random numbers apart from those of crops and batches

_Item = TypeVar("_Item")
_Found = TypeVar("_Found")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NoiseBank:
    """Pieces of recordings, end to end in one array.

    Attributes:
        samples: (sum of lengths,) float32, at `sampling_rate`.
        starts: (N,) int64, where each piece starts.
        lengths: (N,) int64, in samples, at least 1.
        sampling_rate: in Hz.
        paths: (N,) the file that each piece is from.
        excluded: (path, reason) of files that were left out.
    """

    samples: NDArray[np.float32]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    sampling_rate: int
    paths: tuple[str, ...]
    excluded: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return len(self.lengths)

    def piece(self, number: int, start: int = 0, num_samples: int | None = None) -> NDArray:
        """A piece or a part of it, (T,) float32, not copied.

        Args:
            number: of the piece.
            start: first sample, counted in the piece.
            num_samples: up to its end where it is None.
        """
        first, end = self.starts[number] + start, self.starts[number] + self.lengths[number]
        return self.samples[first : end if num_samples is None else min(first + num_samples, end)]


@dataclass(frozen=True)
class _Source:
    """A usable file and its length at the bank's sampling rate."""

    path: str
    info: AudioInfo
    sampling_rate: int
    num_samples: int


def load_bank(
    paths: Sequence[str],
    sampling_rate: int,
    *,
    what: str,
    max_seconds: float = 600.0,
    seed: int = 0,
    from_start: bool = False,
) -> NoiseBank:
    """Reads audio files into memory, in parallel, `max_seconds` of them at most.

    Where all files together are longer, long ones give a random piece, and where there are too
    many for pieces of `MIN_PIECE_SECONDS`, a random part of the files is taken. The choice
    depends on the seed, the names and the lengths of the files, and on nothing else.

    Args:
        paths: folders, searched through, or files.
        sampling_rate: in Hz, of what is kept.
        what: "noise", "music", ...: what the files hold, for messages and the random choice.
        max_seconds: bound on what is kept.
        seed: of the choice.
        from_start: pieces are the beginnings of files, as impulse responses need it.

    Raises:
        UserError: a path does not exist, or nothing under it is usable.
    """
    files = find_audio_files(paths, what)
    entropy = np.random.SeedSequence((seed, _BANK_STREAM, *what.encode()))
    random = np.random.Generator(np.random.PCG64(entropy))
    order = [files[place] for place in random.permutation(len(files))]
    budget = int(max_seconds * sampling_rate)
    excluded: list[tuple[str, str]] = []
    sources = _choose_files(order, sampling_rate, budget, excluded)
    lengths = _share([source.num_samples for source in sources], budget)
    pieces = []
    for source, length in zip(sources, lengths, strict=True):
        spare = source.num_samples - length
        start = 0 if from_start else int(random.integers(spare + 1))
        pieces.append((source, start, length))
    kept = []
    for (source, _, _), found in zip(pieces, _in_parallel(_read_piece, pieces), strict=True):
        if isinstance(found, str):
            excluded.append((source.path, found))
        else:
            kept.append((source.path, found))
    return _join(sorted(kept, key=lambda pair: pair[0]), sampling_rate, what, paths, excluded)


def find_audio_files(paths: Iterable[str], what: str) -> list[str]:
    """The audio files in folders and their sub-folders, and files named themselves; sorted.

    Hidden files are left out, linked folders are followed, a file is given once.

    Raises:
        UserError: a path does not exist.
    """
    found: set[str] = set()
    for path in paths:
        if os.path.isdir(path):
            found.update(_walk(path))
        elif os.path.exists(path):
            found.add(path)
        else:
            raise UserError(f"Augmentation wants {what} from {path!r}, which does not exist.")
    return sorted({os.path.realpath(path): path for path in sorted(found, reverse=True)}.values())


def _walk(folder: str) -> Iterator[str]:
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and extension_of(name) in AUDIO_EXTENSIONS:
                yield os.path.join(place, name)


def _choose_files(
    order: Sequence[str], sampling_rate: int, budget: int, excluded: list[tuple[str, str]]
) -> list[_Source]:
    """Takes files in order until pieces of them fill the budget; reads headers only."""
    chosen: list[_Source] = []
    least_piece = int(MIN_PIECE_SECONDS * sampling_rate)
    filled = 0
    for place in range(0, len(order), _CHUNK):
        paths = order[place : place + _CHUNK]
        for path, found in zip(paths, _in_parallel(_read_header, paths), strict=True):
            if isinstance(found, str):
                excluded.append((path, found))
                continue
            length = resampled_num_samples(found.num_samples, found.sampling_rate, sampling_rate)
            if length < 1:
                excluded.append((path, "no audio samples"))
                continue
            if filled >= budget:
                return chosen
            chosen.append(_Source(path, found, sampling_rate, length))
            filled += min(length, least_piece)
    return chosen


def _share(lengths: Sequence[int], budget: int) -> list[int]:
    """Cuts the longest of some lengths so that they sum to the budget at most."""
    if sum(lengths) <= budget:
        return list(lengths)
    left, level = budget, 0
    for count, length in zip(range(len(lengths), 0, -1), sorted(lengths), strict=True):
        level = left // count
        if length > level:
            break
        left -= length
    return [min(length, max(level, 1)) for length in lengths]


def _read_header(path: str) -> AudioInfo | str:
    """A file's header, or why it cannot be used."""
    try:
        return read_info(path)
    except AudioError as error:
        return error.reason


def _read_piece(piece: tuple[_Source, int, int]) -> NDArray[np.float32] | str:
    """A piece of a file, or why it cannot be used."""
    source, start, length = piece
    try:
        waveform = read_audio(
            source.path, source.sampling_rate, start=start, num_samples=length, info=source.info
        )
    except AudioError as error:
        return error.reason
    if len(waveform) == 0 or float(np.sqrt(np.mean(np.square(waveform)))) < SILENT_RMS:
        return "silent"
    return waveform


def _in_parallel(function: Callable[[_Item], _Found], items: Sequence[_Item]) -> list[_Found]:
    """Calls a function with each item, several at a time; results in the order of the items."""
    with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
        return list(pool.map(function, items))


def _join(
    kept: Sequence[tuple[str, NDArray[np.float32]]],
    sampling_rate: int,
    what: str,
    paths: Sequence[str],
    excluded: Sequence[tuple[str, str]],
) -> NoiseBank:
    """Puts the pieces end to end, and reports what was left out."""
    left_out = tuple(sorted(excluded))
    shown = "; ".join(f"{path} ({reason})" for path, reason in left_out[:5])
    shown += "; ..." if len(left_out) > 5 else ""
    if not kept:
        raise UserError(
            f"Augmentation wants {what}, and found no usable audio file in {', '.join(paths)}"
            + (f"; left out: {shown}." if left_out else ".")
            + " Give a folder with recordings, or take it out of the config."
        )
    if left_out:
        _logger.warning("%s: %d files left out: %s", what, len(left_out), shown)
    lengths = np.array([len(waveform) for _, waveform in kept], dtype=np.int64)
    bank = NoiseBank(
        samples=np.concatenate([waveform for _, waveform in kept]),
        starts=np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64),
        lengths=lengths,
        sampling_rate=sampling_rate,
        paths=tuple(path for path, _ in kept),
        excluded=left_out,
    )
    seconds = lengths.sum() / sampling_rate
    _logger.info("%s: %.0f s of %d files in memory", what, seconds, len(bank))
    return bank
