"""What gives embeddings to evaluate: an encoder, or embeddings that were exported."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speaker_encoder.errors import UserError
from speaker_encoder.verification.embedding import UtteranceVectors, embed_files, row_width
from speaker_encoder.verification.embedding_cache import EmbeddingCache
from speaker_encoder.verification.protocols import Protocol
from speaker_encoder.verification.sources import StoredEmbeddings, read_embeddings

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder

_MAX_SHOWN = 5


def split_name(text: str) -> tuple[str, str]:
    """(name, place) of ``name=place``; the place is also the name where there is no other."""
    name, sign, place = text.partition("=")
    if not sign or not name or "/" in name or os.path.exists(text):
        return text, text
    return name, place


class EmbeddingSource(ABC):
    """Gives the embeddings of utterances.

    Attributes:
        name: what the user calls it.
        needs_audio: utterances must have audio files.
    """

    name: str
    needs_audio: bool

    @abstractmethod
    def embed(
        self, names: Sequence[str], paths: Sequence[str] | None, label: Callable[[int], str]
    ) -> UtteranceVectors:
        """The embeddings of U utterances.

        Args:
            names: as the trial list writes them.
            paths: of their audio.
            label: how an error names an utterance, by its position.

        Raises:
            UserError: one has none.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What it is, for ``results.json``."""


class EncoderSource(EmbeddingSource):
    """An encoder that embeds audio files, each once.

    Args:
        name: of ``modeling.registry.NAMES``, a Hub id, a folder of a model or of a run; or one
            of them with a name of the user's own, ``name=place``.
        device: ``cpu``, ``cuda``, ``cuda:<number>`` or ``best``.
        protocol: what of an utterance is embedded.
        batch_size: parts embedded at once.
        use_cache: keep embeddings on disk.
        show_progress: a progress bar on stderr; None: on a terminal only.

    Raises:
        UserError: there is no such encoder or device, or its head is untrained.
    """

    needs_audio = True

    def __init__(
        self,
        name: str,
        *,
        device: str = "best",
        protocol: Protocol | None = None,
        batch_size: int = 16,
        use_cache: bool = True,
        show_progress: bool | None = None,
    ) -> None:
        from speaker_encoder.export.model import choose_device, weights_digest

        self.name, self.place = split_name(name)
        self._protocol = protocol or Protocol()
        self._batch_size = batch_size
        self._use_cache = use_cache
        self._show_progress = show_progress
        torch_device = choose_device(device)
        self.encoder = load_any_encoder(self.place)
        self.weights_sha256 = weights_digest(self.encoder)
        self.device = torch_device.type
        module: Any = self.encoder
        module.to(torch_device)

    def embed(
        self, names: Sequence[str], paths: Sequence[str] | None, label: Callable[[int], str]
    ) -> UtteranceVectors:
        """The embeddings of U utterances."""
        assert paths is not None
        return embed_files(
            self.encoder, paths, protocol=self._protocol, batch_size=self._batch_size,
            cache=self._cache(), label=label, show_progress=self._show_progress,
        )  # fmt: skip

    def _cache(self) -> EmbeddingCache | None:
        if not self._use_cache:
            return None
        options = {"protocol": str(self._protocol), "device": self.device}
        return EmbeddingCache(self.weights_sha256, options, row_width(self.encoder, self._protocol))

    def describe(self) -> dict[str, Any]:
        """What it is, for ``results.json``."""
        return {
            "model": self.place,
            "encoder_kind": self.encoder.config.encoder_kind,
            "weights_sha256": self.weights_sha256,
            "embedding_dim": self.encoder.embedding_dim,
            "sampling_rate": self.encoder.sampling_rate,
            "device": self.device,
        }


def load_any_encoder(name: str) -> SpeakerEncoder:
    """An encoder by its name, Hub id or place: a model folder, a run, a checkpoint.

    Raises:
        UserError: there is none, or its head is untrained.
    """
    from speaker_encoder.export.model import load_encoder
    from speaker_encoder.export.options import ExportOptions
    from speaker_encoder.modeling.registry import BACKBONES, NAMES
    from speaker_encoder.modeling.sources import known_kind

    place = Path(name).expanduser()
    if name in NAMES or not place.exists() or (place.is_file() and known_kind(place) is not None):
        return load_encoder(ExportOptions(model_name=name, dataset_dir=""))
    kind = "encoder"
    if place.is_file():  # the original system's files do not say what they are
        in_name = [known for known in BACKBONES if known in place.name.lower()]
        kind = max(in_name, key=len, default="ecapa")
    return load_encoder(ExportOptions(model_name=kind, dataset_dir="", checkpoint=name))


class StoredSource(EmbeddingSource):
    """Embeddings that `speaker-encoder embed` wrote, in any of its formats.

    Args:
        path: as ``sources.read_embeddings`` takes it, or ``name=path``.

    Raises:
        UserError: there are none.
    """

    needs_audio = False

    def __init__(self, path: str) -> None:
        self.name, self.place = split_name(path)
        self.stored = read_embeddings(self.place)
        norms = np.linalg.norm(self.stored.embeddings, axis=1, keepdims=True)
        self._norms = norms[:, 0].astype(np.float64)
        unit = self.stored.embeddings / np.maximum(norms, np.finfo(np.float32).tiny)
        self._unit = unit.astype(np.float32)

    def embed(
        self, names: Sequence[str], paths: Sequence[str] | None, label: Callable[[int], str]
    ) -> UtteranceVectors:
        """The embeddings of U utterances, found by their names."""
        rows = find_rows(self.stored, names)
        missing = [position for position, row in enumerate(rows) if row is None]
        if missing:
            shown = [f"  {label(position)}" for position in missing[:_MAX_SHOWN]]
            if len(missing) > len(shown):
                shown.append(f"  and {len(missing) - len(shown)} more")
            raise UserError(
                f"{len(missing)} of {len(names)} utterances have no embedding in {self.place}, "
                f"which has such as {self.stored.utterance_ids[0]!r}:\n" + "\n".join(shown)
            )
        names_of: dict[int, str] = {}
        for row, name in zip(rows, names, strict=True):
            assert row is not None
            stem = os.path.splitext(os.path.normpath(name))[0]
            known = names_of.setdefault(row, stem)
            if known != stem:
                raise UserError(
                    f"{known!r} and {stem!r} would both be {self.stored.utterance_ids[row]!r} of "
                    f"{self.place}. Give trials whose names are those of the embeddings."
                )
        return self.take([row for row in rows if row is not None])

    def take(self, rows: Sequence[int]) -> UtteranceVectors:
        """The embeddings of some rows."""
        index = np.array(rows, dtype=np.int64)
        # Norms that are all 1 say nothing: the embeddings were normalised when they were written.
        is_plain = bool(np.allclose(self._norms, 1.0, atol=1e-4))
        return UtteranceVectors(
            self._unit[index][:, None], None, None if is_plain else self._norms[index]
        )

    def describe(self) -> dict[str, Any]:
        """What it is, for ``results.json``."""
        num_rows, embedding_dim = self.stored.embeddings.shape
        return {"embeddings": self.place, "num_rows": num_rows, "embedding_dim": embedding_dim}


def find_rows(stored: StoredEmbeddings, names: Sequence[str]) -> list[int | None]:
    """The row of each utterance, by its path or id.

    A name fits an id when it is the same without extension, perhaps below another folder, or the
    one word that some formats make of it.
    """
    from speaker_encoder.export.names import flat_id

    exact: dict[str, int] = {}
    tails: dict[str, int | None] = {}
    for row, utterance_id in enumerate(stored.utterance_ids):
        exact.setdefault(utterance_id, row)
        exact.setdefault(flat_id(utterance_id), row)
        for tail in _tails(utterance_id):
            tails[tail] = row if tail not in tails else None
    for row, path in enumerate(stored.paths or ()):
        exact.setdefault(os.path.normpath(path), row)
        exact.setdefault(os.path.splitext(os.path.normpath(path))[0], row)
    rows: list[int | None] = []
    for name in names:
        stem = os.path.splitext(os.path.normpath(name))[0]
        words = [os.path.normpath(name), stem, *_tails(stem)]
        words += [flat_id(word) for word in words[1:]]
        found = next((exact[word] for word in words if word in exact), None)
        rows.append(tails.get(stem) if found is None else found)
    return rows


def _tails(path: str) -> list[str]:
    """A path without its first folder, without its first two, ..."""
    parts = path.split("/")
    return ["/".join(parts[start:]) for start in range(1, len(parts))]
