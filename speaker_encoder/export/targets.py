"""Where the files of an export go."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from speaker_encoder.errors import UserError
from speaker_encoder.export.files import check_writable, clear_parts
from speaker_encoder.export.formats import FORMATS, FileFormat
from speaker_encoder.export.source import Item, Source

STORE_NAME = ".embeddings"


@dataclass(frozen=True)
class Targets:
    """The paths of one export.

    Attributes:
        source: the corpus.
        output_dir: None: beside the audio.
        tag: the model's name in file names.
        formats: names of ``FORMATS``.
    """

    source: Source
    output_dir: Path | None
    tag: str
    formats: tuple[str, ...]

    @property
    def root(self) -> Path:
        """Where manifest, report and tables lie."""
        return self.source.root if self.output_dir is None else self.output_dir

    @property
    def work_dir(self) -> Path:
        """Holds the lock and the stores of all models."""
        return self.root / STORE_NAME

    @property
    def store_dir(self) -> Path:
        """Holds this model's embeddings while and after they are computed."""
        return self.work_dir / self.tag

    @property
    def report_path(self) -> Path:
        """Where the report lies unless the user says so."""
        return self.root / f"{self.tag}_embeddings.report.json"

    def table_dir(self, name: str) -> Path:
        """The folder of a format that holds all embeddings together."""
        return self.root / f"{self.tag}_{name}"

    @property
    def file_formats(self) -> list[FileFormat]:
        """The formats with a file for each utterance."""
        chosen = (FORMATS[name] for name in self.formats)
        return [found for found in chosen if isinstance(found, FileFormat)]

    def stem(self, item: Item) -> Path:
        """What the files of an utterance have in common."""
        return self.source.utterance_stem(item, self.output_dir)

    def utterance_path(self, item: Item, form: FileFormat) -> Path:
        """The file of an utterance."""
        stem = self.stem(item)
        return stem.with_name(f"{stem.name}.{self.tag}_embedding{form.extension}")

    def speaker_path(self, speaker_id: str, first: Item, form: FileFormat) -> Path:
        """The file of a speaker; ``first`` is the first of its utterances."""
        stem = self.source.speaker_stem(speaker_id, first, self.output_dir)
        return stem.with_name(f"{stem.name}.{self.tag}_averaged_embedding{form.extension}")

    def check_writable(self) -> None:
        """Checks every folder that files go to, and clears what a killed export left there.

        Raises:
            UserError: one cannot be written to.
        """
        what = "the dataset folder" if self.output_dir is None else "the output folder"
        check_writable(self.root, what)
        check_writable(self.work_dir, what)
        clear_parts(self.root)
        if not self.file_formats:
            return
        folders = {
            os.path.dirname(self.source.utterance_stem(item, self.output_dir))
            for item in self.source.items
        }
        for folder in sorted(folders):
            if os.path.isdir(folder):
                if not os.access(folder, os.W_OK | os.X_OK):
                    check_writable(Path(folder), what)
                clear_parts(Path(folder))

    def refuse_foreign(self) -> None:
        """Checks that no embeddings lie there that no manifest describes.

        Raises:
            UserError: there are some.
        """
        found = [
            path
            for item in self.source.items
            for form in self.file_formats
            if (path := self.utterance_path(item, form)).exists()
        ]
        if found:
            raise UserError(
                f"{len(found)} {self.tag} embeddings are there already, such as {found[0]}, and no "
                "manifest says what they were made with. Give --overwrite to replace them, or "
                "--output_dir to write elsewhere."
            )
