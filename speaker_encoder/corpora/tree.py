"""Walks a corpus folder once: every folder with its audio files, and what else lies there."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from speaker_encoder.audio import AUDIO_EXTENSIONS
from speaker_encoder.corpora.records import ExcludedFile

# Deeper than any corpus; ends walks through folders that link to each other.
MAX_DEPTH = 12


class AudioFile(NamedTuple):
    """An audio file as the file system knows it; the two numbers tell when it changed."""

    name: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder with the audio files directly in it.

    Attributes:
        path: of the folder.
        parts: the names from the root to it; empty for the root.
        files: sorted by name.
    """

    path: str
    parts: tuple[str, ...]
    files: list[AudioFile]


@dataclass(slots=True)
class Tree:
    """All folders below a root, sorted, the root first, and what was left out on the way."""

    folders: list[Folder] = field(default_factory=list)
    excluded: list[ExcludedFile] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)

    def audio_folders(self) -> Iterator[Folder]:
        """The folders with audio files directly in them."""
        return (folder for folder in self.folders if folder.files)


def walk(root: str) -> Tree:
    """Everything below ``root``; links to folders are followed, loops of links are not."""
    tree = Tree()
    _visit(root, (), (), tree)
    tree.folders.sort(key=lambda folder: folder.parts)
    return tree


def _visit(
    path: str, parts: tuple[str, ...], ancestors: tuple[tuple[int, int], ...], tree: Tree
) -> None:
    try:
        status = os.stat(path)
        entries = os.scandir(path)
    except OSError as error:
        tree.excluded.append(ExcludedFile(path, "folder that cannot be read", str(error.strerror)))
        return
    identity = (status.st_dev, status.st_ino)
    if identity in ancestors:
        tree.excluded.append(ExcludedFile(path, "link to a folder around it"))
        return
    if len(parts) > MAX_DEPTH:
        tree.excluded.append(ExcludedFile(path, f"folder more than {MAX_DEPTH} levels deep"))
        return
    files: list[AudioFile] = []
    subfolders: list[str] = []
    with entries:
        for entry in entries:
            if entry.is_dir():
                subfolders.append(entry.name)
            else:
                _add_file(entry, files, tree)
    files.sort(key=lambda file: file.name)
    tree.folders.append(Folder(path, parts, files))
    for name in sorted(subfolders):
        if name.startswith("."):
            tree.ignored["hidden folder"] += 1
        elif os.path.splitext(name)[1].lower() in AUDIO_EXTENSIONS:
            tree.excluded.append(ExcludedFile(f"{path}/{name}", "a folder, not a file"))
        else:
            _visit(f"{path}/{name}", (*parts, name), (*ancestors, identity), tree)


def _add_file(entry: "os.DirEntry[str]", files: list[AudioFile], tree: Tree) -> None:
    name = entry.name
    extension = os.path.splitext(name)[1].lower()
    if extension not in AUDIO_EXTENSIONS:
        if name.startswith("."):
            tree.ignored["hidden file"] += 1
        elif extension.endswith("_embedding"):
            tree.ignored["embedding file"] += 1
        else:
            tree.ignored[f"{extension} file" if extension else "file without extension"] += 1
        return
    if name.startswith("."):
        tree.excluded.append(ExcludedFile(entry.path, "hidden file"))
        return
    try:
        status = entry.stat()
    except OSError:
        tree.excluded.append(ExcludedFile(entry.path, "broken link"))
        return
    files.append(AudioFile(name, status.st_size, status.st_mtime_ns))
