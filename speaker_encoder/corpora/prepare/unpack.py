"""Unpacks archives: every file whole, nothing outside the folder, all damage found."""

from __future__ import annotations

import bisect
import bz2
import errno
import gzip
import io
import lzma
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from speaker_encoder.corpora.prepare.archives import Archive, Progress
from speaker_encoder.corpora.prepare.written import FULL_DISK, STATE_FOLDER, whole_file
from speaker_encoder.errors import UserError

_PIECE = 1 << 20
_TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz")
_COMPRESSIONS: tuple[tuple[bytes, Callable[[IO[bytes]], Any]], ...] = (
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file, mode="rb")),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ", lzma.LZMAFile),
)
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, ValueError, OverflowError),
)
_OTHER_PROGRAM = (
    "Unpack it with another program, then: speaker-encoder prepare folders --archives THAT_FOLDER"
)


@dataclass(frozen=True)
class _Member:
    """A file in an archive; `open` is None for a link, which is not unpacked."""

    name: str
    size: int
    open: Callable[[], IO[bytes]] | None


def unpack(
    archive: Archive,
    target: Path,
    leave_out: Sequence[str],
    *,
    goes_on: bool,
    progress: Progress,
) -> int:
    """Writes the files of an archive below a folder, and reads the archive to its end.

    Links, devices and anything else that is no file or folder is not unpacked.

    Args:
        archive: a zip or (compressed) tar archive.
        target: the folder.
        leave_out: first folders of the archive's paths that are dropped.
        goes_on: whether files of the right size are left, being those of this very archive.
        progress: is told how far it is.

    Returns:
        How many links there were.

    Raises:
        UserError: it is no such archive, is damaged or encrypted, or a path leads out of the
            folder or cannot be written.
    """
    num_links, done, total = 0, 0, archive.num_bytes
    try:
        with _members(archive) as members:
            for member in members:
                if member.open is None:
                    num_links += 1
                    continue
                _unpack_member(archive.name, member, target, leave_out, goes_on)
                done += member.size
                progress(f"unpacking {archive.name}", min(done, total), total)
    except UserError:
        raise
    except NotImplementedError as error:
        raise UserError(f"{archive.paths[0]} cannot be unpacked here: {error}. {_OTHER_PROGRAM}")\
            from error  # fmt: skip
    except OSError as error:
        if error.errno in FULL_DISK:
            raise
        raise UserError(
            f"{archive.paths[0]} cannot be unpacked: {error}. If it is damaged, delete it and "
            "download it again."
        ) from error
    except _DAMAGE as error:
        raise UserError(
            f"{archive.paths[0]} cannot be unpacked: {error}. It is damaged or no archive: delete "
            "it and download it again."
        ) from error
    return num_links


def _unpack_member(
    archive: str, member: _Member, target: Path, leave_out: Sequence[str], goes_on: bool
) -> None:
    """Writes a file.

    Raises:
        UserError: there can be no file of that name.
    """
    shown = member.name if len(member.name) < 100 else f"{member.name[:100]}..."
    try:
        path = _place(target, member.name, leave_out, archive)
        if goes_on and path.is_file() and path.stat().st_size == member.size:
            return
        assert member.open is not None
        with whole_file(path) as part, member.open() as source, part.open("wb") as file:
            shutil.copyfileobj(source, file, _PIECE)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(
            f"{archive} holds the file {shown!r}, and there is a folder of that name, or a file "
            f"where its folder should be. Remove what is in the way in {target}; if the archive "
            "itself holds both, unpack it with another program."
        ) from error
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise UserError(
            f"{archive} holds a file whose name is too long for this disk: {shown!r}."
        ) from error


def _place(target: Path, name: str, leave_out: Sequence[str], archive: str) -> Path:
    """Gives where a member goes, inside the folder.

    Raises:
        UserError: its name leads out of it, or through a link, or to what `prepare` keeps there.
    """
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part != "."]
    if not parts or ".." in parts or parts[0].startswith("/") or ":" in parts[0]:
        raise UserError(f"{archive} holds a file named {name!r}, which leads out of its folder.")
    while len(parts) > 1 and parts[0] in leave_out:
        parts = parts[1:]
    if parts[0] == STATE_FOLDER:
        raise UserError(f"{archive} holds {name!r}; {STATE_FOLDER} is kept for `prepare` itself.")
    path = target.joinpath(*parts)
    if not path.parent.resolve().is_relative_to(target.resolve()) or path.is_symlink():
        raise UserError(f"{archive} holds {name!r}, and {path} is a link. Remove the link.")
    return path


@contextmanager
def _members(archive: Archive) -> Iterator[Iterator[_Member]]:
    if archive.name.lower().endswith(_TAR_ENDINGS):
        with archive.paths[0].open("rb") as raw:
            start = raw.peek(8)
            kinds = [kind for magic, kind in _COMPRESSIONS if start.startswith(magic)]
            stream = kinds[0](raw) if kinds else raw
            # Not tarfile's own decompression: that stops at the end mark, before the sum.
            with tarfile.open(fileobj=stream, mode="r:", tarinfo=_StrictTarInfo) as tar:
                yield _tar_members(tar, stream)
        return
    with (
        _JoinedFile(archive.paths) as joined,
        zipfile.ZipFile(io.BufferedReader(joined, _PIECE)) as file,
    ):
        yield _zip_members(file, archive.name)


class _StrictTarInfo(tarfile.TarInfo):
    """A member whose header is right; `tarfile` takes a wrong one for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> _StrictTarInfo:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"at byte {tar.offset}: {error}") from error


def _tar_members(tar: tarfile.TarFile, stream: IO[bytes]) -> Iterator[_Member]:
    for info in tar:
        if info.isfile():

            def opened(info: tarfile.TarInfo = info) -> IO[bytes]:
                file = tar.extractfile(info)
                assert file is not None
                return file

            yield _Member(info.name, info.size, opened)
        elif not info.isdir():
            yield _Member(info.name, 0, None)
    while rest := stream.read(_PIECE):
        if rest.strip(b"\0"):
            raise tarfile.ReadError("there is more behind its end mark")


def _zip_members(file: zipfile.ZipFile, archive: str) -> Iterator[_Member]:
    for info in file.infolist():
        if info.flag_bits & 1:
            raise UserError(f"{archive} is encrypted. {_OTHER_PROGRAM}")
        if (info.external_attr >> 16) & 0o170000 == 0o120000:
            yield _Member(info.filename, 0, None)
        elif not info.is_dir():
            yield _Member(info.filename, info.file_size, lambda info=info: file.open(info))  # type: ignore[misc]


class _JoinedFile(io.RawIOBase):
    """Files that follow each other, read as one; nothing is copied."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [path.open("rb") for path in paths]
        ends = [0]
        for path in paths:
            ends.append(ends[-1] + path.stat().st_size)
        self._ends = ends
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._ends[-1]}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._position >= self._ends[-1]:
            return 0
        number = bisect.bisect_right(self._ends, self._position) - 1
        file = self._files[number]
        file.seek(self._position - self._ends[number])
        room = min(len(buffer), self._ends[number + 1] - self._position)
        piece = file.read(room)
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()
