"""The recordings of all shards of a corpus; what one shard holds is remembered."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from speaker_encoder.audio import AudioError, AudioInfo
from speaker_encoder.audio.member import Member
from speaker_encoder.audio.ranges import FileState, is_remote, read_span, state_of
from speaker_encoder.corpora.cache import default_cache_dir, is_settled, write_cache
from speaker_encoder.corpora.layouts.layout import Candidate, Collected
from speaker_encoder.corpora.records import ExcludedFile
from speaker_encoder.corpora.shards.entries import (
    Entry,
    LeftOut,
    ShardIndex,
    name_problem,
    on_this_machine,
    speaker_problem,
)
from speaker_encoder.corpora.shards.parquet_index import index_parquet
from speaker_encoder.corpora.shards.places import find_shards, folder_of
from speaker_encoder.corpora.shards.tar_index import index_tar

# To be raised whenever what is read from a shard, or how it is checked, changes.
_VERSION = 1
_NUM_THREADS = 4
BESIDE = ".index.json"
"""Behind the name of a shard: a file with its index."""


def collect_shards(
    address: str,
    suffix: str,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    use_cache: bool = True,
    show_progress: bool | None = None,
) -> Collected:
    """All recordings of shards, with their speakers and lengths.

    An utterance is called as its recording without the extension, where that is unique; else the
    name of its shard comes first.

    Args:
        address: as `find_shards` takes it.
        suffix: ``".tar"`` or ``".parquet"``.
        cache_dir: where it is remembered until a shard changes; None is the user's cache folder.
        use_cache: False reads every shard anew and remembers none.
        show_progress: a progress bar on stderr; None shows it on a terminal only.

    Raises:
        UserError: there are none, or one is of a form that cannot be used.
    """
    from tqdm import tqdm

    shards = find_shards(address, suffix)
    folder = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    if show_progress is None:
        show_progress = sys.stderr.isatty()

    def read(shard: str) -> ShardIndex:
        return _read_index(shard, folder / "shards" if use_cache else None)

    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        found = tqdm(
            pool.map(read, shards), desc="Reading shards", total=len(shards), unit="shard",
            disable=not show_progress,
        )  # fmt: skip
        indexes = dict(zip(shards, found, strict=True))
    return _collected(indexes, folder_of(address), suffix)


def _read_index(shard: str, folder: Path | None) -> ShardIndex:
    """What a shard holds, as it is remembered or from the shard itself."""
    try:
        state = state_of(shard)
        path = None
        if folder is not None:
            digest = hashlib.sha256(os.fsencode(_identity(shard))).hexdigest()[:32]
            path = folder / f"{digest}.json"
            remembered = _load(path, state)
            if remembered is not None:
                return remembered
        may_know = folder is not None or is_remote(shard)
        beside = read_index_beside(shard, state) if may_know else None
        if beside is not None:
            index = beside
        elif shard.endswith(".parquet"):
            index = index_parquet(shard)
        else:
            with on_this_machine(shard) as local:
                index = index_tar(local, shard)
    except AudioError as error:
        return ShardIndex(left_out=[LeftOut("", error.reason, error.detail)])
    except OSError as error:
        return ShardIndex(left_out=[LeftOut("", "cannot be read", str(error.strerror))])
    if path is not None and (is_remote(shard) or is_settled(int(state.stamp))):
        write_cache(path, _as_text(state, index))
    return index


def read_index_beside(shard: str, state: FileState) -> ShardIndex | None:
    """What `write_index_beside` wrote; None where there is none for this shard.

    Args:
        shard: path or URL.
        state: of the shard.
    """
    path = shard + BESIDE
    try:
        own = state_of(path)
        if not is_remote(shard) and int(own.stamp) < int(state.stamp):
            return None
        text = read_span(path, 0, own.size).decode("ascii")
    except (AudioError, UnicodeDecodeError):
        return None
    index = _parse(text, FileState(state.size, ""))
    if index is None:
        return None
    problems = (name_problem(one.name) or speaker_problem(one.speaker_id) for one in index.entries)
    return None if any(problems) else index


def write_index_beside(shard: Path) -> None:
    """Writes what a tar on this machine holds beside it, so that who fetches it need not look."""
    state = FileState(state_of(str(shard)).size, "")
    text = _as_text(state, index_tar(str(shard), str(shard)))
    temporary = shard.with_suffix(".part")
    temporary.write_text(text, encoding="ascii")
    os.replace(temporary, f"{shard}{BESIDE}")


def _identity(shard: str) -> str:
    return shard if is_remote(shard) else os.path.realpath(shard)


def _as_text(state: FileState, index: ShardIndex) -> str:
    content = {
        "version": _VERSION,
        "state": [state.size, state.stamp],
        "entries": index.entries,
        "left_out": index.left_out,
        "ignored": index.ignored,
    }
    return json.dumps(content, separators=(",", ":"))


def _load(path: Path, state: FileState) -> ShardIndex | None:
    """What is remembered; None when it is absent, damaged, or the shard has changed."""
    try:
        return _parse(path.read_text(encoding="ascii"), state)
    except (OSError, ValueError):
        return None


def _parse(text: str, state: FileState) -> ShardIndex | None:
    """The index that a text holds; None when it is damaged or of another state."""
    try:
        content = json.loads(text)
        if content["version"] != _VERSION or content["state"] != [state.size, state.stamp]:
            return None
        entries = [Entry(*entry) for entry in content["entries"]]
        if not all(map(_is_entry, entries)):
            return None
        left_out = [LeftOut(*map(str, one)) for one in content["left_out"]]
        return ShardIndex(entries, left_out, Counter(content["ignored"]))
    except (ValueError, KeyError, TypeError):
        return None


def _is_entry(entry: Entry) -> bool:
    numbers = (entry.first, entry.second, entry.num_samples, entry.sampling_rate)
    return all(type(number) is int and number >= 0 for number in numbers) and (
        type(entry.name) is type(entry.speaker_id) is str
    )


def _collected(indexes: dict[str, ShardIndex], root: str, suffix: str) -> Collected:
    ignored: Counter[str] = Counter()
    collected = Collected(ignored=ignored)
    name = _naming(indexes, root, suffix)
    for shard, index in indexes.items():
        ignored.update(index.ignored)
        for one in index.left_out:
            path = f"{shard}#{one.place}" if one.place else shard
            collected.excluded.append(ExcludedFile(path, one.reason, one.detail))
        for entry in index.entries:
            path = Member(shard, entry.first, entry.second, entry.name).path
            speaker_id = entry.speaker_id
            collected.candidates.append(
                Candidate(name(shard, entry), speaker_id, entry.session_id, path, 0, 0)
            )
            collected.infos[path] = AudioInfo(entry.num_samples, entry.sampling_rate, 1)
    return collected


def _naming(indexes: dict[str, ShardIndex], root: str, suffix: str) -> Callable[[str, Entry], str]:
    """What gives utterances their ids: their own names, where these are unique."""

    def own(shard: str, entry: Entry) -> str:
        return posixpath.splitext(entry.name)[0]

    def in_shard(shard: str, entry: Entry) -> str:
        return f"{os.path.relpath(shard, root).removesuffix(suffix)}/{own(shard, entry)}"

    def of_row(shard: str, entry: Entry) -> str:
        folder, name = posixpath.split(in_shard(shard, entry))
        return f"{folder}/{entry.first:05d}-{entry.second:05d}-{name}"

    for name in (own, in_shard):
        if _are_unique(name, indexes):
            return name
    return of_row if suffix == ".parquet" else in_shard


def _are_unique(name: Callable[[str, Entry], str], indexes: dict[str, ShardIndex]) -> bool:
    entries: Sequence[tuple[str, Entry]] = [
        (shard, entry) for shard, index in indexes.items() for entry in index.entries
    ]
    return len({name(*one) for one in entries}) == len(entries)
