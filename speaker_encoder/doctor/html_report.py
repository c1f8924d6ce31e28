"""What was found, as a page with players."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from speaker_encoder.audio import AudioError
from speaker_encoder.audio.member import find_member, open_member
from speaker_encoder.doctor.examine import Diagnosis
from speaker_encoder.doctor.findings import KINDS, Finding
from speaker_encoder.doctor.report import path_below
from speaker_encoder.plots.page import data_uri, escape, make_page, write_page

MAX_ROWS = 200
"""Findings of one kind on the page; the JSON has all."""
DEFAULT_EMBEDDED_MEGABYTES = 20.0

_MEDIA_TYPES = {
    ".wav": "audio/wav", ".flac": "audio/flac", ".mp3": "audio/mpeg", ".ogg": "audio/ogg",
    ".oga": "audio/ogg", ".opus": "audio/ogg", ".m4a": "audio/mp4", ".mp4": "audio/mp4",
    ".aac": "audio/aac", ".webm": "audio/webm",
}  # fmt: skip
_SILENT_KINDS = ("unusable",)
_STYLE = """
audio { height: 2rem; width: 15rem; display: block; }
.player { display: inline-block; margin: 0 1rem .5rem 0; vertical-align: top; }
code { font-size: .87rem; overflow-wrap: anywhere; }
"""


class _Players:
    """Gives players until the audio inside the page is as much as it may be.

    Args:
        folder: of the page; what is not inside it is reached from there.
        num_bytes: of audio that the page may hold.
    """

    def __init__(self, folder: Path, num_bytes: int) -> None:
        self._folder = folder
        self._left = num_bytes

    def player(self, label: str, path: str) -> str:
        """An element that plays a file, with what it is."""
        source = self._source(path)
        audio = (
            f'<audio controls preload="none" src="{source}"></audio>' if source
            else '<span class="note">a browser cannot play this from here</span>'
        )  # fmt: skip
        return f'<span class="player">{escape(label)}{audio}</span>'

    def _source(self, path: str) -> str:
        """An address without anything that ends an attribute."""
        media_type = _MEDIA_TYPES.get(os.path.splitext(path)[1].lower())
        if media_type is None:
            return ""
        return self._inside(path, media_type) or self._beside(path)

    def _inside(self, path: str, media_type: str) -> str:
        """A data URI, as long as there is room; a file that is shown twice takes it twice."""
        member = find_member(path)
        try:
            if member is None and os.path.getsize(path) * 4 / 3 > self._left:
                return ""
            content = Path(path).read_bytes() if member is None else open_member(member).read()
        except (
            OSError,
            AudioError,
        ):  # it was there when it was measured
            return ""
        source = data_uri(content, media_type)
        if len(source) > self._left:
            return ""
        self._left -= len(source)
        return source

    def _beside(self, path: str) -> str:
        if find_member(path) is not None:
            return ""
        return quote(os.fsencode(os.path.relpath(path, self._folder)))


def write_html(
    diagnosis: Diagnosis, path: Path, embedded_megabytes: float = DEFAULT_EMBEDDED_MEGABYTES
) -> Path:
    """Writes a page that shows each finding, with players for the files and what to compare to.

    Args:
        diagnosis: what was found.
        path: of the page.
        embedded_megabytes: of audio inside the page, the first findings first; the rest is played
            from where it lies, relative to the page.
    """
    players = _Players(path.parent.resolve(), int(embedded_megabytes * 1e6))
    summary = diagnosis.data.summary()
    heard = f"voices by {diagnosis.model_name}" if diagnosis.model_name else "voices not compared"
    parts = [
        f"<p>{escape(diagnosis.data.root)}: {summary.num_utterances} recordings of "
        f"{summary.num_speakers} speakers, {summary.hours:.2f} hours; {escape(heard)}</p>",
        *(f'<p class="note">{escape(note)}</p>' for note in diagnosis.notes),
        _overview(diagnosis),
    ]
    for kind, what in KINDS.items():
        found = diagnosis.of_kind(kind)
        if found:
            parts.append(f'<h2 id="{kind}">{escape(what.title)} ({len(found)})</h2>')
            parts.append(f'<p class="note">{escape(what.advice)}</p>')
            parts.append(_table(diagnosis, found, players))
    body = "\n".join(parts)
    page = make_page("Data doctor", body, style=_STYLE, media=("'self'", "file:"))
    return write_page(path, page)


def _overview(diagnosis: Diagnosis) -> str:
    rows = []
    for kind, what in KINDS.items():
        count = len(diagnosis.of_kind(kind))
        title = f'<a href="#{kind}">{escape(what.title)}</a>' if count else escape(what.title)
        rows.append(f'<tr><td>{title}</td><td class="number">{count}</td></tr>')
    return f"<table>{''.join(rows)}</table>"


def _table(diagnosis: Diagnosis, found: list[Finding], players: _Players) -> str:
    rows = []
    for finding in found[:MAX_ROWS]:
        paths = [path_below(path, diagnosis.data.root) for path in finding.paths]
        files = "<br>".join(f"<code>{escape(path)}</code>" for path in paths)
        heard = "" if finding.kind in _SILENT_KINDS else "".join(
            players.player(label, path) for label, path in finding.examples
        )  # fmt: skip
        speakers = ", ".join(dict.fromkeys(finding.speakers))
        rows.append(
            f"<tr><td>{files}</td><td>{escape(speakers)}</td><td>{escape(finding.detail)}"
            f"<br>{heard}</td></tr>"
        )
    more = len(found) - MAX_ROWS
    note = f'<p class="note">and {more} more in the JSON</p>' if more > 0 else ""
    head = "<tr><th>file</th><th>speaker</th><th>what was found</th></tr>"
    return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>{note}'
