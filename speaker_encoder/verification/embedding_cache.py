"""Embeddings of audio files, kept on disk until the file, the model or the options change."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speaker_encoder import __version__
from speaker_encoder.corpora import Utterance
from speaker_encoder.corpora.cache import default_cache_dir
from speaker_encoder.errors import UserError
from speaker_encoder.export.source import Item
from speaker_encoder.export.store import PartWriter, Store, clear_store

_logger = logging.getLogger(__name__)


class EmbeddingCache:
    """The rows of one model with one set of options, found by path, size and time of a file.

    It lies in ``SPEAKER_ENCODER_CACHE`` or the user's cache folder, below ``embeddings``. What is
    written may be cut off at any byte; a row that is damaged is computed again.

    Args:
        weights_sha256: of the model.
        options: what else a row depends on; plain JSON data.
        width: values of a row.
    """

    def __init__(self, weights_sha256: str, options: dict[str, Any], width: int) -> None:
        content = json.dumps([__version__, weights_sha256, options, width], sort_keys=True)
        self._identity = hashlib.sha256(content.encode()).hexdigest()[:32]
        self.folder = default_cache_dir() / "embeddings" / self._identity
        self._store = self._load(width)
        self._writer: PartWriter | None = None
        self._is_writable = True

    def _load(self, width: int) -> Store:
        store = Store(self.folder, self._identity, width)
        try:
            return store.load()
        except (KeyError, TypeError, ValueError, OSError) as error:
            _logger.warning("The cached embeddings in %s are damaged: %r", self.folder, error)
            try:
                clear_store(self.folder)
            except (OSError, UserError):
                self._is_writable = False
            return Store(self.folder, self._identity, width)

    def get(self, paths: Sequence[str]) -> dict[int, NDArray[np.float32]]:
        """The rows that are there: index into ``paths`` -> (width,)."""
        rows = {}
        for index, path in enumerate(paths):
            item = _item(path)
            if item is not None and self._store.has(item):
                rows[index] = self._store.vector(item)
        return rows

    def add(self, rows: Iterable[tuple[str, NDArray[np.float32]]]) -> None:
        """Keeps the rows of files; that they cannot be written is no error."""
        if not self._is_writable:
            return
        items = [(item, row) for path, row in rows if (item := _item(path)) is not None]
        try:
            if self._writer is None:
                self._writer = PartWriter(self.folder, self._identity, "")
            self._writer.add(items)
        except OSError as error:
            self._is_writable = False
            _logger.warning("Embeddings cannot be cached in %s: %s", self.folder, error)

    def close(self) -> None:
        """Hands all to the disk."""
        if self._writer is None:
            return
        try:
            self._writer.close()
            fresh = Store(self.folder, self._identity, self._store.embedding_dim)
            fresh.load().compact()
        except OSError as error:
            _logger.warning("Embeddings cannot be cached in %s: %s", self.folder, error)
        self._writer = None


def _item(path: str | Path) -> Item | None:
    """A file as the store knows it."""
    real = os.path.realpath(path)
    try:
        status = os.stat(real)
    except OSError:
        return None
    name = real.encode("utf-8", "surrogateescape").decode("latin-1")
    utterance = Utterance(name, "", None, real, 0, 1)
    return Item(utterance, real, status.st_size, status.st_mtime_ns)
