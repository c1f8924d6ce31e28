"""Tables of speakers as corpora bring them: who is of which sex, and who speaks in which file."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from speaker_encoder.errors import UserError

KNOWN_FILES = ("speaker-info.txt", "SPEAKERS.txt", "SPEAKERS.TXT", "vox1_meta.csv", "spk2gender")
"""Found without being named: VCTK, LibriTTS and LibriSpeech, VoxCeleb1, Kaldi."""
_SPEAKER = ("speaker", "speaker_id", "id", "voxceleb1 id", "spk", "spk_id", "client_id")
_SEX = ("sex", "gender")
_PATH = ("path", "file", "audio")
_SESSION = ("session", "session_id")
_SEXES = {"m": "M", "male": "M", "f": "F", "female": "F"}
_HEADER_LINES = 30
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpeakerTable:
    """What a table says.

    Attributes:
        path: of the table.
        sexes: speaker -> ``F`` or ``M``.
        speakers: path of an audio file -> speaker, where the table has a column of paths.
        sessions: path of an audio file -> session.
    """

    path: Path
    sexes: dict[str, str] = field(default_factory=dict)
    speakers: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)

    def sex_of(self, speaker_id: str) -> str | None:
        """The sex of a speaker; its id may be a path that ends in the name in the table."""
        name = speaker_id.rsplit("/", 1)[-1]
        for known in (speaker_id, name, name.lstrip("ps")):
            if known in self.sexes:
                return self.sexes[known]
        return None


def find_speaker_table(root: str | os.PathLike[str]) -> SpeakerTable | None:
    """The table that a corpus brings, by its name; None where there is none that is understood."""
    for name in KNOWN_FILES:
        path = Path(root) / name
        if path.is_file():
            try:
                return read_speaker_table(path)
            except UserError as error:
                _logger.warning("%s", error)
    return None


def read_speaker_table(path: str | os.PathLike[str]) -> SpeakerTable:
    """Reads a table: columns with a header, or Kaldi's ``spk2gender``.

    Columns are separated by tabs, bars, commas or spaces. Wanted is a column ``speaker`` (or
    ``id``) and one of ``sex`` (or ``gender``), ``path``, ``session``; others do not matter.

    Args:
        path: such as VCTK's ``speaker-info.txt`` or LibriTTS's ``SPEAKERS.txt``.

    Returns:
        What it says.

    Raises:
        UserError: it cannot be read, or has no such columns.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"Cannot read the speaker table {path}: {error.strerror}.") from error
    lines = [line for line in text.splitlines() if line.strip(" ;\t")]
    for number, line in enumerate(lines[:_HEADER_LINES]):
        for separator in ("\t", "|", ",", None):
            columns = [cell.lower() for cell in _cells(line.lstrip("; "), separator)]
            if _find(columns, _SPEAKER) is not None and (
                _find(columns, _SEX) is not None or _find(columns, _PATH) is not None
            ):
                rows = [row for row in lines[number + 1 :] if not row.startswith(";")]
                return _read_rows(Path(path), columns, [_cells(row, separator) for row in rows])
    for separator in ("\t", "|", ",", None):  # without a header: the second column is the sex
        cells = [_cells(line, separator) for line in lines if not line.startswith(";")]
        if cells and all(len(row) > 1 and row[1].lower() in _SEXES for row in cells):
            return SpeakerTable(Path(path), {row[0]: _SEXES[row[1].lower()] for row in cells})
    found = f"Its first line is {lines[0][:80]!r}." if lines else "It is empty."
    raise UserError(
        f"The speaker table {path} is not understood: wanted a header with `speaker` and `sex` "
        "(or `path` and `speaker`), separated by tabs, bars, commas or spaces; or lines that "
        f"start with a speaker and m or f. {found}"
    )


def _cells(line: str, separator: str | None) -> list[str]:
    return [cell.strip() for cell in line.split(separator)]


def _find(columns: Sequence[str], names: Sequence[str]) -> int | None:
    return next((columns.index(name) for name in names if name in columns), None)


def _read_rows(path: Path, columns: list[str], rows: list[list[str]]) -> SpeakerTable:
    at = {
        what: _find(columns, names)
        for what, names in {
            "speaker": _SPEAKER, "sex": _SEX, "path": _PATH, "session": _SESSION,
        }.items()
    }  # fmt: skip
    table = SpeakerTable(path)

    def cell(row: list[str], what: str) -> str:
        position = at[what]
        return row[position] if position is not None and position < len(row) else ""

    for row in rows:
        speaker = cell(row, "speaker")
        sex = _SEXES.get(cell(row, "sex").lower())
        if speaker and sex:
            table.sexes[speaker] = sex
        if speaker and (name := cell(row, "path")):
            table.speakers[os.path.normpath(name)] = speaker
            if session := cell(row, "session"):
                table.sessions[os.path.normpath(name)] = session
    return table
