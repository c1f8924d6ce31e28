"""Files of a run: written whole or not at all, read back, and the disk that is full."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

from speaker_encoder.errors import UserError


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file so that a reader sees the old one or the new one, never a part."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    # a file name that is no valid text is kept as the bytes that it is
    with open(part, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def sync_folder(folder: Path) -> None:
    """Asks the file system to keep every file below a folder, and the folder's own entries."""
    for path in [*sorted(folder.rglob("*")), folder]:
        sync(path)


def sync(path: Path) -> None:
    """Asks the file system to keep a file, or a folder's own entries."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def link_or_copy(source: Path, target: Path) -> None:
    """Makes a new file of the same content; the space is shared where the file system can."""
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def is_disk_full(error: BaseException | None) -> bool:
    """Was this error, or what caused it, a disk or quota without room."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        signs = ["No space left", "os error 28", "File too large"]
        if isinstance(error, RuntimeError):  # torch's zip writer has words of its own
            signs += ["PytorchStreamWriter failed", "unexpected pos"]
        if any(sign in str(error) for sign in signs):
            return True
        error = error.__cause__ or error.__context__
    return False


def read_json(path: Path) -> dict:
    """Reads a JSON object that this package wrote.

    Raises:
        UserError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except ValueError as error:
        raise UserError(
            f"{path} is damaged ({error}). Delete it, or its folder, and start again."
        ) from error
