"""Embeddings in one file for each utterance, as ``--format pt`` and ``npy`` write them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.export.manifest import read_manifest

SINGLE_FILE = re.compile(r"(?P<stem>.+)\.(?P<tag>[^.]+)_embedding(\.npy)?")
_AVERAGE = "_averaged"


def find_single_files(root: Path) -> dict[str, dict[str, Path]]:
    """Files of one embedding each: model -> utterance id -> file; ``pt`` before ``npy``."""
    pattern = SINGLE_FILE
    if tags := "|".join(map(re.escape, read_manifest(root))):  # a model's name may hold a dot
        pattern = re.compile(rf"(?P<stem>.+)\.(?P<tag>(?:{tags})({_AVERAGE})?)_embedding(\.npy)?")
    found: dict[str, dict[str, Path]] = {}
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            match = pattern.fullmatch(name)
            if match is None or match["tag"].endswith(_AVERAGE):
                continue
            stem = os.path.relpath(os.path.join(folder, match["stem"]), root)
            found.setdefault(match["tag"], {}).setdefault(
                stem.replace(os.sep, "/"), Path(folder) / name
            )
    return found


def read_single_files(
    root: Path, tag: str, files: dict[str, Path]
) -> tuple[list[NDArray[Any]], list[str] | None, list[str] | None]:
    """Reads one file for each utterance.

    Args:
        root: of the export.
        tag: the model.
        files: utterance id -> file.

    Returns:
        The vectors, speakers and audio files in the order of the sorted ids; None for speakers or
        audio where they are not known of all.
    """
    import torch

    from speaker_encoder.audio import AUDIO_EXTENSIONS

    vectors, speakers, audio = [], [], []
    for utterance_id, path in sorted(files.items()):
        if path.suffix == ".npy":
            vectors.append(np.load(path, allow_pickle=False))
        else:
            vectors.append(torch.load(path, map_location="cpu", weights_only=True).numpy())
        speakers.append(_speaker_of(path, root, tag))
        stem = path.parent / utterance_id.rsplit("/", 1)[-1]
        beside = (f"{stem}{extension}" for extension in sorted(AUDIO_EXTENSIONS))
        audio.append(next((name for name in beside if os.path.isfile(name)), None))
    known = [name for name in speakers if name is not None]
    there = [name for name in audio if name is not None]
    return (
        vectors,
        known if len(known) == len(files) else None,
        there if len(there) == len(files) else None,
    )


def _speaker_of(path: Path, root: Path, tag: str) -> str | None:
    """The folder above an utterance's file that holds the average of a speaker of its name."""
    folder = path.parent
    while True:
        for extension in ("", ".npy"):
            if (folder / f"{folder.name}.{tag}{_AVERAGE}_embedding{extension}").is_file():
                return folder.name
        if folder in (root, folder.parent):
            return None
        folder = folder.parent
