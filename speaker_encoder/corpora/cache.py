"""Remembers the headers of a corpus until its files change."""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from speaker_encoder.audio import AudioInfo

# To be raised whenever what is read from a header, or how it is checked, changes.
_VERSION = 1
# A file changed this shortly ago can change again without a new time stamp.
_SETTLED_NS = 2_000_000_000
# Of a record: size, time, then the numbers of an info, or why there is none and the detail.
_RECORD_TYPES = {(int, int, int, int, int), (int, int, str, str)}

_logger = logging.getLogger(__name__)


class Header(NamedTuple):
    """What became of reading a header: the info, or why there is none."""

    info: AudioInfo | None
    reason: str = ""
    detail: str = ""


def default_cache_dir() -> Path:
    """``SPEAKER_ENCODER_CACHE``, or ``speaker_encoder`` in the user's cache folder."""
    if folder := os.environ.get("SPEAKER_ENCODER_CACHE"):
        return Path(folder).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "speaker_encoder"


class HeaderCache:
    """The headers of one corpus on disk, found by path, size and time of the last change."""

    def __init__(self, root: str, cache_dir: str | os.PathLike[str] | None = None) -> None:
        folder = Path(cache_dir) if cache_dir is not None else default_cache_dir()
        digest = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:32]
        self.path = folder / "headers" / f"{digest}.json"
        self._records: dict[str, list] = _load(self.path)
        self._kept: dict[str, list] = {}
        self._num_added = 0

    def get(self, path: str, size: int, mtime_ns: int) -> Header | None:
        """The header that was stored, or None when the file is new or changed."""
        record = self._records.get(path)
        if record is None or record[0] != size or record[1] != mtime_ns:
            return None
        self._kept[path] = record
        if len(record) == 5:
            return Header(AudioInfo(record[2], record[3], record[4]))
        return Header(None, record[2], record[3])

    def put(self, path: str, size: int, mtime_ns: int, header: Header) -> None:
        """Stores a header, but of a file that may still be written."""
        if not is_settled(mtime_ns):
            return
        if header.info is None:
            self._kept[path] = [size, mtime_ns, header.reason, header.detail]
        else:
            info = header.info
            self._kept[path] = [
                size, mtime_ns, info.num_samples, info.sampling_rate, info.num_channels,
            ]  # fmt: skip
        self._num_added += 1

    def save(self) -> None:
        """Writes the cache, whole or not at all; that it cannot be written is no error."""
        if not self._num_added and len(self._kept) == len(self._records):
            return
        text = json.dumps({"version": _VERSION, "files": self._kept}, separators=(",", ":"))
        write_cache(self.path, text)


def is_settled(mtime_ns: int) -> bool:
    """Whether a file that is changed again would surely get another time stamp."""
    return mtime_ns <= time.time_ns() - _SETTLED_NS


def write_cache(path: Path, text: str) -> None:
    """Writes a file of the cache, whole or not at all; that it cannot be written is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(text)
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        _logger.warning("The scan could not be cached in %s: %s", path.parent, error)


def _load(path: Path) -> dict[str, list]:
    """The records of a cache file; none when it is absent, damaged or of another version."""
    try:
        content = json.loads(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        return {}
    files = content.get("files")
    if not isinstance(files, dict) or not all(map(_is_record, files.values())):
        return {}
    return files


def _is_record(record: object) -> bool:
    return type(record) is list and tuple(map(type, record)) in _RECORD_TYPES
