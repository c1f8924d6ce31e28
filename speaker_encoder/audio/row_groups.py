"""Recordings in the rows of parquet files, whose row groups are kept while they are read."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from speaker_encoder.audio.formats import AudioError
from speaker_encoder.audio.member import Member
from speaker_encoder.audio.ranges import FileState, Span, is_remote, last_state_of, state_of

if TYPE_CHECKING:
    import pyarrow
    from pyarrow import parquet

KEPT_BYTES = 1 << 30
"""Most bytes of row groups that a process keeps."""
_BINARY = ("binary", "large_binary", "binary_view", "null")  # null: no row has any
_TEXT = ("string", "large_string", "string_view", "null")


def audio_column(schema: pyarrow.Schema) -> str | None:
    """The column of audio that lies in the file: a struct with ``bytes`` and the text ``path``."""
    import pyarrow

    for field in schema:
        kinds: dict[str, str] = {}
        if pyarrow.types.is_struct(field.type):
            kinds = {child.name: str(child.type) for child in field.type}
        if kinds.get("bytes") in _BINARY and kinds.get("path") in _TEXT:
            return field.name
    return None


def open_parquet(path: str) -> parquet.ParquetFile:
    """A parquet file of this machine or a URL; reads what it is asked for only.

    Raises:
        AudioError: it is damaged, or cannot be read.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        if is_remote(path):
            return parquet.ParquetFile(Span(path, 0, state_of(path).size, path))
        return parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise AudioError(path, "no parquet file", str(error)) from error


def read_row(member: Member) -> bytes:
    """The bytes of the recording in a row.

    Raises:
        AudioError: there is no such row, or it holds no audio.
    """
    group = _KEPT.get(member)
    content = group[member.second].as_py() if member.second < len(group) else None
    if not content:
        raise AudioError(member.path, "empty file", "no bytes in its row")
    return content


def read_audio_bytes(file: parquet.ParquetFile, path: str, group: int) -> pyarrow.ChunkedArray:
    """The audio of a row group, a value of bytes for each row.

    Raises:
        AudioError: the file is damaged, or has no such group or column.
    """
    import pyarrow

    column = audio_column(file.schema_arrow)
    if column is None or group >= file.metadata.num_row_groups:
        raise AudioError(path, "changed since it was scanned", "scan the corpus again")
    try:
        table = file.read_row_group(group, columns=[f"{column}.bytes"], use_threads=False)
        return _field(table.column(column), "bytes")
    except (pyarrow.ArrowException, OSError) as error:
        raise AudioError(path, "truncated or damaged", str(error)) from error


def _field(column: pyarrow.ChunkedArray, name: str) -> pyarrow.ChunkedArray:
    import pyarrow
    from pyarrow import compute

    return pyarrow.chunked_array([compute.struct_field(part, name) for part in column.chunks])


class _RowGroups:
    """The row groups that were read last, up to `KEPT_BYTES`; of files as they are now."""

    def __init__(self) -> None:
        self._groups: OrderedDict[tuple[str, int, FileState | None], Any] = OrderedDict()
        self.renew_lock()
        os.register_at_fork(after_in_child=self.renew_lock)

    def renew_lock(self) -> None:
        """A thread that held it is not there in a new process."""
        self._lock = threading.Lock()

    def get(self, member: Member) -> pyarrow.ChunkedArray:
        with self._lock:  # no group is decoded twice
            return self._get(member)

    def _get(self, member: Member) -> pyarrow.ChunkedArray:
        key = (member.shard, member.first, last_state_of(member.shard))
        if key not in self._groups:
            with open_parquet(member.shard) as file:
                self._groups[key] = read_audio_bytes(file, member.path, member.first)
            total = sum(group.nbytes for group in self._groups.values())
            while total > KEPT_BYTES and len(self._groups) > 1:
                total -= self._groups.popitem(last=False)[1].nbytes
        self._groups.move_to_end(key)
        return self._groups[key]


_KEPT = _RowGroups()  # of this process: one for all who read
