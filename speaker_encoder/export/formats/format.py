"""What a format is: one file for each utterance and speaker, or a few files for all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.export.names import short_ids


@dataclass(frozen=True, slots=True)
class TableRow:
    """An utterance that has an embedding.

    Attributes:
        utterance_id: a path below the corpus without its extension.
        speaker_id: whose it is.
        relative_path: of its audio below the corpus.
    """

    utterance_id: str
    speaker_id: str
    relative_path: str


@dataclass(frozen=True)
class EmbeddingTable:
    """All embeddings of an export, for the formats that hold them together.

    Attributes:
        corpus_label: what the user calls the corpus.
        embedding_dim: D.
        rows: sorted by utterance id.
        vector: gives the (D,) float32 embedding of an utterance id, from the disk.
        speakers: speaker id -> (D,) float32, sorted.
    """

    corpus_label: str
    embedding_dim: int
    rows: list[TableRow]
    vector: Callable[[str], NDArray[np.float32]]
    speakers: dict[str, NDArray[np.float32]]

    @cached_property
    def short_ids(self) -> list[str]:
        """A word for each row, see ``names.short_ids``."""
        return short_ids([row.utterance_id for row in self.rows])

    @cached_property
    def speaker_words(self) -> dict[str, str]:
        """Speaker id -> a word without white space."""
        words = short_ids([speaker.replace("/", "%2F") for speaker in self.speakers])
        return dict(zip(self.speakers, words, strict=True))

    def vectors(self) -> Iterator[NDArray[np.float32]]:
        """The embedding of each row, in their order."""
        return (self.vector(row.utterance_id) for row in self.rows)


class Format(ABC):
    """One form of embeddings.

    Attributes:
        users: who reads it, for the help.
    """

    users: str

    def check(self, embedding_dim: int) -> None:
        """Refuses what this form cannot hold, before anything is computed.

        Raises:
            UserError: its readers want another number of dimensions.
        """
        return None


class FileFormat(Format):
    """One file for each utterance and one for each speaker.

    Attributes:
        extension: behind ``.<model_name>_embedding``; empty for the original form.
    """

    extension: str

    @abstractmethod
    def content(self, vector: NDArray[np.float32]) -> bytes:
        """The file of one (D,) embedding."""


class TableFormat(Format):
    """A few files that hold all embeddings, in the folder ``<model_name>_<format>``."""

    @abstractmethod
    def write(self, table: EmbeddingTable, folder: Path, final_folder: Path) -> None:
        """Writes the files.

        Args:
            table: the embeddings.
            folder: an empty folder.
            final_folder: where the files will lie.
        """
