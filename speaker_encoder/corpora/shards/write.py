"""Writes a corpus as tar shards, mixed so that a buffer of a part of them holds many speakers."""

from __future__ import annotations

import io
import json
import os
import posixpath
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from speaker_encoder.corpora.records import Corpus, Utterance
from speaker_encoder.corpora.shards.entries import name_problem
from speaker_encoder.corpora.shards.index import BESIDE, write_index_beside
from speaker_encoder.errors import UserError

NEIGHBOURS = 16
"""Utterances of a speaker that stand together, at most; K of a batch are found near each other."""

Sample = tuple[Utterance, str, int]
"""An utterance, its key, and the bytes of its recording."""


def write_shards(
    corpus: Corpus,
    folder: Path,
    shard_bytes: int,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Path]:
    """Writes every recording of a corpus, and beside it a json that says who speaks.

    Beside each shard lies its index, so that it need not be fetched to know what it holds.
    Speakers' utterances are shuffled, put together in pieces of `NEIGHBOURS`, and the pieces are
    shuffled. The shards are a function of the corpus; those that are there whole are kept.

    Args:
        corpus: of files.
        folder: of the shards, 000000.tar and so on.
        shard_bytes: of recordings in a shard; it ends with the piece that reaches them.
        progress: is told (what, done, in all).

    Returns:
        The shards.

    Raises:
        UserError: other shards are there, or two utterances get the same name.
    """
    plan = list(_plan(corpus, shard_bytes))
    names = [f"{number:06d}.tar" for number in range(len(plan))]
    folder.mkdir(parents=True, exist_ok=True)
    others = sorted(path.name for path in folder.glob("*.tar") if path.name not in names)
    if others:
        raise UserError(
            f"{folder} holds other shards ({', '.join(others[:3])}). Give an empty folder."
        )
    for done, (name, samples) in enumerate(zip(names, plan, strict=True)):
        progress("writing shards", done, len(plan))
        if not _is_there(folder / name, samples):
            _write(folder / name, samples)
        if not Path(f"{folder / name}{BESIDE}").exists():
            write_index_beside(folder / name)
    progress("writing shards", len(plan), len(plan))
    return [folder / name for name in names]


def _plan(corpus: Corpus, shard_bytes: int) -> Iterator[list[Sample]]:
    """The samples of each shard."""
    generator = np.random.default_rng(0)
    pieces = []
    for members in corpus.speakers.values():
        shuffled = generator.permutation(members).tolist()
        pieces += [shuffled[i : i + NEIGHBOURS] for i in range(0, len(shuffled), NEIGHBOURS)]
    keys: set[str] = set()
    shard: list[Sample] = []
    total = 0
    for number in generator.permutation(len(pieces)):
        for index in pieces[number]:
            utterance = corpus.utterances[index]
            key = _key(utterance)
            if key in keys:
                raise UserError(f"Two utterances would be called {key} in the shards. Rename one.")
            keys.add(key)
            size = os.path.getsize(utterance.path)
            shard.append((utterance, key, size))
            total += size
        if total >= shard_bytes:
            yield shard
            shard, total = [], 0
    if shard:
        yield shard


def _key(utterance: Utterance) -> str:
    """The name of a sample: the utterance's id, whose first dot would end it."""
    folder, name = posixpath.split(utterance.utterance_id)
    key = posixpath.join(folder, name.replace(".", "_"))
    if name_problem(key):
        raise UserError(f"{utterance.path} cannot be put into a shard: {name_problem(key)}.")
    return key


def _members(samples: Sequence[Sample]) -> Iterator[tuple[str, Utterance | bytes, int]]:
    """(name, what is in it, bytes) of each member of a shard."""
    for utterance, key, size in samples:
        values: dict[str, str | int | None]
        values = {"speaker_id": utterance.speaker_id, "session_id": utterance.session_id}
        values |= {"num_samples": utterance.num_samples, "sampling_rate": utterance.sampling_rate}
        text = json.dumps({name: value for name, value in values.items() if value is not None})
        yield f"{key}.json", text.encode(), len(text)
        extension = os.path.splitext(utterance.path)[1].lower()
        yield f"{key}{extension}", utterance, size


def _is_there(path: Path, samples: Sequence[Sample]) -> bool:
    """Whether a shard holds these members already; it got its name when it was whole."""
    try:
        with tarfile.open(path, "r:") as archive:
            found = [(member.name, member.size) for member in archive]
    except (OSError, tarfile.TarError):
        return False
    return found == [(name, size) for name, _, size in _members(samples)]


def _write(path: Path, samples: Sequence[Sample]) -> None:
    temporary = path.with_suffix(".part")
    with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content, size in _members(samples):
            member = tarfile.TarInfo(name)
            member.size = size
            if isinstance(content, bytes):
                archive.addfile(member, io.BytesIO(content))
                continue
            with open(content.path, "rb") as file:
                archive.addfile(member, file)
    Path(f"{path}{BESIDE}").unlink(missing_ok=True)
    os.replace(temporary, path)
