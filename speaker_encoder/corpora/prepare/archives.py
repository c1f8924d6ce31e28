"""Archives: whole, in parts, checked, and unpacked so that a killed run can be gone on with."""

from __future__ import annotations

import bisect
import hashlib
import io
import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from speaker_encoder.corpora.prepare.published import KnownArchive
from speaker_encoder.errors import UserError

_PART = re.compile(r"(?P<whole>.+)_part(?P<number>[a-z]{2})$")
_PIECE = 1 << 20
_TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz")

Progress = Callable[[str, int, int], None]
"""(what, bytes done, bytes in all)."""


@dataclass(frozen=True)
class Archive:
    """An archive of one file, or of several that follow each other (`..._partaa`, `..._partab`)."""

    name: str
    paths: tuple[Path, ...]

    @property
    def num_bytes(self) -> int:
        """Gives the size of all its files."""
        return sum(path.stat().st_size for path in self.paths)

    @property
    def fingerprint(self) -> list[list[object]]:
        """Gives what tells this archive from a changed one: names, sizes and times."""
        return [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in self.paths]


def group_parts(paths: Sequence[Path], known: dict[str, KnownArchive]) -> list[Archive]:
    """Puts the parts of split archives together.

    Args:
        paths: of the files.
        known: the archives with published sums; they say how many parts there are.

    Raises:
        UserError: a part is missing, or there twice.
    """
    whole: dict[str, list[Path]] = {}
    for path in sorted(paths, key=lambda path: path.name):
        match = _PART.match(path.name)
        whole.setdefault(f"{match['whole']}.zip" if match else path.name, []).append(path)
    for name, members in whole.items():
        names = [member.name for member in members]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise UserError(f"The archive {twice[0]} is there more than once. Keep one of them.")
        match = _PART.match(names[0])
        if match is None:
            continue
        wanted = sorted(n for n in known if n.startswith(f"{match['whole']}_part"))
        count = len(names)
        by_letters = [f"{match['whole']}_parta{chr(ord('a') + i)}" for i in range(min(count, 26))]
        missing = [n for n in wanted or by_letters if n not in names]
        if missing:
            raise UserError(
                f"Of the split archive {name} the parts {', '.join(names)} are there; missing: "
                f"{', '.join(missing)}. Download them into the same folder."
            )
    return [Archive(name, tuple(members)) for name, members in whole.items()]


def check_sums(archive: Archive, known: dict[str, KnownArchive], progress: Progress) -> bool:
    """Compares each file of an archive with its published sum.

    Returns:
        Whether there was a sum to compare with for all of them.

    Raises:
        UserError: a file is not what was published.
    """
    is_known = True
    for path in archive.paths:
        if path.name not in known:
            is_known = False
            continue
        wanted = known[path.name]
        digest = hashlib.new(wanted.algorithm)
        total, done = path.stat().st_size, 0
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
                done += len(piece)
                progress(f"checking {path.name}", done, total)
        if digest.hexdigest() != wanted.digest:
            raise UserError(
                f"{path} is damaged or another file of that name: its {wanted.algorithm} sum is "
                f"{digest.hexdigest()}, published is {wanted.digest}. Download it again, or use "
                "--no_check."
            )
    return is_known


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


@dataclass(frozen=True)
class _Member:
    """A file in an archive."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def unpack(
    archive: Archive, target: Path, leave_out: Sequence[str], progress: Progress
) -> list[Path]:
    """Writes the files of an archive below a folder; what is there whole already is left.

    Links, devices and anything else that is no file or folder is not unpacked.

    Args:
        archive: a zip or (compressed) tar archive.
        target: the folder.
        leave_out: first folders of the archive's paths that are dropped.
        progress: is told how far it is.

    Returns:
        The paths of its files.

    Raises:
        UserError: it is no such archive, is damaged, or a path leads out of the folder.
    """
    written: list[Path] = []
    total, done = archive.num_bytes, 0
    try:
        with _members(archive) as members:
            for member in members:
                path = _place(target, member.name, leave_out, archive.name)
                written.append(path)
                if not path.is_file() or path.stat().st_size != member.size:
                    _write(path, member)
                done += member.size
                progress(f"unpacking {archive.name}", min(done, total), total)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(
            f"{archive.paths[0]} cannot be unpacked: {error}. Download it again."
        ) from error
    return written


def _write(path: Path, member: _Member) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name[:200]}.part")
    try:
        with member.open() as source, part.open("wb") as file:
            shutil.copyfileobj(source, file, _PIECE)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _place(target: Path, name: str, leave_out: Sequence[str], archive: str) -> Path:
    """Gives where a member goes, inside the folder.

    Raises:
        UserError: its name leads out of it, or through a link.
    """
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part != "."]
    if not parts or ".." in parts or parts[0].startswith("/") or ":" in parts[0]:
        raise UserError(f"{archive} holds a file named {name!r}, which leads out of its folder.")
    while len(parts) > 1 and parts[0] in leave_out:
        parts = parts[1:]
    path = target.joinpath(*parts)
    if not path.parent.resolve().is_relative_to(target.resolve()) or path.is_symlink():
        raise UserError(f"{archive} holds {name!r}, and {path} is a link. Remove the link.")
    return path


@contextmanager
def _members(archive: Archive) -> Iterator[Iterator[_Member]]:
    raw: io.RawIOBase | None = None
    try:
        if archive.name.lower().endswith(_TAR_ENDINGS):
            with tarfile.open(archive.paths[0], mode="r|*") as tar:
                yield _tar_members(tar)
            return
        raw = _JoinedFile(archive.paths)
        with zipfile.ZipFile(io.BufferedReader(raw, _PIECE)) as file:
            yield _zip_members(file)
    finally:
        if raw is not None:
            raw.close()


def _tar_members(tar: tarfile.TarFile) -> Iterator[_Member]:
    for info in tar:
        if info.isfile():

            def opened(info: tarfile.TarInfo = info) -> IO[bytes]:
                file = tar.extractfile(info)
                assert file is not None
                return file

            yield _Member(info.name, info.size, opened)


def _zip_members(file: zipfile.ZipFile) -> Iterator[_Member]:
    for info in file.infolist():
        is_link = (info.external_attr >> 16) & 0o170000 == 0o120000
        if not info.is_dir() and not is_link:
            yield _Member(info.filename, info.file_size, lambda info=info: file.open(info))  # type: ignore[misc]
