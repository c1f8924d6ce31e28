"""What a layout does: it says whose recording a file is, from where it lies."""

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, NamedTuple

from speaker_encoder.audio import AudioInfo
from speaker_encoder.corpora.records import ExcludedFile
from speaker_encoder.corpora.tree import Folder, Tree, walk


@dataclass(frozen=True)
class ScanRequest:
    """What is to be scanned.

    Attributes:
        root: an existing folder.
        list_path: the list of a corpus given as one.
        multi_rec_session: whether the user says that speakers have session folders.
        address: of shards, where the corpus is no folder.
        cache_dir: where scans are remembered; None is the user's cache folder.
        use_cache: False reads all anew.
        show_progress: a progress bar on stderr; None shows it on a terminal only.
    """

    root: str
    list_path: str | None = None
    multi_rec_session: bool = False
    address: str | None = None
    cache_dir: str | os.PathLike[str] | None = None
    use_cache: bool = True
    show_progress: bool | None = None

    @cached_property
    def tree(self) -> Tree:
        """Everything below the root, walked once, when it is first needed."""
        return walk(self.root)


class Candidate(NamedTuple):
    """An audio file with its speaker, its header not read yet."""

    utterance_id: str
    speaker_id: str
    session_id: str | None
    path: str
    size: int
    mtime_ns: int


@dataclass(slots=True)
class Collected:
    """What a layout found.

    Attributes:
        candidates: the audio files that have a speaker.
        excluded: the audio files that were left out.
        ignored: kind -> number of files that are not audio at all.
        speaker_paths: speaker -> its first folder, also where there is no audio in it.
        infos: path -> header, where the layout knows it already.
    """

    candidates: list[Candidate] = field(default_factory=list)
    excluded: list[ExcludedFile] = field(default_factory=list)
    ignored: Mapping[str, int] = field(default_factory=Counter)
    speaker_paths: dict[str, str] = field(default_factory=dict)
    infos: dict[str, AudioInfo] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Whose recordings lie in a folder."""

    speaker_id: str
    session_id: str | None = None


class Layout(ABC):
    """One way in which corpora lie on disk.

    Attributes:
        pattern: the layout in words, for messages: ``speaker/file``.
    """

    pattern: ClassVar[str]

    def __init__(self, request: ScanRequest) -> None:
        self.request = request

    @classmethod
    def recognises(cls, request: ScanRequest) -> bool:
        """Whether what lies at the root is surely of this layout."""
        return False

    @abstractmethod
    def collect(self) -> Collected:
        """All audio files with their speakers; reads no headers."""


class FolderLayout(Layout):
    """A layout in which the folder of a file says whose it is."""

    @abstractmethod
    def place(self, parts: tuple[str, ...]) -> Place | str:
        """Whose recordings lie in a folder, or why none of anybody.

        Args:
            parts: the folder's names below the root.

        Returns:
            The place, or the reason for leaving out the audio files directly in that folder.
        """

    def speaker_of(self, parts: tuple[str, ...]) -> str | None:
        """The speaker whose own folder this is, or None."""
        place = self.place(parts)
        return place.speaker_id if isinstance(place, Place) else None

    def leave_out(self, names: Sequence[str]) -> dict[str, str]:
        """The names of one folder that are not taken, each with the reason."""
        return {}

    def collect(self) -> Collected:
        """All audio files with their speakers; reads no headers."""
        tree = self.request.tree
        collected = Collected(excluded=list(tree.excluded), ignored=tree.ignored)
        for folder in tree.folders:
            speaker_id = self.speaker_of(folder.parts)
            if speaker_id is not None:
                collected.speaker_paths.setdefault(speaker_id, folder.path)
            if folder.files:
                self._collect_folder(folder, collected)
        return collected

    def _collect_folder(self, folder: Folder, collected: Collected) -> None:
        place = self.place(folder.parts)
        if isinstance(place, str):
            collected.excluded += [
                ExcludedFile(f"{folder.path}/{file.name}", place) for file in folder.files
            ]
            return
        left_out = self.leave_out([file.name for file in folder.files])
        prefix = "/".join(folder.parts)
        for file in folder.files:
            path = f"{folder.path}/{file.name}"
            if file.name in left_out:
                collected.excluded.append(ExcludedFile(path, left_out[file.name]))
                continue
            collected.candidates.append(
                Candidate(
                    f"{prefix}/{os.path.splitext(file.name)[0]}",
                    place.speaker_id,
                    place.session_id,
                    path,
                    file.size,
                    file.mtime_ns,
                )
            )


class ShardLayout(Layout):
    """A layout whose recordings lie in a few large files, which say whose they are.

    Attributes:
        suffix: of these files.
    """

    suffix: ClassVar[str]

    def collect(self) -> Collected:
        """All recordings with their speakers and lengths.

        Raises:
            UserError: there are no shards, or one cannot be read or says no speakers.
        """
        from speaker_encoder.corpora.shards import collect_shards

        request = self.request
        return collect_shards(
            request.address or request.root,
            self.suffix,
            cache_dir=request.cache_dir,
            use_cache=request.use_cache,
            show_progress=request.show_progress,
        )
