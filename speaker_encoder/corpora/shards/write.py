"""Writes a corpus as tar shards, mixed so that a buffer of a part of them holds many speakers."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from speaker_encoder.audio.member import find_member, open_member
from speaker_encoder.audio.ranges import FileState, is_remote, state_of
from speaker_encoder.corpora.records import Corpus, Utterance
from speaker_encoder.corpora.shards.entries import name_problem, sample_key
from speaker_encoder.corpora.shards.index_file import BESIDE, write_index_beside
from speaker_encoder.errors import UserError

NEIGHBOURS = 16
"""Utterances of a speaker that stand together, at most; K of a batch are found near each other."""


class Sample(NamedTuple):
    """A recording to be written.

    Attributes:
        utterance: whose it is.
        key: its name in the shard, without extension.
        state: its size; the time of the last change of its file, or of the shard that it is in.
    """

    utterance: Utterance
    key: str
    state: FileState


def write_shards(
    corpus: Corpus,
    folder: Path,
    shard_bytes: int,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Path]:
    """Writes every recording of a corpus, and beside it a json that says who speaks.

    Beside each shard lies its index, so that it need not be fetched to know what it holds.
    Speakers' utterances are shuffled, put together in pieces of `NEIGHBOURS`, and the pieces are
    shuffled. The shards are a function of the corpus and of the times at which its files changed;
    those that are there whole are kept.

    Args:
        corpus: of files, or of other shards.
        folder: of the shards, 000000.tar and so on.
        shard_bytes: of recordings in a shard; it ends with the piece that reaches them.
        progress: is told (what, done, in all).

    Returns:
        The shards.

    Raises:
        UserError: other shards are there, or two utterances get the same name, or the shards
            would come to lie among those that they are made of.
        AudioError: a recording in a shard cannot be read.
    """
    _check_apart(corpus, folder)
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
    states = _states(corpus.utterances)
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
            shard.append(Sample(utterance, key, states[utterance.path]))
            total += states[utterance.path].size
        if total >= shard_bytes:
            yield shard
            shard, total = [], 0
    if shard:
        yield shard


def _key(utterance: Utterance) -> str:
    key = sample_key(utterance.utterance_id)
    if name_problem(key):
        raise UserError(f"{utterance.path} cannot be put into a shard: {name_problem(key)}.")
    return key


def _check_apart(corpus: Corpus, folder: Path) -> None:
    """Keeps shards from being written over while they are read, or mixed with what they become.

    Raises:
        UserError: they would be.
    """
    members = map(find_member, (utterance.path for utterance in corpus.utterances))
    shards = {member.shard for member in members if member is not None}
    sources = (Path(shard).resolve() for shard in shards if not is_remote(shard))
    if any(folder.resolve() in source.parents for source in sources):
        raise UserError(f"{folder} holds the shards of the corpus itself. Give an empty folder.")


def _states(utterances: Sequence[Utterance]) -> dict[str, FileState]:
    """How large each recording is, and when its file changed; of shards, in their order."""
    of_shard = cache(state_of)
    states = {}
    for path in _in_order(utterance.path for utterance in utterances):
        member = find_member(path)
        if member is None:
            states[path] = state_of(path)
            continue
        size = member.second
        if member.is_row:
            with open_member(member) as file:
                size = file.seek(0, io.SEEK_END)
        states[path] = FileState(size, of_shard(member.shard).stamp)
    return states


def _in_order(paths: Iterable[str]) -> list[str]:
    """Paths in the order in which shards are read; those of files stay as they are."""
    return sorted(paths, key=lambda path: find_member(path) or ())


def _members(samples: Sequence[Sample]) -> Iterator[tuple[str, Utterance | bytes, int]]:
    """(name, what is in it, bytes) of each member of a shard."""
    for utterance, key, state in samples:
        values: dict[str, str | int | None]
        values = {"speaker_id": utterance.speaker_id, "session_id": utterance.session_id}
        values |= {"num_samples": utterance.num_samples, "sampling_rate": utterance.sampling_rate}
        if key != utterance.utterance_id:
            values["utterance_id"] = utterance.utterance_id
        values["source_time"] = state.stamp
        text = json.dumps({name: value for name, value in values.items() if value is not None})
        yield f"{key}.json", text.encode(), len(text)
        extension = os.path.splitext(utterance.path)[1].lower()
        yield f"{key}{extension}", utterance, state.size


def _is_there(path: Path, samples: Sequence[Sample]) -> bool:
    """Whether a shard holds these members already; it got its name when it was whole.

    The texts tell of recordings that were changed since, as they hold the times of their files.
    """
    wanted = list(_members(samples))
    try:
        with tarfile.open(path, "r:") as archive:
            found = archive.getmembers()
            if [(member.name, member.size) for member in found] != [
                (name, size) for name, _, size in wanted
            ]:
                return False
            return all(
                archive.extractfile(member).read() == content  # type: ignore[union-attr]
                for member, (_, content, _) in zip(found, wanted, strict=True)
                if isinstance(content, bytes)
            )
    except (OSError, tarfile.TarError, ValueError):
        return False


def _write(path: Path, samples: Sequence[Sample]) -> None:
    temporary = path.with_suffix(".part")
    rows = _read_rows(samples)
    with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content, size in _members(samples):
            member = tarfile.TarInfo(name)
            member.size = size
            if not isinstance(content, bytes):
                content = rows.pop(content.path, content)
            with io.BytesIO(content) if isinstance(content, bytes) else _open(content.path) as file:
                archive.addfile(member, file)
    Path(f"{path}{BESIDE}").unlink(missing_ok=True)
    os.replace(temporary, path)


def _read_rows(samples: Sequence[Sample]) -> dict[str, bytes]:
    """The recordings that are rows, in the order of their row groups: each is decoded once."""
    contents = {}
    for path in _in_order(sample.utterance.path for sample in samples):
        member = find_member(path)
        if member is not None and member.is_row:
            with open_member(member) as file:
                contents[path] = file.read()
    return contents


def _open(path: str) -> BinaryIO:
    member = find_member(path)
    return open(path, "rb") if member is None else open_member(member)
