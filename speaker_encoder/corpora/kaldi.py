"""Kaldi data folders: `wav.scp`, `utt2spk`, `segments`; read as plain text, nothing is run."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from speaker_encoder.corpora.records import Utterance
from speaker_encoder.errors import UserError

_NO_ID = re.compile(r"[\s/\\]+")
_ARCHIVE = re.compile(r".*\.ark:\d+(\[.*\])?$")
_PROBLEMS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class KaldiUtterance:
    """An entry of a data folder: `start` and `end` in seconds, None: the whole recording.

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
        recording, start, end = utterance_id, None, None
        if segments:
            if utterance_id not in segments:
                problems.append(f"{utterance_id} is in utt2spk and not in segments")
                continue
            recording, start, end = _segment(root, utterance_id, segments[utterance_id])
        if recording not in found:
            problems.append(f"recording {recording} is not in wav.scp")
            continue
        path, problem = found[recording]
        full_path = None if path is None else os.path.normpath(os.path.join(base, path))
        utterances.append(KaldiUtterance(utterance_id, speaker_id, full_path, problem, start, end))
    if problems:
        shown = "\n  ".join(problems[:_PROBLEMS_SHOWN])
        rest = f"\n  and {len(problems) - _PROBLEMS_SHOWN} more" * (len(problems) > _PROBLEMS_SHOWN)
        raise UserError(f"The Kaldi data folder {root} does not fit together:\n  {shown}{rest}")
    return utterances


def _segment(root: Path, utterance_id: str, fields: list[str]) -> tuple[str, float, float]:
    try:
        recording, start, end = fields[0], float(fields[1]), float(fields[2])
    except ValueError:
        start, end = 1.0, 0.0
    if not 0 <= start < end or len(fields) > 4:
        raise UserError(
            f"{root / 'segments'}: wanted lines `utterance recording start end` in seconds, found "
            f"{' '.join([utterance_id, *fields])!r}."
        )
    return recording, start, end


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
        try:
            words = shlex.split(value[:-1])
        except ValueError:
            words = []
        names = [word for word in words[1:] if not word.startswith("-")]
        if words[:1] in (["flac"], ["cat"]) and len(names) == 1 and "|" not in names[0]:
            return names[0], None
        return None, "a command in wav.scp, which is never run"
    if _ARCHIVE.match(value):
        return None, "inside a Kaldi archive (.ark), which is not read"
    return value, None


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

    Names begin with the speaker's, and have `-` or `_` for what Kaldi cannot have in a name.
    Paths are absolute.

    Returns:
        How many utterances there are.

    Raises:
        UserError: two utterances or speakers would have the same name.
    """
    entries: dict[str, Utterance] = {}
    speakers: dict[str, str] = {}
    for utterance in utterances:
        speaker = _kaldi_name(utterance.speaker_id)
        if speakers.setdefault(speaker, utterance.speaker_id) != utterance.speaker_id:
            raise UserError(
                f"Speakers {speakers[speaker]!r} and {utterance.speaker_id!r} would both be "
                f"{speaker!r} in a Kaldi data folder. Rename one of them."
            )
        name = _kaldi_name(utterance.utterance_id)
        if not name.startswith(speaker):
            name = f"{speaker}-{name}"
        if name in entries:
            raise UserError(
                f"{entries[name].path} and {utterance.path} would both be {name!r} in a Kaldi data "
                "folder. Rename one of them."
            )
        entries[name] = utterance
    ordered = sorted(entries.items(), key=lambda item: os.fsencode(item[0]))
    of_speaker: dict[str, list[str]] = {}
    for name, utterance in ordered:
        of_speaker.setdefault(_kaldi_name(utterance.speaker_id), []).append(name)
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "wav.scp": [f"{name} {os.path.abspath(u.path)}" for name, u in ordered],
        "utt2spk": [f"{name} {_kaldi_name(u.speaker_id)}" for name, u in ordered],
        "utt2dur": [f"{name} {u.seconds:.4f}" for name, u in ordered],
        "spk2utt": [
            f"{speaker} {' '.join(of_speaker[speaker])}"
            for speaker in sorted(of_speaker, key=os.fsencode)
        ],
    }
    for name, lines in tables.items():
        write_lines(folder / name, lines)
    return len(ordered)


def _kaldi_name(name: str) -> str:
    return _NO_ID.sub(lambda match: "-" if match[0][0] in "/\\" else "_", name)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes a text file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    text = "".join(f"{line}\n" for line in lines)
    part.write_bytes(text.encode("utf-8", errors="surrogateescape"))
    os.replace(part, path)
