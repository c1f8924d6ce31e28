"""Files of earlier runs: written anew where they differ, removed where they no longer hold."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.errors import UserError
from speaker_encoder.export.files import write_bytes_atomically
from speaker_encoder.export.formats import FORMATS, FileFormat
from speaker_encoder.export.source import Item
from speaker_encoder.export.store import Store, stored_ids
from speaker_encoder.export.targets import Targets


def rewrite_other(items: Iterable[Item], targets: Targets, store: Store) -> None:
    """Writes the files of embeddings that are there, where they are missing or have other numbers.

    Args:
        items: utterances; those without an embedding are passed over.
        targets: the paths.
        store: what was computed before.
    """
    for item in items:
        if not store.has(item):
            continue
        vector = store.vector(item)
        for form in targets.file_formats:
            path = targets.utterance_path(item, form)
            if not _holds(path, vector):
                write_bytes_atomically(path, form.content(vector))


def _holds(path: Path, vector: NDArray[np.float32]) -> bool:
    """Whether a file is there and has the numbers in it: the rest of it is the form's alone.

    Making the form's own file to compare with it would take five times as long.
    """
    try:
        return vector.astype("<f4").tobytes() in path.read_bytes()
    except FileNotFoundError:
        return False


def remove_former(targets: Targets, entry: dict[str, Any]) -> None:
    """Removes what another model, or other options, made of this corpus under this name.

    That is the files, of any format, of the corpus's utterances that the store has and of their
    speakers, and the tables that the manifest names. Nothing else that lies there is touched.

    Args:
        targets: the paths.
        entry: of the manifest, as the earlier run left it; empty where there is none.

    Raises:
        UserError: a file cannot be removed.
    """
    written = stored_ids(targets.store_dir)
    items = [item for item in targets.source.whole() if item.utterance.utterance_id in written]
    for item in items:
        _remove_utterance(targets, item)
    _remove_speakers(targets, items)
    for name, file_names in entry.get("tables", {}).items():
        if name not in FORMATS:
            continue
        folder = targets.table_dir(name)
        for file_name in file_names:
            _remove(folder / Path(file_name).name)
        with contextlib.suppress(OSError):  # the user's own files lie there too
            folder.rmdir()


def remove_outdated(targets: Targets, store: Store, speakers: Container[str]) -> None:
    """Removes the files of utterances and speakers that had an embedding and have none now.

    Args:
        targets: the paths.
        store: all that was computed, also of audio that has changed since.
        speakers: that have an embedding now.

    Raises:
        UserError: a file cannot be removed.
    """
    known = {utterance_id for utterance_id, _, _ in store.rows}
    items = [item for item in targets.source.whole() if item.utterance.utterance_id in known]
    outdated = [item for item in items if not store.has(item)]
    if outdated:
        held = {targets.stem(item) for item in items if store.has(item)}
        for item in outdated:
            if targets.stem(item) not in held:
                _remove_utterance(targets, item)
    _remove_speakers(targets, [i for i in items if i.utterance.speaker_id not in speakers])


def _remove_utterance(targets: Targets, item: Item) -> None:
    for form in FORMATS.values():
        if isinstance(form, FileFormat):
            _remove(targets.utterance_path(item, form))


def _remove_speakers(targets: Targets, items: Iterable[Item]) -> None:
    """Removes the averages in every folder that may be that of a speaker of some utterances."""
    by_folder = {
        (item.utterance.speaker_id, os.path.dirname(item.utterance.utterance_id)): item
        for item in items
        if item.utterance.speaker_id
    }
    for (speaker_id, _), item in by_folder.items():
        for form in FORMATS.values():
            if isinstance(form, FileFormat):
                _remove(targets.speaker_path(speaker_id, item, form))


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except NotADirectoryError:
        return
    except OSError as error:
        raise UserError(
            f"Cannot remove {path} ({error.strerror}), which no longer holds an embedding of what "
            "is asked for. Remove it, or give another --output_dir."
        ) from error
