"""The recordings of all shards of a corpus; what one shard holds is remembered."""

from __future__ import annotations

import hashlib
import os
import posixpath
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from speaker_encoder.audio import AudioError, AudioInfo
from speaker_encoder.audio.member import Member
from speaker_encoder.audio.ranges import is_remote, read_span, state_of
from speaker_encoder.corpora.cache import default_cache_dir, is_settled, write_cache
from speaker_encoder.corpora.layouts.layout import Candidate, Collected
from speaker_encoder.corpora.records import ExcludedFile
from speaker_encoder.corpora.shards.entries import (
    Entry,
    LeftOut,
    ShardIndex,
    on_this_machine,
)
from speaker_encoder.corpora.shards.index_file import (
    index_as_text,
    load_index,
    read_index_beside,
)
from speaker_encoder.corpora.shards.parquet_index import index_parquet
from speaker_encoder.corpora.shards.places import find_shards, folder_of
from speaker_encoder.corpora.shards.tar_index import index_tar
from speaker_encoder.errors import UserError

_NUM_THREADS = 4
# Of a parquet file on this machine: that stays as it is, so that the file is left out.
_DAMAGE = ("no parquet file", "truncated or damaged")


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
        UserError: there are none, or one cannot be read or is of a form that cannot be used.
    """
    shards = find_shards(address, suffix)
    indexes = read_indexes(
        shards, cache_dir=cache_dir, use_cache=use_cache, show_progress=show_progress
    )
    return _collected(indexes, folder_of(address), suffix)


def read_indexes(
    shards: Sequence[str],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    use_cache: bool = True,
    show_progress: bool | None = None,
) -> dict[str, ShardIndex]:
    """What each shard holds.

    Args:
        shards: paths or URLs.
        cache_dir: as of `collect_shards`, like the others.
        use_cache: remember it.
        show_progress: a progress bar on stderr.

    Raises:
        UserError: one cannot be read or is of a form that cannot be used.
    """
    from tqdm import tqdm

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
        return dict(zip(shards, found, strict=True))


def _read_index(shard: str, folder: Path | None) -> ShardIndex:
    """What a shard holds, as it is remembered or from the shard itself.

    Raises:
        UserError: it cannot be read. Without it this would be another corpus, and perhaps for a
            moment or on one machine alone.
    """
    try:
        state = state_of(shard)
        path = None
        if folder is not None and (state.stamp or not is_remote(shard)):
            digest = hashlib.sha256(os.fsencode(_identity(shard))).hexdigest()[:32]
            path = folder / f"{digest}.json"
            remembered = load_index(path, state)
            if remembered is not None:
                return remembered
        may_know = shard.endswith(".tar") and (folder is not None or is_remote(shard))
        beside = read_index_beside(shard, state) if may_know else None
        if beside is not None:
            index = beside
        elif shard.endswith(".parquet"):
            read_span(shard, 0, min(state.size, 1))  # may it be read at all
            index = index_parquet(shard)
        else:
            with on_this_machine(shard) as local:
                index = index_tar(local, shard)
    except AudioError as error:
        if is_remote(shard) or error.reason not in _DAMAGE:
            raise _unreadable(shard, error.reason, error.detail) from error
        return ShardIndex(left_out=[LeftOut("", error.reason, error.detail)])
    except OSError as error:
        where = f"; it is fetched into {tempfile.gettempdir()}" if is_remote(shard) else ""
        detail = f"{error.strerror or error}{where}"
        raise _unreadable(shard, "cannot be read", detail) from error
    if path is not None and (is_remote(shard) or is_settled(int(state.stamp))):
        write_cache(path, index_as_text(state, index))
    return index


def _unreadable(shard: str, reason: str, detail: str) -> UserError:
    return UserError(
        f"The shard {shard} cannot be used: {reason} ({detail}). It is not left out, as that would "
        "be another corpus. Run the same command again when it can be read, or name the other "
        "shards alone."
    )


def _identity(shard: str) -> str:
    return shard if is_remote(shard) else os.path.realpath(shard)


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
