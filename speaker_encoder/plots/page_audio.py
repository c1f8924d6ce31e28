"""Audio in pages: inside the page while it is small, else by its path relative to the page."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from speaker_encoder.errors import UserError
from speaker_encoder.plots.page import data_uri

MEDIA_TYPES = {
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".m4a": "audio/mp4",
    ".m4b": "audio/mp4",
    ".mp4": "audio/mp4",
    ".aac": "audio/aac",
    ".webm": "audio/webm",
}
"""What browsers play as it is; the rest is embedded as FLAC."""
CONVERTED_RATE = 16_000
MEGABYTE = 1_000_000
DEFAULT_MAX_MEGABYTES = 20.0


class PageAudio(NamedTuple):
    """Where a page finds its audio.

    Attributes:
        sources: N addresses for `src`; None where there is no audio.
        is_embedded: the audio lies inside the page.
        num_bytes: of all files.
    """

    sources: list[str | None]
    is_embedded: bool
    num_bytes: int

    def describe(self) -> str:
        """What to tell the user of it."""
        num_files = sum(source is not None for source in self.sources)
        if not num_files:
            return "no audio"
        size = f"{num_files} files, {self.num_bytes / MEGABYTE:.1f} MB"
        if self.is_embedded:
            return f"audio inside the page ({size})"
        return f"audio by its path relative to the page ({size}): they must be moved together"


def page_audio(
    paths: Sequence[str | None],
    page_path: str | os.PathLike[str],
    *,
    max_megabytes: float = DEFAULT_MAX_MEGABYTES,
) -> PageAudio:
    """Finds out how a page gets its audio: all of it embedded, or none.

    Args:
        paths: N audio files, None where there is none.
        page_path: where the page will lie.
        max_megabytes: up to this sum of the files' sizes they are embedded.

    Returns:
        The addresses.

    Raises:
        UserError: a limit below 0, or a file that cannot be read.
    """
    if not max_megabytes >= 0:
        raise UserError(f"--max_audio_megabytes must be 0 or more, found {max_megabytes:g}.")
    there = [path if path is not None and os.path.isfile(path) else None for path in paths]
    num_bytes = sum(os.path.getsize(path) for path in there if path is not None)
    is_embedded = num_bytes <= max_megabytes * MEGABYTE
    folder = Path(page_path).absolute().parent
    sources = [
        None if path is None else embed_audio(path) if is_embedded else relative_url(path, folder)
        for path in there
    ]
    return PageAudio(sources, is_embedded, num_bytes)


def embed_audio(path: str | os.PathLike[str]) -> str:
    """An audio file as an address that holds it.

    Args:
        path: what browsers play is taken byte for byte, anything else becomes 16 kHz mono FLAC.

    Returns:
        A data URI.

    Raises:
        UserError: it cannot be read.
    """
    media_type = MEDIA_TYPES.get(Path(path).suffix.lower())
    if media_type is None:
        return data_uri(_as_flac(path), MEDIA_TYPES[".flac"])
    try:
        return data_uri(Path(path).read_bytes(), media_type)
    except OSError as error:
        raise UserError(f"Cannot read the audio {path} ({error.strerror}).") from error


def relative_url(path: str | os.PathLike[str], folder: Path) -> str:
    """The address of a file as seen from a page.

    Args:
        path: of the file.
        folder: of the page.

    Returns:
        A relative reference whose every odd character is percent-encoded, so that no part of it
        can be taken for a scheme, a query or a fragment.
    """
    absolute = os.path.abspath(path)
    try:
        relative = os.path.relpath(absolute, os.path.abspath(folder))
    except ValueError:  # another drive
        return Path(absolute).as_uri()
    return "./" + quote(os.fsencode(relative.replace(os.sep, "/")))


def _as_flac(path: str | os.PathLike[str]) -> bytes:
    import soundfile

    from speaker_encoder.audio import read_audio

    content = io.BytesIO()
    waveform = read_audio(path, CONVERTED_RATE).clip(-1.0, 1.0)
    soundfile.write(content, waveform, CONVERTED_RATE, format="FLAC", subtype="PCM_16")
    return content.getvalue()
