"""The utterances of an export: whose they are, how long, where their audio is."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from speaker_encoder.audio import AudioError, read_info
from speaker_encoder.audio.member import find_member
from speaker_encoder.audio.ranges import FileState, state_of
from speaker_encoder.corpora import LAYOUTS, Corpus, ExcludedFile, Utterance, scan
from speaker_encoder.corpora.shards import is_address
from speaker_encoder.errors import UserError
from speaker_encoder.export.names import parts_of, safe_name, safe_path
from speaker_encoder.export.options import ExportOptions, check_choice

HUGGINGFACE = "huggingface"
_DATASET_FILES = ("dataset_info.json", "dataset_dict.json", "state.json")
_UNKNOWN_SIZE = -1
"""Of audio that cannot be opened; no embedding in a store is of this size."""


@dataclass(frozen=True, slots=True)
class Item:
    """An utterance of an export.

    Attributes:
        utterance: its ids and length.
        relative_path: of its audio below the corpus.
        size: of the audio in bytes.
        time: tells with ``size`` when the audio has changed.
    """

    utterance: Utterance
    relative_path: str
    size: int
    time: int


@dataclass(frozen=True, slots=True)
class FailedFile:
    """An audio file that has no embedding.

    Attributes:
        path: below the corpus.
        reason: why.
        speaker_id: whose it is, where that is known.
        utterance_id: where it got that far.
    """

    path: str
    reason: str
    speaker_id: str | None = None
    utterance_id: str | None = None


@dataclass
class Source:
    """A corpus on disk.

    Attributes:
        root: of the corpus.
        layout: which one it is.
        label: what the user calls it.
        items: sorted by utterance id.
        failures: audio files that could not be opened.
        left_out: reason -> number of files left out on purpose.
        unwanted: utterances among these that are shorter or longer than the user wants.
    """

    root: Path
    layout: str
    label: str
    items: list[Item]
    failures: list[FailedFile] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    unwanted: list[Item] = field(default_factory=list)

    def whole(self) -> Iterator[Item]:
        """All that may have had an embedding once: also what is unwanted or cannot be opened."""
        yield from self.items
        yield from self.unwanted
        for failure in self.failures:
            utterance_id = failure.utterance_id or os.path.splitext(failure.path)[0]
            path = os.path.join(self.root, failure.path)
            utterance = Utterance(utterance_id, failure.speaker_id or "", None, path, 0, 1)
            yield Item(utterance, failure.path, _UNKNOWN_SIZE, 0)

    @contextlib.contextmanager
    def audio_path(self, index: int) -> Iterator[str]:
        """A path at which the audio of an item can be read."""
        yield self.items[index].utterance.path

    def utterance_stem(self, item: Item, output_dir: Path | None) -> Path:
        """Where an utterance's file goes, without its suffix."""
        if output_dir is None:
            return Path(os.path.splitext(item.utterance.path)[0])
        return output_dir / safe_path(parts_of(item.utterance.utterance_id))

    def speaker_stem(self, speaker_id: str, first: Item, output_dir: Path | None) -> Path:
        """Where a speaker's file goes, without its suffix: into the folder of the speaker."""
        parts = parts_of(first.utterance.utterance_id)[:-1]
        while parts and parts[-1] != speaker_id:
            parts.pop()
        folder = parts or [speaker_id]
        root = self.root if output_dir is None else output_dir
        return root / safe_path(folder) / safe_name(speaker_id)


def open_source(options: ExportOptions) -> Source:
    """Finds the utterances of a corpus; reads headers only.

    Raises:
        UserError: the corpus is missing or has no audio, or its layout is unknown.
    """
    layout = _layout(options)
    if layout == HUGGINGFACE and not is_address(options.dataset_dir):
        from speaker_encoder.export.huggingface import open_huggingface

        return open_huggingface(options)
    corpus = scan(
        options.dataset_dir,
        layout,
        multi_rec_session=options.multi_rec_session,
        show_progress=options.show_progress,
    )
    if options.output_dir is None and find_member(corpus.utterances[0].path) is not None:
        raise UserError(
            "The audio of shards lies in them: there is no folder to write embeddings beside it. "
            "Give --output_dir."
        )
    label = options.dataset_name if options.dataset_name != "auto" else corpus.layout
    source = Source(Path(corpus.root), corpus.layout, label, [])
    _add_items(source, corpus.utterances)
    _sort_excluded(source, corpus)
    return source


def _layout(options: ExportOptions) -> str:
    """The layout's name in the tables, from the published one."""
    wanted = options.dataset_name.lower().replace("-", "_")
    names = {"auto": "auto", HUGGINGFACE: HUGGINGFACE, **{name: name for name in LAYOUTS}}
    published = {"vctk": "VCTK", "libritts": "LibriTTS", "librispeech": "LibriSpeech",
                 "voxceleb": "VoxCeleb", "cmu_arctic": "CMU_ARCTIC"}  # fmt: skip
    if wanted not in names:
        check_choice("--dataset_name", options.dataset_name, [published.get(n, n) for n in names])
    if wanted == "auto":
        folder = Path(options.dataset_dir)
        if any((folder / name).is_file() for name in _DATASET_FILES) or _holds_audio(folder):
            return HUGGINGFACE
    return wanted


def _holds_audio(folder: Path) -> bool:
    """Are there tables with audio in them, not only with what is said about files beside them."""
    tables = parquet_files(folder)
    if not tables:
        return False
    import pyarrow
    from pyarrow import parquet

    try:
        return "audio" in parquet.read_schema(tables[0]).names
    except (OSError, pyarrow.ArrowException):
        return False


def parquet_files(folder: Path) -> list[Path]:
    """The tables of a dataset as it lies on the Hub, in the folder itself or in its ``data``."""
    return sorted(folder.glob("*.parquet")) or sorted(folder.glob("data/*.parquet"))


def _add_items(source: Source, utterances: Sequence[Utterance]) -> None:
    root = os.fspath(source.root)
    shards: dict[str, FileState] = {}
    for utterance in utterances:
        relative = os.path.relpath(utterance.path, root)
        try:
            size, time = _size_and_time(utterance.path, shards)
        except OSError as error:
            source.failures.append(
                FailedFile(
                    relative, str(error.strerror), utterance.speaker_id, utterance.utterance_id
                )
            )
            continue
        source.items.append(Item(utterance, relative, size, time))


def _size_and_time(path: str, shards: dict[str, FileState]) -> tuple[int, int]:
    """What tells when audio has changed; of a recording in a shard, the shard's."""
    member = find_member(path)
    if member is None:
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns
    if member.shard not in shards:
        shards[member.shard] = state_of(member.shard)
    state = shards[member.shard]
    return state.size, zlib.crc32(state.stamp.encode())


def _sort_excluded(source: Source, corpus: Corpus) -> None:
    """Tells files that could not be opened from those that the layout leaves out."""
    by_reason: dict[str, list[ExcludedFile]] = {}
    for file in corpus.excluded:
        by_reason.setdefault(file.reason, []).append(file)
    silent = by_reason.get("speaker without usable audio", ())
    speakers = {*corpus.speakers, *(file.detail for file in silent)}
    for reason, files in sorted(by_reason.items()):
        if not _is_failure(files[0]):
            source.left_out[reason] = len(files)
            continue
        for file in files:
            relative = os.path.relpath(file.path, source.root)
            whose = [part for part in Path(relative).parts[:-1] if part in speakers]
            text = reason + (f" ({file.detail})" if file.detail else "")
            source.failures.append(FailedFile(relative, text, whose[0] if whose else None))


def _is_failure(file: ExcludedFile) -> bool:
    is_shard = file.path.endswith((".tar", ".parquet"))
    if is_shard or file.reason in ("broken link", "listed but not there"):
        return True
    if os.path.isdir(file.path):
        return False
    try:
        read_info(file.path)
    except AudioError as error:
        return error.reason == file.reason
    return False


def leave_out_by_length(source: Source, options: ExportOptions) -> None:
    """Takes utterances out that are shorter or longer than the user wants.

    Raises:
        UserError: none is left.
    """
    longest = options.max_seconds if options.max_seconds is not None else float("inf")
    kept = []
    for item in source.items:
        seconds = item.utterance.seconds
        if seconds < options.min_seconds:
            reason = f"shorter than {options.min_seconds:g} s"
        elif seconds > longest:
            reason = f"longer than {longest:g} s"
        else:
            kept.append(item)
            continue
        source.left_out[reason] = source.left_out.get(reason, 0) + 1
        source.unwanted.append(item)
    if source.items and not kept:
        lengths = [item.utterance.seconds for item in source.items]
        raise UserError(
            f"No utterance of {source.root} is between {options.min_seconds:g} and {longest:g} s: "
            f"they have {min(lengths):.2f} to {max(lengths):.2f} s. Change --min_seconds or "
            "--max_seconds."
        )
    source.items = kept
