"""Files that are there whole or not at all, and the record of the recordings that were made."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from speaker_encoder.corpora.kaldi import write_lines

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
STATE_FOLDER = ".prepare"

Stamp = list[float | int | None]
"""Size and time of the source, start and length in seconds, sampling rate: what a file is of."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a hidden path to write to, which becomes `path` when the block ends well.

    A killed process leaves it behind; the next one that writes `path` writes over it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]
    part = path.with_name(f".{digest}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


class MadeFiles:
    """The recordings that `prepare` made below a folder, and what each was made of.

    A line is added before each file appears, so that after a kill no file is there without its
    line. The last line of a file holds; a torn one is of a file that never appeared.
    """

    def __init__(self, root: Path, name: str) -> None:
        """Reads the record.

        Args:
            root: the folder of the corpus.
            name: of the step that makes the files.
        """
        self.root = root
        self.path = root / STATE_FOLDER / f"{name}.jsonl"
        self._entries: dict[str, tuple[str, Stamp]] = {}
        self._lock = threading.Lock()
        self._num_lines = 0
        text = self.path.read_bytes().decode("ascii", "replace") if self.path.is_file() else ""
        for line in text.splitlines():
            self._num_lines += 1
            try:
                target, source, *stamp = json.loads(line)
            except (ValueError, TypeError):
                continue
            self._entries[target] = source, stamp

    def stamp_of(self, target: Path) -> tuple[Path, Stamp] | None:
        """Gives the source of a file and its stamp; None: it was not made here."""
        entry = self._entries.get(self._name(target))
        return None if entry is None else (self._source(entry[0]), entry[1])

    def add(self, target: Path, source: Path, stamp: Stamp) -> None:
        """Records a file that is about to appear.

        Raises:
            OSError: the disk is full.
        """
        name, origin = self._name(target), self._name(source)
        line = f"\n{json.dumps([name, origin, *stamp])}".encode("ascii")
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            self._entries[name] = origin, stamp
            self._num_lines += 1

    def without_source(self) -> Iterator[tuple[Path, Stamp]]:
        """Gives the files whose source is gone."""
        for name, (source, stamp) in self._entries.items():
            target = self.root / name
            if target.is_file() and not self._source(source).exists():
                yield target, stamp

    def remove_others(self, wanted: set[Path], *, of_gone_sources: bool) -> None:
        """Removes the files that are no longer wanted, and the folders that are empty then.

        Args:
            wanted: the files that stay.
            of_gone_sources: whether files that could not be made again are removed too.
        """
        for name, (source, _) in list(self._entries.items()):
            target = self.root / name
            if target in wanted or not (of_gone_sources or self._source(source).exists()):
                continue
            target.unlink(missing_ok=True)
            del self._entries[name]
            for folder in target.parents:
                if folder == self.root:
                    break
                try:
                    folder.rmdir()
                except OSError:  # not empty, or not there any more
                    break

    def compact(self) -> None:
        """Writes the record anew where it holds more than what it is about."""
        if self._num_lines > 2 * len(self._entries):
            entries = self._entries.items()
            write_lines(self.path, (json.dumps([n, s, *stamp]) for n, (s, stamp) in entries))

    def _name(self, path: Path) -> str:
        """Gives the path from the root; the first way is for millions of files."""
        start, text = f"{self.root}{os.sep}", str(path)
        if text.startswith(start) and os.pardir not in text:
            return text[len(start) :]
        return os.path.relpath(path, self.root)

    def _source(self, name: str) -> Path:
        return Path(os.path.abspath(self.root / name))
