"""The recordings of a parquet shard: rows with a column of audio and one of speakers."""

from __future__ import annotations

import os
import posixpath
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from speaker_encoder.audio import AUDIO_EXTENSIONS, AudioError, AudioInfo, read_info
from speaker_encoder.audio.row_groups import audio_column, open_parquet
from speaker_encoder.corpora.shards.entries import (
    Entry,
    LeftOut,
    ShardIndex,
    name_problem,
    on_this_machine,
    speaker_problem,
)
from speaker_encoder.errors import UserError

if TYPE_CHECKING:
    import pyarrow
    from pyarrow import parquet

SPEAKER_COLUMNS = ("speaker_id", "speaker", "spk_id", "client_id", "speaker_name")
SESSION_COLUMNS = ("session_id", "session", "chapter_id")
_LENGTH_COLUMNS = ("num_samples", "sampling_rate")
_MAGIC = ((b"fLaC", ".flac"), (b"OggS", ".ogg"), (b"ID3", ".mp3"), (b"RIFF", ".wav"))


def index_parquet(shard: str) -> ShardIndex:
    """The recordings of a parquet file.

    With columns ``num_samples`` and ``sampling_rate`` no audio is read, else every header.

    Args:
        shard: path or URL.

    Raises:
        UserError: it has no column of audio, or none of speakers.
        AudioError: it is damaged or cannot be reached.
    """
    with open_parquet(shard) as file:
        if _has_lengths(file.schema_arrow):
            return _index_rows(file, shard, has_lengths=True)
    with on_this_machine(shard) as path, open_parquet(path) as file:
        return _index_rows(file, shard, has_lengths=False)


def _has_lengths(schema: pyarrow.Schema) -> bool:
    """Whether there are both columns of lengths, of whole numbers."""
    import pyarrow

    return all(
        name in schema.names and pyarrow.types.is_integer(schema.field(name).type)
        for name in _LENGTH_COLUMNS
    )


def _index_rows(file: parquet.ParquetFile, shard: str, *, has_lengths: bool) -> ShardIndex:
    columns = file.schema_arrow.names
    audio = audio_column(file.schema_arrow)
    speaker = next((name for name in SPEAKER_COLUMNS if name in columns), None)
    session = next((name for name in SESSION_COLUMNS if name in columns), None)
    if audio is None or speaker is None:
        raise UserError(
            f"{shard} needs a column of audio (a struct of bytes and of path, a text) and one "
            f"of speakers, named {', '.join(SPEAKER_COLUMNS)}; it has "
            f"{', '.join(file.schema_arrow.names)}. Rename them."
        )
    wanted = [f"{audio}.path", speaker, *([session] if session else [])]
    wanted += _LENGTH_COLUMNS if has_lengths else [f"{audio}.bytes"]
    index = ShardIndex()
    for group, number, row in _rows(file, shard, wanted):
        name = _name(row[audio], group, number)
        speaker_id = None if row[speaker] is None else str(row[speaker]).strip()
        problem, detail = name_problem(name) or speaker_problem(speaker_id), ""
        if problem is None:
            try:
                info = _lengths(row, name) if has_lengths else _read_header(row[audio], name)
            except AudioError as error:
                problem, detail = error.reason, error.detail
        if problem is not None:
            index.left_out.append(LeftOut(f"{group}.{number}/{name}", problem, detail))
            continue
        session_id = str(row[session]) if session and row[session] is not None else None
        index.entries.append(
            Entry(
                *(group, number, name, str(speaker_id), session_id),
                *(info.num_samples, info.sampling_rate),
            )
        )
    return index


def _rows(
    file: parquet.ParquetFile, shard: str, columns: list[str]
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """(row group, row in it, values) of each row.

    Raises:
        AudioError: the file is damaged.
    """
    import pyarrow

    for group in range(file.metadata.num_row_groups):
        try:
            rows = file.read_row_group(group, columns=columns).to_pylist()
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise AudioError(shard, "truncated or damaged", str(error)) from error
        for number, row in enumerate(rows):
            yield group, number, row


def _name(audio: dict[str, Any] | None, group: int, number: int) -> str:
    """What a recording is called: the last part of its path, with an extension of audio."""
    audio = audio or {}
    name = posixpath.basename(audio.get("path") or "") or f"{group:04d}-{number:04d}"
    if os.path.splitext(name)[1].lower() in AUDIO_EXTENSIONS:
        return name
    head = (audio.get("bytes") or b"")[:4]
    return name + next((suffix for magic, suffix in _MAGIC if head.startswith(magic)), ".wav")


def _lengths(row: dict[str, Any], name: str) -> AudioInfo:
    num_samples, sampling_rate = (row[column] for column in _LENGTH_COLUMNS)
    if min(num_samples or 0, sampling_rate or 0) <= 0:
        raise AudioError(name, "no audio samples")
    return AudioInfo(num_samples, sampling_rate, 1)


def _read_header(audio: dict[str, Any] | None, name: str) -> AudioInfo:
    content = (audio or {}).get("bytes")
    if not content:
        raise AudioError(name, "no audio in its row", "its column has no bytes")
    with tempfile.NamedTemporaryFile(suffix=os.path.splitext(name)[1]) as file:
        file.write(content)
        file.flush()
        return read_info(file.name)
