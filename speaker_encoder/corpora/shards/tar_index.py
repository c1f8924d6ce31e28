"""The recordings of a tar shard, with the speakers that stand beside them."""

from __future__ import annotations

import json
import posixpath
import re
import tarfile
from collections.abc import Iterator

from speaker_encoder.audio import AUDIO_EXTENSIONS, AudioError, read_info
from speaker_encoder.audio.member import Member
from speaker_encoder.corpora.shards.entries import (
    Entry,
    LeftOut,
    ShardIndex,
    name_problem,
    sample_key,
    speaker_problem,
)
from speaker_encoder.errors import UserError

SPEAKER_NAMES = ("speaker_id", "speaker", "spk_id", "spk")
SESSION_NAMES = ("session_id", "session")
_SPEAKER_FILES = ("spk", "speaker", "speaker_id", "cls")
_TEXT_FILES = ("json", *_SPEAKER_FILES)
_LARGEST_TEXT = 1 << 20
_KEY = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
_DAMAGE = (tarfile.TarError, ValueError, OverflowError, RecursionError)  # as tarfile raises them
_PACKED = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"(\xb5/\xfd", "zstd"))


def index_tar(path: str, shard: str) -> ShardIndex:
    """The recordings of a tar, grouped as webdataset does: by the name up to its first dot.

    Args:
        path: of the tar on this machine.
        shard: what it is called, for messages.

    Raises:
        UserError: it is compressed.
        OSError: it cannot be read.
    """
    index = ShardIndex()
    sample: list[tarfile.TarInfo] = []
    last_key, names = None, set()
    with open(path, "rb") as file:
        _refuse_packed(file.read(8), shard)
        for member in _members(path, index):
            if member.isdir():
                continue
            name = posixpath.normpath(member.name)
            is_audio = posixpath.splitext(name)[1].lower() in AUDIO_EXTENSIONS
            problem = name_problem(name) or (None if _is_plain(member) else "a link, not a file")
            if problem is None and name in names:
                problem = "a second one of this name"
            if problem is not None:
                if is_audio:
                    index.left_out.append(LeftOut(_place(member, name), problem, ""))
                continue
            names.add(name)
            member.name = name
            key = _split(name)[0]
            if key != last_key:
                _add_sample(sample, file, path, index)
                sample, last_key = [], key
            sample.append(member)
        _add_sample(sample, file, path, index)
    return index


def _refuse_packed(head: bytes, shard: str) -> None:
    kind = next((name for magic, name in _PACKED if head.startswith(magic)), None)
    if kind is not None:
        raise UserError(
            f"{shard} is compressed ({kind}): no recording in it can be read without those before "
            "it. Audio gains nothing by that; unpack it to a plain tar, as with `gunzip`."
        )


def _members(path: str, index: ShardIndex) -> Iterator[tarfile.TarInfo]:
    """The members up to the end or to where the tar is damaged."""
    last, count = 0, 0
    try:
        with tarfile.open(path, "r:", errorlevel=2) as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # they would be kept
                if member.size < 0:
                    raise tarfile.ReadError("a negative size")
                count += 1
                last = member.offset_data + (member.size if member.isreg() else 0)
                yield member
            end = archive.offset
        with open(path, "rb") as file:
            file.seek(end)
            block = file.read(tarfile.BLOCKSIZE)
        problem = "no tar header" if block.strip(b"\0") else None
    except _DAMAGE as error:
        problem, end = str(error), last
    if problem is not None:
        detail = f"{problem} after {count} members, at byte {end}"
        index.left_out.append(LeftOut("", "truncated or damaged shard", detail))


def _place(member: tarfile.TarInfo, name: str) -> str:
    return f"{member.offset_data}+{member.size}/{name}"


def _is_plain(member: tarfile.TarInfo) -> bool:
    return member.isreg() and not member.issparse()


def _split(name: str) -> tuple[str, str]:
    """The key of a sample and the rest of the name, as webdataset splits it."""
    match = _KEY.fullmatch(name)
    return (match[1], match[2].lower()) if match else (name, "")


def _add_sample(sample: list[tarfile.TarInfo], file: object, path: str, index: ShardIndex) -> None:
    """Adds the recordings of members that have one key."""
    texts: dict[str, str] = {}
    recordings = []
    for member in sample:
        rest = _split(member.name)[1]
        extension = posixpath.splitext(member.name)[1].lower()
        if extension in AUDIO_EXTENSIONS:
            recordings.append((member, rest.removesuffix(extension[1:])))
            continue
        if rest.rsplit(".", 1)[-1] in _TEXT_FILES and member.size <= _LARGEST_TEXT:
            file.seek(member.offset_data)  # type: ignore[attr-defined]
            content = file.read(member.size)  # type: ignore[attr-defined]
            texts[rest] = content.decode("utf-8", "replace")
        index.ignored[f"{extension} file" if extension else "file without extension"] += 1
    for member, prefix in recordings:
        speaker_id, session_id = _whose(texts, prefix)
        name = _own_name(texts, member.name) if len(recordings) == 1 else member.name
        problem, detail = speaker_problem(speaker_id), ""
        if problem is None:
            try:
                place = Member(path, member.offset_data, member.size, member.name)
                info = read_info(place.path)
            except AudioError as error:
                problem, detail = error.reason, error.detail
        if problem is not None:
            index.left_out.append(LeftOut(_place(member, member.name), problem, detail))
            continue
        assert speaker_id is not None
        index.entries.append(
            Entry(
                *(member.offset_data, member.size, name, speaker_id, session_id),
                *(info.num_samples, info.sampling_rate),
            )
        )


def _facts(texts: dict[str, str], start: str = "") -> dict:
    """What a json beside a recording says."""
    try:
        values = json.loads(texts.get(f"{start}json", "{}"))
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _own_name(texts: dict[str, str], name: str) -> str:
    """The name of a recording, with the dots that `write_shards` had to take out of it."""
    key, extension = posixpath.splitext(name)
    own = _facts(texts).get("utterance_id")
    is_own = isinstance(own, str) and sample_key(own) == key and not name_problem(own)
    return f"{own}{extension}" if is_own else name


def _whose(texts: dict[str, str], prefix: str) -> tuple[str | None, str | None]:
    """The speaker and the session of a recording.

    Args:
        texts: rest of the name -> content, of the files beside it.
        prefix: what stands between the key and the extension of the recording: for `a.left.wav`,
            `a.left.json` comes before `a.json`.
    """
    speaker_id = session_id = None
    for start in dict.fromkeys((prefix, "")):
        values = _facts(texts, start)
        files = {name: texts.get(f"{start}{name}") for name in _SPEAKER_FILES}
        speaker_id = speaker_id or _first(values, SPEAKER_NAMES) or _first(files, _SPEAKER_FILES)
        session_id = session_id or _first(values, SESSION_NAMES)
    return speaker_id, session_id


def _first(values: dict, names: tuple[str, ...]) -> str | None:
    """The first value that is a text or a whole number."""
    for name in names:
        value = values.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value).strip()
    return None
