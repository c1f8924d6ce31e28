"""The embeddings computed so far, in a folder of its own that survives being killed.

Each process appends to a part of its own: ``<part>.vectors`` holds float32 rows, ``<part>.jsonl``
one line for each of them, written after the row. A torn last line, or a row without a line, is as
if it had not been. Every output file, of whatever format, is written from here.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import uuid
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.errors import UserError
from speaker_encoder.export.source import FailedFile, Item

_SYNC_BYTES = 16_000_000


AudioKey = tuple[str, int, int]
"""Utterance id, and size and time of its audio: an embedding of other audio is none of it."""


class PartWriter:
    """One process's part of the store; holds a lock on it while it lives."""

    def __init__(self, folder: Path, identity: str, run_id: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        stem = folder / f"part-{uuid.uuid4().hex[:12]}"
        self._vectors: IO[bytes] = open(f"{stem}.vectors", "wb")  # noqa: SIM115
        self._lines: IO[bytes] = open(f"{stem}.opening", "ab")  # noqa: SIM115
        fcntl.lockf(self._lines, fcntl.LOCK_EX)
        # A part has this name only once it is held: it is never taken for one left behind.
        os.replace(f"{stem}.opening", f"{stem}.jsonl")
        self._run_id = run_id
        self._num_rows = 0
        self._unsynced = 0
        self._write([{"identity": identity}])

    def add(self, rows: Iterable[tuple[Item, NDArray[np.float32]]]) -> None:
        """Appends embeddings, each (D,) float32; when it returns, a kill no longer loses them."""
        lines, vectors = [], []
        for item, vector in rows:
            content = np.ascontiguousarray(vector, dtype="<f4").tobytes()
            lines.append(
                {
                    "id": item.utterance.utterance_id,
                    "row": self._num_rows,
                    "size": item.size,
                    "time": item.time,
                    "crc": zlib.crc32(content),
                }
            )
            vectors.append(content)
            self._num_rows += 1
        if not vectors:
            return
        content = b"".join(vectors)
        self._vectors.write(content)
        self._vectors.flush()
        self._unsynced += len(content)
        if self._unsynced > _SYNC_BYTES:
            os.fsync(self._vectors.fileno())
            self._unsynced = 0
        self._write(lines)

    def add_failure(self, failure: FailedFile) -> None:
        """Notes a file that has no embedding, for the report of this run."""
        self._write(
            [
                {
                    "failed": failure.path,
                    "reason": failure.reason,
                    "speaker": failure.speaker_id,
                    "utterance": failure.utterance_id,
                    "run": self._run_id,
                }
            ]
        )

    def add_figures(self, figures: dict[str, float]) -> None:
        """Notes what this process measured, for the report of this run."""
        self._write([{"figures": figures, "run": self._run_id}])

    def _write(self, lines: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        self._lines.write(text.encode("ascii"))
        self._lines.flush()

    def close(self) -> None:
        """Hands all to the disk and gives the part free."""
        for file in (self._vectors, self._lines):
            os.fsync(file.fileno())
            file.close()


@dataclass
class Store:
    """What all parts of a folder hold for one identity of model and options.

    Attributes:
        folder: of the parts.
        identity: of the embeddings wanted; parts of another one are passed over.
        embedding_dim: D.
        rows: of which audio -> the part's number and the row in it.
        failures: of this run.
        figures: of this run, one dict for each process.
    """

    folder: Path
    identity: str
    embedding_dim: int
    run_id: str = ""
    rows: dict[AudioKey, tuple[int, int]] = field(default_factory=dict)
    failures: list[FailedFile] = field(default_factory=list)
    figures: list[dict[str, float]] = field(default_factory=list)
    _parts: list[NDArray[np.float32]] = field(default_factory=list)
    _seen: set[Path] = field(default_factory=set)

    def load(self) -> Store:
        """Reads the lines of all parts; the embeddings stay on the disk."""
        for path in sorted(self.folder.glob("part-*.jsonl")):
            self._load_part(path)
        return self

    def _load_part(self, path: Path) -> None:
        vectors_path = path.with_suffix(".vectors")
        try:
            content = path.read_bytes()
            num_rows = vectors_path.stat().st_size // (4 * self.embedding_dim)
        except OSError:
            return
        self._seen.add(path.with_suffix(""))
        lines = content.split(b"\n")[:-1]
        if not lines or _parse(lines[0]).get("identity") != self.identity:
            return
        matrix = np.zeros((0, self.embedding_dim), dtype="<f4")
        if num_rows:
            shape = (num_rows, self.embedding_dim)
            matrix = np.memmap(vectors_path, dtype="<f4", mode="r", shape=shape)
        part = len(self._parts)
        self._parts.append(matrix)
        for line in lines[1:]:
            record = _parse(line)
            if "id" in record:
                row = record["row"]
                if row < num_rows and zlib.crc32(matrix[row].tobytes()) == record["crc"]:
                    self.rows[record["id"], record["size"], record["time"]] = (part, row)
            elif record.get("run") == self.run_id and "failed" in record:
                self.failures.append(
                    FailedFile(
                        record["failed"], record["reason"], record["speaker"], record["utterance"]
                    )
                )
            elif record.get("run") == self.run_id and "figures" in record:
                self.figures.append(record["figures"])

    def has(self, item: Item) -> bool:
        """Is there an embedding of this very audio."""
        return _key(item) in self.rows

    def vector(self, item: Item) -> NDArray[np.float32]:
        """The (D,) float32 embedding of an utterance as its audio is now."""
        return self._vector(_key(item))

    def _vector(self, key: AudioKey) -> NDArray[np.float32]:
        part, row = self.rows[key]
        return np.array(self._parts[part][row], dtype=np.float32)

    def compact(self) -> None:
        """Makes one part of those that no living process holds, and removes old ones."""
        old = [
            path.with_suffix("")
            for path in sorted(self.folder.glob("part-*.jsonl"))
            if path.with_suffix("") in self._seen and _is_free(path)
        ]
        if len(old) < 2:
            return
        stem = self.folder / f"part-{uuid.uuid4().hex[:12]}"
        with open(f"{stem}.vectors", "wb") as vectors, open(f"{stem}.tmp", "wb") as lines:
            lines.write(json.dumps({"identity": self.identity}).encode() + b"\n")
            for number, key in enumerate(sorted(self.rows)):
                content = self._vector(key).astype("<f4").tobytes()
                vectors.write(content)
                line = {
                    "id": key[0],
                    "row": number,
                    "size": key[1],
                    "time": key[2],
                    "crc": zlib.crc32(content),
                }
                lines.write(json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n")
            for file in (vectors, lines):
                file.flush()
                os.fsync(file.fileno())
        os.replace(f"{stem}.tmp", f"{stem}.jsonl")
        for path in old:
            for suffix in (".jsonl", ".vectors"):
                with contextlib.suppress(FileNotFoundError):
                    path.with_suffix(suffix).unlink()


def _key(item: Item) -> AudioKey:
    return item.utterance.utterance_id, item.size, item.time


def _parse(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _is_free(path: Path) -> bool:
    """Does no process hold this part."""
    try:
        with open(path, "ab") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def stored_ids(folder: Path) -> set[str]:
    """The utterances that a store has an embedding of, whatever it was made with."""
    found: set[str] = set()
    for path in sorted(folder.glob("part-*.jsonl")):
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as lines:
            found.update(record["id"] for record in map(_parse, lines) if "id" in record)
    return found


def refuse_held(folder: Path) -> None:
    """Checks that no living process adds to a store.

    Raises:
        UserError: one does.
    """
    if not all(_is_free(path) for path in sorted(folder.glob("part-*.jsonl"))):
        raise UserError(
            f"Another export is writing to {folder.parent.parent} with another model or other "
            "options. Wait for it, or give another --output_dir."
        )


def clear_store(folder: Path) -> None:
    """Forgets all embeddings, before others take their place.

    Raises:
        UserError: another export is adding to them.
    """
    refuse_held(folder)
    for path in sorted(folder.glob("part-*.jsonl")):
        path.unlink(missing_ok=True)
        path.with_suffix(".vectors").unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds an output folder while its manifest is read and written."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a", encoding="utf-8") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield
