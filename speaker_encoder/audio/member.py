"""Recordings inside other files: members of tar shards and rows of parquet shards.

A path tells all: ``shard.tar#1536+48000/p226_001.flac`` is the 48,000 bytes from byte 1,536 on,
``shard.parquet#3.17/p226_001.flac`` is row 17 of row group 3. The shard may be a URL.
"""

from __future__ import annotations

import io
import os
import re
from functools import lru_cache
from typing import BinaryIO, NamedTuple

from speaker_encoder.audio.formats import AudioError
from speaker_encoder.audio.ranges import (
    FileState,
    Span,
    is_remote,
    last_state_of,
    read_span,
    state_of,
)

_MEMBER = re.compile(r"(.+?\.(?:tar|parquet))#([0-9]+)([+.])([0-9]+)/(.+)", re.DOTALL)
_HEADER_BLOCK, _BLOCK = 1 << 12, 1 << 16
_READ_AT_ONCE = 1 << 18  # faster than block by block


class Member(NamedTuple):
    """Where a recording lies in a shard; sorts in the order in which shards are read.

    Attributes:
        shard: path or URL of the file around it.
        first: first byte in a tar; row group of a parquet file.
        second: number of bytes in a tar; row in the row group of a parquet file.
        name: of the recording, with its extension.
    """

    shard: str
    first: int
    second: int
    name: str

    @property
    def is_row(self) -> bool:
        """Whether it is a row of a parquet file."""
        return self.shard.endswith(".parquet")

    @property
    def path(self) -> str:
        """The path that `find_member` reads."""
        sign = "." if self.is_row else "+"
        return f"{self.shard}#{self.first}{sign}{self.second}/{self.name}"


def find_member(path: str | os.PathLike[str]) -> Member | None:
    """Where a recording lies in a shard; None for an ordinary file, whatever it is called."""
    text = os.fspath(path)
    if "#" not in text:
        return None
    match = _MEMBER.fullmatch(text)
    if match is None or match[1].endswith(".parquet") != (match[3] == "."):
        return None
    if not is_remote(match[1]) and not _is_file(match[1]) and os.path.exists(text):
        return None
    return Member(match[1], int(match[2]), int(match[4]), match[5])


@lru_cache(maxsize=1 << 16)
def _is_file(shard: str) -> bool:
    return os.path.isfile(shard)


def open_binary(path: str | os.PathLike[str]) -> BinaryIO:
    """An audio file, or a recording in a shard, to read a little of it.

    Raises:
        AudioError: the recording is not in its shard, or that cannot be read.
        OSError: the file cannot be read.
    """
    member = find_member(path)
    if member is None:
        return open(path, "rb", buffering=_HEADER_BLOCK)
    return open_member(member, is_for_header=True)


def open_member(member: Member, *, is_for_header: bool = False) -> BinaryIO:
    """A recording in a shard; of a URL it is fetched whole.

    Args:
        member: where it lies.
        is_for_header: a little of it will be read.

    Raises:
        AudioError: it is not there, or the shard cannot be read.
    """
    if member.is_row:
        from speaker_encoder.audio.row_groups import read_row

        return _NamedBytes(read_row(member), member.path)
    if member.second == 0:
        raise AudioError(member.path, "empty file", "0 bytes")
    if is_remote(member.shard):
        return _NamedBytes(_fetch(member, last_state_of(member.shard)), member.path)
    if member.second <= _READ_AT_ONCE and not is_for_header:
        content = read_span(member.shard, member.first, member.second)
        return _NamedBytes(content, member.path)
    # Checked before, since what libsndfile's callbacks raise does not come out of it.
    if state_of(member.shard).size < member.first + member.second:
        raise AudioError(member.path, "truncated", "its shard ends before it does")
    span = Span(member.shard, member.first, member.second, member.path)
    return io.BufferedReader(span, _HEADER_BLOCK if is_for_header else _BLOCK)


@lru_cache(maxsize=1)
def _fetch(member: Member, state: FileState | None) -> bytes:
    """The bytes of a recording behind a URL; its header and its samples are read one by one.

    Args:
        member: where it lies.
        state: of its shard; what was fetched of another one is not given.
    """
    return read_span(member.shard, member.first, member.second)


class _NamedBytes(io.BytesIO):
    """Bytes with a name, by which FFmpeg guesses formats."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name
