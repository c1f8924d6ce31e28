"""Kaldi data folders: `wav.scp`, `utt2spk`, `segments`; read as plain text, nothing is run."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from speaker_encoder.corpora.records import Utterance
from speaker_encoder.errors import UserError

_NO_ID = re.compile(r"[\s/\\]+")
# `-` and what comes before it in ASCII.
_EARLY = re.compile(r"[\x00-\-]")
_ARCHIVE = re.compile(r".*\.ark:\d+(\[.*\])?$")
_FLAC_OPTION = re.compile(r"-[cds]+|--stdout|--decode|--silent")
_PROBLEMS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class KaldiUtterance:
    """An entry of a data folder: `start` and `end` in seconds, None: from or to its very end.

    `path` is None, and `problem` says why, where the recording is no file.
    """

    utterance_id: str
    speaker_id: str
    path: str | None
    problem: str | None = None
    start: float | None = None
    end: float | None = None


def read_kaldi_folder(folder: str | os.PathLike[str]) -> list[KaldiUtterance]:
    """Reads a data folder.

    Args:
        folder: with `wav.scp`, `utt2spk` and perhaps `segments`. Paths are absolute, or relative to
            the folder or to one above it. Of commands only `flac -c -d [-s] FILE |` and `cat FILE
            |` are understood, as the file that they name.

    Returns:
        Its utterances in the order of `utt2spk`.

    Raises:
        UserError: a file is missing, or lines are not of the form.
    """
    root = Path(folder)
    recordings = _read_table(root / "wav.scp", 2)
    speakers = _read_table(root / "utt2spk", 2)
    segments: dict[str, list[str]] = {}
    if (root / "segments").exists():
        segments = {key: rest.split() for key, rest in _read_table(root / "segments", 4).items()}
    found = {key: _recording(rest) for key, rest in recordings.items()}
    base = _base(root, [path for path, _ in found.values() if path is not None])
    utterances, problems = [], []
    for utterance_id, speaker_id in speakers.items():
        recording, start, end, channel = utterance_id, None, None, "-1"
        if segments:
            if utterance_id not in segments:
                problems.append(f"{utterance_id} is in utt2spk and not in segments")
                continue
            recording, start, end, channel = _segment(root, utterance_id, segments[utterance_id])
        if recording not in found:
            problems.append(f"recording {recording} is not in wav.scp")
            continue
        path, problem = found[recording]
        if channel != "-1":
            path, problem = None, "one channel of a recording (segments, field 5), which is not cut"
        full_path = None if path is None else os.path.normpath(os.path.join(base, path))
        utterances.append(KaldiUtterance(utterance_id, speaker_id, full_path, problem, start, end))
    if problems:
        shown = "\n  ".join(problems[:_PROBLEMS_SHOWN])
        rest = f"\n  and {len(problems) - _PROBLEMS_SHOWN} more" * (len(problems) > _PROBLEMS_SHOWN)
        raise UserError(f"The Kaldi data folder {root} does not fit together:\n  {shown}{rest}")
    return utterances


def _segment(
    root: Path, utterance_id: str, fields: list[str]
) -> tuple[str, float, float | None, str]:
    """Gives the recording, start and end in seconds (None: its end), and the channel (-1: any)."""
    try:
        start, end = float(fields[1]), float(fields[2])
    except ValueError:
        start, end = math.nan, math.nan
    is_to_the_end = end == -1
    is_span = 0 <= start < math.inf and (is_to_the_end or start < end < math.inf)
    if not is_span or len(fields) > 4:
        raise UserError(
            f"{root / 'segments'}: wanted lines `utterance recording start end` in seconds, found "
            f"{' '.join([utterance_id, *fields])!r}."
        )
    return fields[0], start, None if is_to_the_end else end, (*fields, "-1")[3]


def _read_table(path: Path, num_fields: int) -> dict[str, str]:
    """Gives first field -> the rest of each line.

    Raises:
        UserError: the file is missing, a line has too few fields, or a key comes twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}. A Kaldi data folder has wav.scp and utt2spk."
        ) from error
    table: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.split(maxsplit=1)
        if not fields:
            continue
        if len(line.split()) < num_fields:
            raise UserError(
                f"{path}, line {number}: wanted {num_fields} fields, found {line.strip()[:80]!r}."
            )
        if fields[0] in table:
            raise UserError(f"{path}, line {number}: {fields[0]!r} comes a second time.")
        table[fields[0]] = fields[1].strip()
    return table


def _recording(value: str) -> tuple[str | None, str | None]:
    """Gives the path of an entry of `wav.scp`, or why there is none."""
    if value.endswith("|"):
        path = _decoded_file(value[:-1])
        return path, None if path else "a command in wav.scp, which is never run"
    if _ARCHIVE.match(value):
        return None, "inside a Kaldi archive (.ark), which is not read"
    return value, None


def _decoded_file(command: str) -> str | None:
    """Gives the file whose content a command writes whole, None where it may do anything else."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;<>()$`*?")
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        words = list(lexer)
    except ValueError:  # a quotation without an end
        return None
    if not words or words[-1].startswith("-"):
        return None
    if words[0] == "cat" and len(words) == 2:
        return words[1]
    if words[0] == "flac" and all(_FLAC_OPTION.fullmatch(word) for word in words[1:-1]):
        given = "".join(words[1:-1])
        is_decoding = re.search("-[cs]*d|--decode", given) is not None
        is_to_stdout = re.search("-[ds]*c|--stdout", given) is not None
        return words[-1] if is_decoding and is_to_stdout and len(words) > 2 else None
    return None


def _base(root: Path, paths: list[str]) -> Path:
    """Gives the folder that relative paths start from: the nearest one with the first of them."""
    first = next((path for path in paths if not os.path.isabs(path)), None)
    if first is not None:
        for folder in (root.resolve(), *root.resolve().parents):
            if (folder / first).is_file():
                return folder
    return root.resolve()


def write_kaldi_folder(utterances: Iterable[Utterance], folder: Path) -> int:
    """Writes `wav.scp`, `utt2spk`, `spk2utt` and `utt2dur`, sorted as Kaldi's tools want it.

    An utterance's name begins with its speaker's and `-`. What Kaldi cannot have in a name becomes
    `-` or `_`; where utterances in order would not be speakers in order (speakers `84` and `84-5`),
    what sorts before letters and digits becomes `_` in the names of speakers. Paths are absolute;
    FLAC is written as the command `flac -c -d -s PATH |`, as Kaldi itself reads WAV only.

    Returns:
        How many utterances there are.

    Raises:
        UserError: two utterances or speakers would have the same name, or a path has a line break.
    """
    given = list(utterances)
    entries = _named(given, _kaldi_name)
    if not _has_speakers_in_order(entries):
        entries = _named(given, lambda name: _EARLY.sub("_", _kaldi_name(name)))
    of_speaker: dict[str, list[str]] = {}
    for name, (speaker, _) in entries.items():
        of_speaker.setdefault(speaker, []).append(name)
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "wav.scp": [f"{name} {_wav_entry(u.path)}" for name, (_, u) in entries.items()],
        "utt2spk": [f"{name} {speaker}" for name, (speaker, _) in entries.items()],
        "utt2dur": [f"{name} {u.seconds:.4f}" for name, (_, u) in entries.items()],
        "spk2utt": [f"{speaker} {' '.join(names)}" for speaker, names in of_speaker.items()],
    }
    for table, lines in tables.items():
        write_lines(folder / table, lines)
    return len(entries)


def _named(
    utterances: Iterable[Utterance], name_speaker: Callable[[str], str]
) -> dict[str, tuple[str, Utterance]]:
    """Gives utterance name -> (speaker name, utterance), sorted by the names' bytes.

    Raises:
        UserError: a name is not unique.
    """
    entries: dict[str, tuple[str, Utterance]] = {}
    speakers: dict[str, str] = {}
    for utterance in utterances:
        speaker = name_speaker(utterance.speaker_id)
        if speakers.setdefault(speaker, utterance.speaker_id) != utterance.speaker_id:
            raise UserError(
                f"Speakers {speakers[speaker]!r} and {utterance.speaker_id!r} would both be "
                f"{speaker!r} in a Kaldi data folder. Rename one of them."
            )
        name = _kaldi_name(utterance.utterance_id)
        if not name.startswith(f"{speaker}-"):
            name = f"{speaker}-{name}"
        if name in entries:
            raise UserError(
                f"{entries[name][1].path} and {utterance.path} would both be {name!r} in a Kaldi "
                "data folder. Rename one of them."
            )
        entries[name] = speaker, utterance
    return dict(sorted(entries.items(), key=lambda item: _in_bytes(item[0])))


def _has_speakers_in_order(entries: dict[str, tuple[str, Utterance]]) -> bool:
    speakers = [_in_bytes(speaker) for speaker, _ in entries.values()]
    return all(first <= second for first, second in pairwise(speakers))


def _in_bytes(name: str) -> bytes:
    return name.encode("utf-8", errors="surrogateescape")


def _wav_entry(path: str) -> str:
    """Gives what `wav.scp` says for a recording.

    Raises:
        UserError: its path has a line break.
    """
    path = os.path.abspath(path)
    if "\n" in path or "\r" in path:
        raise UserError(f"A Kaldi data folder cannot hold {path!r}, which has a line break.")
    if os.path.splitext(path)[1].lower() == ".flac":
        return f"flac -c -d -s {shlex.quote(path)} |"
    return path


def _kaldi_name(name: str) -> str:
    return _NO_ID.sub(lambda match: "-" if match[0][0] in "/\\" else "_", name)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes a text file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    text = "".join(f"{line}\n" for line in lines)
    part.write_bytes(text.encode("utf-8", errors="surrogateescape"))
    os.replace(part, path)
