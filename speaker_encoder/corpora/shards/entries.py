"""What the index of a shard holds: its recordings, and what was left out of it."""

from __future__ import annotations

import os
import posixpath
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from speaker_encoder.audio.ranges import is_remote, read_span, state_of

_FETCHED_BYTES = 8 << 20
_LONGEST_NAME = 255  # bytes, of most file systems


class Entry(NamedTuple):
    """A recording of a shard; first and second as of `audio.member.Member`."""

    first: int
    second: int
    name: str
    speaker_id: str
    session_id: str | None
    num_samples: int
    sampling_rate: int


class LeftOut(NamedTuple):
    """A recording that cannot be used.

    Attributes:
        place: what stands behind ``#`` in its path; "" where it is the shard itself.
        reason: why.
        detail: what was found in this one.
    """

    place: str
    reason: str
    detail: str


@dataclass(slots=True)
class ShardIndex:
    """The recordings of a shard, in their order.

    Attributes:
        entries: that can be used.
        left_out: that cannot.
        ignored: kind -> number of members that are not audio at all.
    """

    entries: list[Entry] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def name_problem(name: str) -> str | None:
    """Why a name in a shard is not taken: no such name becomes a path that leaves a folder."""
    if not name or "\0" in name or posixpath.isabs(name) or ".." in name.split("/"):
        return "a name that leaves its folder"
    if any(len(os.fsencode(part)) > _LONGEST_NAME for part in name.split("/")):
        return "a name longer than that of any file"
    return None


def sample_key(utterance_id: str) -> str:
    """The name of an utterance in a tar, whose first dot would end it."""
    folder, name = posixpath.split(utterance_id)
    return posixpath.join(folder, name.replace(".", "_"))


def speaker_problem(speaker_id: str | None) -> str | None:
    """Why a speaker's name is not taken."""
    if not speaker_id:
        return "no speaker beside it"
    if "/" in speaker_id or "\0" in speaker_id or speaker_id in (".", ".."):
        return "speaker with a path separator"
    return None


@contextmanager
def on_this_machine(shard: str) -> Iterator[str]:
    """A path of a shard on this machine; one of a URL is fetched, and deleted at the end.

    Raises:
        AudioError: it cannot be fetched.
    """
    if not is_remote(shard):
        yield shard
        return
    size = state_of(shard).size
    with tempfile.NamedTemporaryFile(suffix=os.path.splitext(shard)[1]) as file:
        for start in range(0, size, _FETCHED_BYTES):
            file.write(read_span(shard, start, min(_FETCHED_BYTES, size - start)))
        file.flush()
        yield file.name
