"""Files that appear whole or not at all, and a disk that is full."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from speaker_encoder.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def process_tag() -> str:
    """Names this process among all that may write to a shared file system."""
    return f"{socket.gethostname()}-{os.getpid()}"


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees none, the old one or the new one, never a part."""
    part = path.with_name(f".{process_tag()}.part")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def write_if_other(path: Path, content: bytes) -> None:
    """Writes a file as ``write_bytes_atomically`` does, unless this very content is there."""
    if not path.is_file() or path.read_bytes() != content:
        write_bytes_atomically(path, content)


@contextlib.contextmanager
def staged_files(folder: Path) -> Iterator[Path]:
    """An empty folder whose files move into ``folder`` one by one when the block ends well."""
    folder.mkdir(parents=True, exist_ok=True)
    staging = folder / f".{process_tag()}.part"
    staging.mkdir(exist_ok=True)
    try:
        yield staging
        for path in sorted(staging.iterdir()):
            os.replace(path, folder / path.name)
    finally:
        for path in staging.iterdir():
            path.unlink(missing_ok=True)
        staging.rmdir()


def clear_parts(folder: Path) -> None:
    """Removes what a killed process of this machine left half written in a folder."""
    host = socket.gethostname()
    for part in folder.glob(f".{host}-*.part"):
        number = part.name.removesuffix(".part").rsplit("-", 1)[-1]
        if number.isdecimal() and not os.path.exists(f"/proc/{number}") and os.path.isdir("/proc"):
            if part.is_dir():
                for path in part.iterdir():
                    path.unlink(missing_ok=True)
                part.rmdir()
            else:
                part.unlink(missing_ok=True)


@contextlib.contextmanager
def explained_full_disk() -> Iterator[None]:
    """Says what to do when the disk is full.

    Raises:
        UserError: the disk, or the user's quota, is full.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno not in _FULL:
            raise
        if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
            raise
        raise UserError(
            f"The disk is full: {error}. What is written so far is whole. Free some space and run "
            "the same command again: it goes on from there. Or choose another --output_dir."
        ) from error


def check_writable(folder: Path, what: str) -> None:
    """Checks that files can be made in a folder, which is made if need be.

    Raises:
        UserError: they cannot.
    """
    probe = folder / f".{process_tag()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        if error.errno in _FULL:
            raise
        raise UserError(
            f"Cannot write to {what} {folder} ({error.strerror}). Give an --output_dir that you "
            "can write to: the files go there in the corpus's own tree."
        ) from error
