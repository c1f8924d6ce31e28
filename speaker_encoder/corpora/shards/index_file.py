"""What a shard holds, as a file: remembered in the cache, or beside a tar."""

from __future__ import annotations

import json
import os
import posixpath
import zlib
from collections import Counter
from pathlib import Path

from speaker_encoder.audio import AUDIO_EXTENSIONS, AudioError
from speaker_encoder.audio.ranges import FileState, is_remote, read_span, state_of
from speaker_encoder.corpora.shards.entries import (
    Entry,
    LeftOut,
    ShardIndex,
    name_problem,
    speaker_problem,
)
from speaker_encoder.corpora.shards.tar_index import index_tar

BESIDE = ".index.json"
"""Behind the name of a tar: a file with its index."""

# To be raised whenever what is read from a shard, or how it is checked, changes.
_VERSION = 2
_MOST_BYTES = 64 << 20  # of an index beside a tar
_NUM_CHECKED, _CHECKED_BYTES = 8, 4096  # places in a tar that tell whether an index is of it
_LARGEST = 1 << 63


def index_as_text(state: FileState, index: ShardIndex, checks: list[int] | None = None) -> str:
    """The file of an index.

    Args:
        state: of the shard.
        index: what it holds.
        checks: CRC-32 of parts of the shard by which it is known, where its time is not.
    """
    content = {
        "version": _VERSION,
        "state": [state.size, state.stamp],
        "entries": index.entries,
        "left_out": index.left_out,
        "ignored": index.ignored,
        "checks": checks or [],
    }
    return json.dumps(content, separators=(",", ":"))


def load_index(path: Path, state: FileState) -> ShardIndex | None:
    """What is remembered; None when it is absent, damaged, or the shard has changed."""
    try:
        found = _parse(path.read_text(encoding="ascii"), state)
    except (OSError, ValueError):
        return None
    return None if found is None else found[0]


def read_index_beside(shard: str, state: FileState) -> ShardIndex | None:
    """What `write_index_beside` wrote; None where there is none for this tar.

    What stands before some of its recordings is compared with the tar, since one that was written
    anew may have the size of the old one.

    Args:
        shard: path or URL of a tar.
        state: of the shard.

    Raises:
        AudioError: the shard cannot be read.
    """
    path = shard + BESIDE
    try:
        own = state_of(path)
        is_older = not is_remote(shard) and int(own.stamp) < int(state.stamp)
        if is_older or own.size > _MOST_BYTES:
            return None
        text = read_span(path, 0, own.size).decode("ascii")
    except (AudioError, UnicodeDecodeError):
        return None
    found = _parse(text, FileState(state.size, ""))
    if found is None:
        return None
    index, checks = found
    if not all(_is_possible(entry, state.size) for entry in index.entries):
        return None
    return index if checks == _checks(shard, state.size, index.entries) else None


def write_index_beside(shard: Path) -> None:
    """Writes what a tar on this machine holds beside it, so that who fetches it need not look."""
    path = str(shard)
    index = index_tar(path, path)
    size = state_of(path).size
    text = index_as_text(FileState(size, ""), index, _checks(path, size, index.entries))
    temporary = shard.with_suffix(".part")
    temporary.write_text(text, encoding="ascii")
    os.replace(temporary, f"{shard}{BESIDE}")


def _checks(shard: str, size: int, entries: list[Entry]) -> list[int]:
    """CRC-32 of what stands before some recordings, and behind the last: headers, and who speaks.

    Raises:
        AudioError: the shard cannot be read.
    """
    last = len(entries) - 1
    numbers = {round(last * part / (_NUM_CHECKED - 1)) for part in range(_NUM_CHECKED)}
    stops = [entries[number].first for number in sorted(numbers) if entries]
    spans = [(max(0, stop - _CHECKED_BYTES), stop) for stop in stops]
    end = entries[-1].first + entries[-1].second if entries else 0
    spans.append((end, min(size, end + _CHECKED_BYTES)))
    return [zlib.crc32(read_span(shard, start, stop - start)) for start, stop in spans]


def _parse(text: str, state: FileState) -> tuple[ShardIndex, list[int]] | None:
    """The index that a text holds; None when it is damaged or of another state."""
    try:
        content = json.loads(text)
        if content["version"] != _VERSION or content["state"] != [state.size, state.stamp]:
            return None
        entries = [Entry(*entry) for entry in content["entries"]]
        if not all(map(_is_entry, entries)):
            return None
        left_out = [LeftOut(*map(str, one)) for one in content["left_out"]]
        ignored = {str(kind): int(count) for kind, count in content["ignored"].items()}
        return ShardIndex(entries, left_out, Counter(ignored)), list(content["checks"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _is_entry(entry: Entry) -> bool:
    numbers = (entry.first, entry.second, entry.num_samples, entry.sampling_rate)
    return (
        all(type(number) is int and 0 <= number < _LARGEST for number in numbers)
        and entry.num_samples > 0
        and entry.sampling_rate > 0
        and type(entry.name) is type(entry.speaker_id) is str
        and isinstance(entry.session_id, str | None)
    )


def _is_possible(entry: Entry, size: int) -> bool:
    """Whether a tar of this size could hold such a recording."""
    return (
        name_problem(entry.name) is None
        and speaker_problem(entry.speaker_id) is None
        and posixpath.splitext(entry.name)[1].lower() in AUDIO_EXTENSIONS
        and 0 < entry.second <= size - entry.first
    )
