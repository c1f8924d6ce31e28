"""A Hugging Face dataset on disk with columns of audio and speakers."""

from __future__ import annotations

import contextlib
import os
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speaker_encoder.audio import AudioError, read_info
from speaker_encoder.corpora import Utterance
from speaker_encoder.corpora.shards.parquet_index import SPEAKER_COLUMNS
from speaker_encoder.errors import UserError
from speaker_encoder.export.names import parts_of, safe_name, safe_path
from speaker_encoder.export.options import ExportOptions
from speaker_encoder.export.source import FailedFile, Item, Source, parquet_files

ID_COLUMNS = ("utterance_id", "id", "file", "path", "segment_id")


@dataclass
class HuggingFaceSource(Source):
    """Rows of a dataset; audio that is stored in it is put into a temporary file to be read.

    Attributes:
        rows: the dataset, its audio not decoded.
        audio_column: where the audio is.
        row_of: utterance id -> row in ``rows``.
    """

    rows: Any = None
    audio_column: str = "audio"
    row_of: dict[str, int] = field(default_factory=dict)

    @contextlib.contextmanager
    def audio_path(self, index: int) -> Iterator[str]:
        """A path at which the audio of an item can be read."""
        row = self.row_of[self.items[index].utterance.utterance_id]
        with _as_file(self.rows[row][self.audio_column]) as path:
            yield path

    def utterance_stem(self, item: Item, output_dir: Path | None) -> Path:
        """Where an utterance's file goes, without its suffix: into its speaker's folder."""
        assert output_dir is not None
        parts = parts_of(item.utterance.utterance_id)
        return output_dir / safe_name(item.utterance.speaker_id) / safe_path(parts)

    def speaker_stem(self, speaker_id: str, first: Item, output_dir: Path | None) -> Path:
        """Where a speaker's file goes, without its suffix."""
        assert output_dir is not None
        return output_dir / safe_name(speaker_id) / safe_name(speaker_id)


def open_huggingface(options: ExportOptions) -> HuggingFaceSource:
    """Finds the utterances of a dataset that ``save_to_disk`` wrote, or of parquet files.

    Raises:
        UserError: there is none, it lacks a column, or no output folder is given.
    """
    if options.output_dir is None:
        raise UserError(
            "The audio of a Hugging Face dataset lies in its tables: there is no folder to write "
            "embeddings beside it. Give --output_dir."
        )
    rows, audio_column, speaker_column, id_column = _open_table(options.dataset_dir)
    items, failures = [], []
    row_of: dict[str, int] = {}
    taken: set[str] = set()
    for number, row in enumerate(rows):
        speaker_id = str(row[speaker_column])
        utterance_id = _utterance_id(row, audio_column, id_column, number)
        if utterance_id in taken:
            utterance_id = f"{utterance_id}-{number}"
        taken.add(utterance_id)
        item = _read_row(row[audio_column], utterance_id, speaker_id)
        if isinstance(item, Item):
            items.append(item)
            row_of[utterance_id] = number
        else:
            failures.append(item)
    items.sort(key=lambda item: item.utterance.utterance_id)
    label = "huggingface" if options.dataset_name == "auto" else options.dataset_name
    if not items:
        shown = "; ".join(f"{f.path}: {f.reason}" for f in failures[:3]) or "it has no rows"
        raise UserError(f"No usable recording in {options.dataset_dir}: {shown}.")
    return HuggingFaceSource(
        root=Path(options.dataset_dir),
        layout="huggingface",
        label=label,
        items=items,
        failures=failures,
        rows=rows,
        audio_column=audio_column,
        row_of=row_of,
    )


def _open_table(folder: str) -> tuple[Any, str, str, str | None]:
    """The dataset with its audio not decoded, and the names of its columns."""
    import datasets

    tables = [str(path) for path in parquet_files(Path(folder))]
    try:
        rows = datasets.Dataset.from_parquet(tables) if tables else datasets.load_from_disk(folder)
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetGenerationError) as error:
        raise UserError(
            f"{folder} is no Hugging Face dataset on disk: {error}. Wanted a folder that "
            "Dataset.save_to_disk wrote, or one with parquet files."
        ) from error
    if isinstance(rows, datasets.DatasetDict):
        names = list(rows)
        rows = datasets.concatenate_datasets([rows[name] for name in names])
    columns = rows.column_names
    audio = [n for n in columns if isinstance(rows.features[n], datasets.Audio)] or [
        name for name in columns if name == "audio"
    ]
    speakers = [name for name in SPEAKER_COLUMNS if name in columns]
    if not audio or not speakers:
        raise UserError(
            f"The dataset {folder} needs a column of audio and one of speakers, named "
            f"{', '.join(SPEAKER_COLUMNS)}; it has {', '.join(columns)}. Rename them."
        )
    ids = [name for name in ID_COLUMNS if name in columns]
    if isinstance(rows.features[audio[0]], datasets.Audio):
        rows = rows.cast_column(audio[0], datasets.Audio(decode=False))
    wanted = [audio[0], speakers[0], *ids[:1]]
    return rows.select_columns(wanted), audio[0], speakers[0], ids[0] if ids else None


def _utterance_id(
    row: dict[str, Any], audio_column: str, id_column: str | None, number: int
) -> str:
    audio = row[audio_column]
    path = audio if isinstance(audio, str) else audio.get("path")
    text = row[id_column] if id_column and row[id_column] else None
    if text is None:
        text = os.path.basename(path) if path else f"{number:08d}"
    text = str(text)
    stem, extension = os.path.splitext(os.path.basename(text))
    return stem if extension and len(extension) <= 5 else os.path.basename(text) or f"{number:08d}"


def _read_row(audio: Any, utterance_id: str, speaker_id: str) -> Item | FailedFile:
    try:
        with _as_file(audio) as path:
            info = read_info(path)
            size, time = os.path.getsize(path), os.stat(path).st_mtime_ns
    except AudioError as error:
        detail = f" ({error.detail})" if error.detail else ""
        return FailedFile(utterance_id, error.reason + detail, speaker_id, utterance_id)
    if not isinstance(audio, str) and audio.get("bytes"):
        time = zlib.crc32(audio["bytes"])
    utterance = Utterance(
        utterance_id, speaker_id, None, utterance_id, info.num_samples, info.sampling_rate
    )
    return Item(utterance, utterance_id, size, time)


@contextlib.contextmanager
def _as_file(audio: Any) -> Iterator[str]:
    """A path of the audio of a row: of the file it names, or of a temporary one."""
    if isinstance(audio, str):
        yield audio
        return
    content, path = audio.get("bytes"), audio.get("path") or ""
    if content is None:
        yield path
        return
    suffix = os.path.splitext(path)[1] or _suffix_of(content)
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        file.write(content)
        file.flush()
        yield file.name


def _suffix_of(content: bytes) -> str:
    """The extension of audio that comes without a name."""
    for start, suffix in ((b"fLaC", ".flac"), (b"OggS", ".ogg"), (b"ID3", ".mp3")):
        if content.startswith(start):
            return suffix
    return ".wav" if content.startswith(b"RIFF") else ".m4a"
