"""Parts of files that lie on this machine or elsewhere: http(s), hf, and what fsspec knows."""

from __future__ import annotations

import http.client
import io
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from speaker_encoder.audio.formats import AudioError

_URL = re.compile(r"^[a-z][a-z0-9+.-]+://")
_PAUSES = (0.1, 0.5, 2.0, 5.0)  # seconds before each further try
_TIMEOUT_SECONDS = 60.0
_REFUSED = (401, 403)  # no further try mends these
_GONE = (404, 410)
_SAFE = "!#$%&'()*+,/:;=?@[]~"  # in a URL, which may be quoted already
UNREACHABLE = ("cannot be fetched", "no access")
"""Reasons of an `AudioError` that is not the file's fault: the connection, the server, rights."""
_SEEN: dict[str, FileState] = {}  # of each URL, what its server said last


@dataclass(frozen=True)
class FileState:
    """How large a file is, and what else changes when it is written anew.

    Attributes:
        size: in bytes.
        stamp: time of the last change in nanoseconds, or the tag that a server gives it.
    """

    size: int
    stamp: str


def is_remote(path: str) -> bool:
    """Whether this is a URL and no path of this machine."""
    return _URL.match(path) is not None


def state_of(path: str) -> FileState:
    """The size and the time or tag of a file.

    Args:
        path: of this machine, or a URL.

    Raises:
        AudioError: it is not there or cannot be reached.
    """
    if not is_remote(path):
        try:
            status = os.stat(path)
        except OSError as error:
            raise AudioError(path, "no such file", str(error.strerror)) from error
        return FileState(status.st_size, str(status.st_mtime_ns))
    _SEEN[path] = try_often(path, lambda: _remote_state(path))
    return _SEEN[path]


def last_state_of(path: str) -> FileState | None:
    """What `state_of` gives, but of a URL what it gave last in this process: no request is made.

    Args:
        path: of this machine, or a URL.

    Raises:
        AudioError: a file of this machine is not there.
    """
    return _SEEN.get(path) if is_remote(path) else state_of(path)


def read_span(path: str, start: int, num_bytes: int) -> bytes:
    """Bytes ``[start, start + num_bytes)`` of a file.

    Args:
        path: of this machine, or a URL; dropped connections are tried again.
        start: first byte.
        num_bytes: how many.

    Raises:
        AudioError: it is not there, cannot be reached, or ends before.
    """
    if num_bytes <= 0:
        return b""
    if is_remote(path):
        content = try_often(path, lambda: _remote_span(path, start, num_bytes))
    else:
        try:
            with open(path, "rb") as file:
                file.seek(start)
                content = file.read(num_bytes)
        except OSError as error:
            raise AudioError(path, "cannot be read", str(error.strerror)) from error
    if len(content) > num_bytes:
        raise AudioError(path, "damaged answer", f"more than the {num_bytes} bytes asked for")
    if len(content) < num_bytes:
        raise AudioError(path, "truncated", f"it ends before byte {start + num_bytes}")
    return content


class Span(io.RawIOBase):
    """A part of a file, as a file that can be read from any byte on.

    Args:
        path: of this machine, or a URL.
        start: first byte.
        size: number of bytes.
        name: of what lies there; FFmpeg guesses formats by it.
    """

    def __init__(self, path: str, start: int, size: int, name: str) -> None:
        self._path = path
        self._start = start
        self._size = size
        self._position = 0
        self.name = name

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be read from any byte on."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Chooses the next byte that is read."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}
        self._position = max(0, start[whence] + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Reads as much as the buffer holds."""
        num_bytes = max(0, min(len(buffer), self._size - self._position))
        content = read_span(self._path, self._start + self._position, num_bytes)
        buffer[:num_bytes] = content
        self._position += num_bytes
        return num_bytes


def try_often(path: str, action: Callable[[], Any]) -> Any:
    """What an action gives that needs a connection; tried again while that fails.

    Args:
        path: the URL.
        action: is called until it does not fail.

    Raises:
        AudioError: it is not there, or cannot be reached.
    """
    errors = _connection_errors(path)
    for pause in (*_PAUSES, None):
        try:
            return action()
        except errors as error:
            code = getattr(error, "code", getattr(error, "status", None))
            code = getattr(getattr(error, "response", None), "status_code", code)
            is_gone = isinstance(error, FileNotFoundError) or code in _GONE
            is_refused = isinstance(error, PermissionError) or code in _REFUSED
            if is_gone or is_refused or pause is None:
                reason = "not found" if is_gone else UNREACHABLE[int(is_refused)]
                raise AudioError(path, reason, f"{type(error).__name__}: {error}") from error
            time.sleep(pause)
    raise AssertionError("the last try raises")


def _connection_errors(path: str) -> tuple[type[BaseException], ...]:
    """What a network raises."""
    errors = (OSError, EOFError, http.client.HTTPException)
    if not path.startswith("hf://"):
        return errors
    from huggingface_hub.errors import HfHubHTTPError

    return (*errors, *HfHubHTTPError.__bases__)  # what its HTTP library raises


def _remote_state(path: str) -> FileState:
    if path.startswith(("http://", "https://")):
        with _request(path, "HEAD") as answer:
            size = answer.headers.get("Content-Length")
            stamp = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        if size is None:
            raise AudioError(path, "its server does not say how large it is", "copy it nearer")
        return FileState(int(size), stamp)
    system, name = file_system(path)
    info = system.info(name)
    known = ("ETag", "etag", "blob_id", "LastModified", "mtime")
    stamp = next((str(info[key]) for key in known if info.get(key)), "")
    return FileState(int(info["size"]), stamp)


def _remote_span(path: str, start: int, num_bytes: int) -> bytes:
    stop = start + num_bytes
    if not path.startswith(("http://", "https://")):
        system, name = file_system(path)
        exactly = {"cache_type": "none"} if path.startswith("hf://") else {}
        return system.cat_file(name, start=start, end=stop, **exactly)
    with _request(path, "GET", {"Range": f"bytes={start}-{stop - 1}"}) as answer:
        if answer.status != 206:
            raise AudioError(
                path, "its server gives whole files only", "use one that knows ranges, or copy it"
            )
        promised = num_bytes if answer.length is None else min(answer.length, num_bytes)
        content = answer.read(num_bytes + 1)
        if len(content) < promised:
            raise http.client.IncompleteRead(content, promised - len(content))
        return content


def _request(path: str, method: str, headers: dict[str, str] | None = None) -> Any:
    quoted = urllib.parse.quote(path, safe=_SAFE, errors="surrogateescape")
    request = urllib.request.Request(quoted, method=method, headers=headers or {})
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # a range behind the end
            raise
        raise AudioError(path, "truncated", "it ends before the range that is asked for") from error


def file_system(path: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the name of the file in it.

    Raises:
        AudioError: no library for it is installed.
    """
    import fsspec

    try:
        return fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise AudioError(path, "no way to read such addresses", str(error)) from error
