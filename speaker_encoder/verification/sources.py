"""Reads embeddings back from every form that the exporter writes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.errors import UserError
from speaker_encoder.verification.single_files import (
    SINGLE_FILE,
    find_single_files,
    read_single_files,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

_SEVERAL = "{} holds embeddings of several models: {}. Name one, as {}:{}."


@dataclass(frozen=True)
class StoredEmbeddings:
    """Embeddings of utterances, as they were exported.

    Attributes:
        utterance_ids: N; the path below the corpus without its extension, or where the format has
            no room for one (Kaldi, CosyVoice, SpeechT5) the word that stands for it there.
        speaker_ids: N; None where the format does not tell them.
        paths: N, of the audio: a path that is there, or the one below the corpus; None where the
            format does not tell them.
        embeddings: (N, D) float32.
    """

    utterance_ids: list[str]
    speaker_ids: list[str] | None
    paths: list[str] | None
    embeddings: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.utterance_ids)


def read_embeddings(path: str | os.PathLike[str]) -> StoredEmbeddings:
    """Reads the embeddings of utterances that `speaker-encoder embed` wrote.

    Args:
        path: a file of an export (``embeddings.safetensors``, ``utterances.parquet``,
            ``validation.parquet``, ``xvector.scp``, ``speakers.pth``, ``utt2embedding.pt``), the
            folder of such a file, or the output folder of an export in any form, also the corpus
            with ``<utterance>.<model>_embedding`` files beside its audio. Where a folder holds the
            embeddings of several models, ``<folder>:<model>``. Also an ``.npz`` with
            ``embeddings`` and ``paths`` or ``utterance_ids``.

    Returns:
        The embeddings, in the order of the file or sorted by utterance id.

    Raises:
        UserError: there is no such path, it holds no embeddings or those of several models, or a
            file is damaged; or embeddings that are not finite or not all of one dimension.
    """
    place, tag = _split_tag(os.fspath(path))
    if place.is_file():
        reader = next((read for name, read in _READERS.items() if place.name.endswith(name)), None)
        if reader is None:
            if SINGLE_FILE.fullmatch(place.name):
                raise UserError(f"{place} holds one embedding. Give the folder of all of them.")
            raise UserError(
                f"{place} is no file of embeddings that is known here. Known: "
                f"{', '.join(_READERS)}, and the folders that `speaker-encoder embed` writes."
            )
        return _read_one(place, reader)
    if not place.is_dir():
        raise UserError(f"There are no embeddings at {place}: no such file or folder.")
    return _read_folder(place, tag)


def _split_tag(text: str) -> tuple[Path, str | None]:
    place = Path(text).expanduser()
    if place.exists() or ":" not in text:
        return place, None
    folder, _, tag = text.rpartition(":")
    return (Path(folder).expanduser(), tag) if os.path.isdir(folder) else (place, None)


def _read_one(place: Path, reader: Callable[[Path], StoredEmbeddings]) -> StoredEmbeddings:
    """Reads a file; what is wrong with it becomes a message."""
    import pickle
    import struct
    import zipfile

    try:
        stored = reader(place)
    except UserError:
        raise
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, RuntimeError,
        struct.error, pickle.UnpicklingError, zipfile.BadZipFile,
    ) as error:  # fmt: skip
        reason = str(error).splitlines()[:1]
        raise UserError(
            f"Cannot read embeddings from {place}: {''.join(reason) or type(error).__name__}. "
            "Write them again with `speaker-encoder embed`."
        ) from error
    return _checked(stored, place)


def _read_folder(folder: Path, tag: str | None) -> StoredEmbeddings:
    """Reads the one file of a folder that has all embeddings, or its many files of one each."""
    for name, reader in _READERS.items():
        if (folder / name).is_file():
            return _read_one(folder / name, reader)
    tables: dict[str, tuple[Path, Callable[[Path], StoredEmbeddings]]] = {}
    for suffix, name in _TABLES.items():
        for found in sorted(folder.glob(f"*_{suffix}/{name}")):
            tables.setdefault(found.parent.name.removesuffix(f"_{suffix}"), (found, _READERS[name]))
    files = find_single_files(folder)
    tags = sorted({*tables, *files})
    if tag is not None and tag not in tags:
        raise UserError(f"{folder} holds no embeddings of {tag!r}; of {', '.join(tags) or 'none'}.")
    if not tags:
        raise UserError(
            f"{folder} holds no embeddings. Wanted what `speaker-encoder embed` writes: "
            "<utterance>.<model>_embedding files, or one of its other formats."
        )
    if tag is None and len(tags) > 1:
        raise UserError(_SEVERAL.format(folder, ", ".join(tags), folder, tags[0]))
    chosen = tag or tags[0]
    if chosen in tables:
        return _read_one(*tables[chosen])
    return _read_one(folder, lambda root: _read_single(root, chosen, files[chosen]))


def _checked(stored: StoredEmbeddings, place: Path) -> StoredEmbeddings:
    if not len(stored):
        raise UserError(f"{place} holds no embeddings of utterances.")
    if stored.embeddings.shape[:1] != (len(stored),) or stored.embeddings.ndim != 2:
        raise UserError(
            f"{place} has {len(stored)} utterances but embeddings of shape "
            f"{stored.embeddings.shape}. Write them again with `speaker-encoder embed`."
        )
    bad = np.flatnonzero(~np.isfinite(stored.embeddings).all(axis=1))
    if len(bad):
        raise UserError(
            f"{len(bad)} of {len(stored)} embeddings in {place} are not finite, the first of "
            f"{stored.utterance_ids[bad[0]]!r}."
        )
    return stored


def _stack(vectors: Iterable[Any]) -> NDArray[np.float32]:
    rows = [np.asarray(vector, dtype=np.float32).reshape(-1) for vector in vectors]
    sizes = sorted({len(row) for row in rows})
    if len(sizes) > 1:
        raise ValueError(f"embeddings of different dimensions: {', '.join(map(str, sizes))}")
    return np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32)


def _read_safetensors(path: Path) -> StoredEmbeddings:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            ids = json.loads((file.metadata() or {})["ids"])
            embeddings = file.get_tensor("utterances")
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    return StoredEmbeddings(ids["utterance_ids"], ids["speaker_of_utterance"], None, embeddings)


def _read_parquet(path: Path) -> StoredEmbeddings:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    is_speecht5 = "xvector" in table.column_names
    values = table.column("xvector" if is_speecht5 else "embedding").combine_chunks()
    embeddings = np.asarray(values.values if hasattr(values, "values") else [], dtype=np.float32)
    ids = table.column("filename" if is_speecht5 else "utterance_id").to_pylist()
    embeddings = embeddings.reshape(len(ids), -1)
    if is_speecht5:
        return StoredEmbeddings(ids, None, None, embeddings)
    roots = (path.parent.parent, path.parent)
    paths = [_existing(roots, name) for name in table.column("path").to_pylist()]
    return StoredEmbeddings(ids, table.column("speaker_id").to_pylist(), paths, embeddings)


def _existing(roots: Sequence[Path], name: str) -> str:
    """The path of a file below the corpus, where the corpus is beside the export."""
    return next((str(root / name) for root in roots if (root / name).is_file()), name)


def _read_kaldi(path: Path) -> StoredEmbeddings:
    ids, vectors = [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, rest = line.partition(" ")
        archive, _, position = rest.rpartition(":")
        beside = path.parent / os.path.basename(archive)  # the folder may have been moved
        ids.append(key)
        vectors.append(_read_vector(beside if beside.is_file() else Path(archive), int(position)))
    speakers: dict[str, str] = {}
    if (path.parent / "utt2spk").is_file():
        lines = (path.parent / "utt2spk").read_text(encoding="utf-8").splitlines()
        speakers = dict(line.split(None, 1) for line in lines if line.strip())
    known = [speakers[key].strip() for key in ids] if set(ids) <= set(speakers) else None
    return StoredEmbeddings(ids, known, None, _stack(vectors))


def _read_vector(archive: Path, position: int) -> NDArray[np.float32]:
    """A vector of an ark in Kaldi's binary form, float or double."""
    with open(archive, "rb") as file:
        file.seek(position)
        head = file.read(10)
        kinds = {b"\0BFV \4": "<f4", b"\0BDV \4": "<f8"}
        kind = kinds.get(head[:6])
        if kind is None:
            raise ValueError(f"no binary vector at {archive}:{position}")
        size = int.from_bytes(head[6:], "little")
        content = file.read(size * np.dtype(kind).itemsize)
    return np.frombuffer(content, dtype=kind, count=size).astype(np.float32)


def _read_coqui(path: Path) -> StoredEmbeddings:
    import torch

    entries = torch.load(path, map_location="cpu", weights_only=True)
    ids = [key.split("#", 1)[-1] for key in entries]
    speakers = [str(entry["name"]) for entry in entries.values()]
    return StoredEmbeddings(
        ids, speakers, None, _stack(entry["embedding"] for entry in entries.values())
    )


def _read_cosyvoice(path: Path) -> StoredEmbeddings:
    import torch

    entries = torch.load(path, map_location="cpu", weights_only=True)
    return StoredEmbeddings(list(entries), None, None, _stack(entries.values()))


def _read_npz(path: Path) -> StoredEmbeddings:
    with np.load(path, allow_pickle=False) as content:
        embeddings = np.asarray(content["embeddings"], dtype=np.float32)
        paths = [str(name) for name in content["paths"]] if "paths" in content else None
        if "utterance_ids" in content:
            ids = [str(name) for name in content["utterance_ids"]]
        elif paths is not None:
            ids = [os.path.splitext(name)[0] for name in paths]
        else:
            raise KeyError("wanted 'paths' or 'utterance_ids' beside 'embeddings'")
        speakers = [str(n) for n in content["speaker_ids"]] if "speaker_ids" in content else None
    if paths is not None:
        paths = [_existing((path.parent,), name) for name in paths]
    return StoredEmbeddings(ids, speakers, paths, embeddings)


_READERS: dict[str, Callable[[Path], StoredEmbeddings]] = {
    "embeddings.safetensors": _read_safetensors,
    "utterances.parquet": _read_parquet,
    "validation.parquet": _read_parquet,
    "xvector.scp": _read_kaldi,
    "speakers.pth": _read_coqui,
    "utt2embedding.pt": _read_cosyvoice,
    ".npz": _read_npz,
}
_TABLES = {
    "parquet": "utterances.parquet",
    "safetensors": "embeddings.safetensors",
    "coqui": "speakers.pth",
    "kaldi": "xvector.scp",
    "cosyvoice": "utt2embedding.pt",
    "speecht5": "validation.parquet",
}
"""Ending of the folder of an export -> its file; first those that tell most."""


def _read_single(root: Path, tag: str, files: dict[str, Path]) -> StoredEmbeddings:
    vectors, speakers, audio = read_single_files(root, tag, files)
    return StoredEmbeddings(sorted(files), speakers, audio, _stack(vectors))
