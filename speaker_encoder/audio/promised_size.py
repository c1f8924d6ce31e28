"""Compares the size that the header of a file promises with the size of the file.

The decoders read a truncated file as a shorter one and say nothing.
"""

import os
import struct
from collections.abc import Callable
from typing import BinaryIO

from speaker_encoder.audio.formats import extension_of
from speaker_encoder.audio.member import open_binary

# What programs that write wav to a pipe put where they do not know the length.
UNKNOWN_SIZES = frozenset({0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFF000, 0xFFFFF000})
_EBML_HEADER, _EBML_SEGMENT = bytes.fromhex("1A45DFA3"), bytes.fromhex("18538067")
_MP4_FIRST_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"})
_MAX_CHUNKS = 4096


def missing_bytes(path: str | os.PathLike[str]) -> int:
    """How many bytes a wav, mp4 or webm file lacks; 0 for a whole file and for other formats."""
    measure = _MEASURES.get(extension_of(path))
    if measure is None:
        return 0
    try:
        with open_binary(path) as file:
            return max(0, measure(file) - _size_of(file))
    except OSError:
        return 0


def _size_of(file: BinaryIO) -> int:
    position = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(position)
    return size


def _riff_size(file: BinaryIO) -> int:
    """Where the samples of a wav file should end.

    Source: Multimedia Programming Interface and Data Specifications 1.0 (RIFF); EBU Tech 3306
        (RF64, whose real sizes stand in the chunk ``ds64``).
    """
    head = file.read(12)
    if len(head) < 12 or head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        return 0
    data_size_64: int | None = None
    for _ in range(_MAX_CHUNKS):
        chunk = file.read(8)
        if len(chunk) < 8:
            return 0
        name, size = struct.unpack("<4sI", chunk)
        if name == b"data":
            if data_size_64 is not None and size == 0xFFFFFFFF:
                size = data_size_64
            elif size in UNKNOWN_SIZES:
                return 0
            return file.tell() + size
        if name == b"ds64":
            body = file.read(size + size % 2)
            data_size_64 = struct.unpack_from("<Q", body, 8)[0] if len(body) >= 16 else None
        else:
            file.seek(size + size % 2, os.SEEK_CUR)
    return 0


def _mp4_size(file: BinaryIO) -> int:
    """Where the last box of an mp4 file should end.

    Source: ISO/IEC 14496-12, 4.2 (size 1: a 64-bit size follows; size 0: up to the end).
    """
    end, size_of_file = 0, _size_of(file)
    for _ in range(_MAX_CHUNKS):
        file.seek(end)
        head = file.read(16)
        if len(head) < 8 or end >= size_of_file:
            break
        size = struct.unpack(">I", head[:4])[0]
        if size == 1 and len(head) == 16:
            size = struct.unpack(">Q", head[8:])[0]
        if size < 8 or (end == 0 and head[4:8] not in _MP4_FIRST_BOXES):
            return 0
        end += size
    return end


def _ebml_size(file: BinaryIO) -> int:
    """Where the segment of a webm or mkv file should end; 0 where it does not say.

    Source: RFC 8794, 4 and 6 (a size of all ones is unknown).
    """
    if file.read(4) != _EBML_HEADER:
        return 0
    header_size = _read_ebml_number(file)
    if header_size is None:
        return 0
    file.seek(header_size, os.SEEK_CUR)
    if file.read(4) != _EBML_SEGMENT:
        return 0
    segment_size = _read_ebml_number(file)
    return 0 if segment_size is None else file.tell() + segment_size


def _read_ebml_number(file: BinaryIO) -> int | None:
    """A variable-length number; None for "unknown" and at the end of the file."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    num_bytes = 9 - first[0].bit_length()
    rest = file.read(num_bytes - 1)
    if len(rest) < num_bytes - 1:
        return None
    bits = 7 * num_bytes
    value = int.from_bytes(first + rest, "big") & ((1 << bits) - 1)
    return None if value == (1 << bits) - 1 else value


_MEASURES: dict[str, Callable[[BinaryIO], int]] = {
    ".wav": _riff_size,
    ".m4a": _mp4_size,
    ".m4b": _mp4_size,
    ".m4v": _mp4_size,
    ".mp4": _mp4_size,
    ".mov": _mp4_size,
    ".3gp": _mp4_size,
    ".webm": _ebml_size,
    ".mkv": _ebml_size,
    ".mka": _ebml_size,
}
