"""Kaldi archives, as ESPnet's TTS recipes read them."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.export.formats.format import EmbeddingTable, TableFormat


class Kaldi(TableFormat):
    """``xvector.ark``/``.scp`` by utterance, ``spk_xvector.ark``/``.scp`` by speaker, ``utt2spk``.

    Keys have no white space: the file name of an utterance where all differ, else its path.
    """

    users = "ESPnet TTS, Kaldi"

    def write(self, table: EmbeddingTable, folder: Path, final_folder: Path) -> None:
        """Writes the archives; an scp names its archive by its absolute path."""
        order = sorted(range(len(table.rows)), key=lambda number: table.short_ids[number])
        keys = [table.short_ids[number] for number in order]
        vectors = (table.vector(table.rows[number].utterance_id) for number in order)
        _write_archive(folder, final_folder, "xvector", keys, vectors)
        words = sorted((word, speaker) for speaker, word in table.speaker_words.items())
        _write_archive(
            folder,
            final_folder,
            "spk_xvector",
            [word for word, _ in words],
            (table.speakers[speaker] for _, speaker in words),
        )
        lines = [
            f"{key} {table.speaker_words[table.rows[number].speaker_id]}\n"
            for key, number in zip(keys, order, strict=True)
        ]
        (folder / "utt2spk").write_text("".join(lines), encoding="utf-8")


def _write_archive(
    folder: Path,
    final_folder: Path,
    name: str,
    keys: list[str],
    vectors: Iterable[NDArray[np.float32]],
) -> None:
    """Writes float vectors in Kaldi's binary form, and where each of them starts."""
    archive = final_folder.absolute() / f"{name}.ark"
    position = 0
    with (
        open(folder / f"{name}.ark", "wb") as ark,
        open(folder / f"{name}.scp", "w", encoding="utf-8") as scp,
    ):
        for key, vector in zip(keys, vectors, strict=True):
            head = key.encode("utf-8") + b" "
            body = b"\0BFV \4" + struct.pack("<i", len(vector)) + vector.astype("<f4").tobytes()
            scp.write(f"{key} {archive}:{position + len(head)}\n")
            ark.write(head + body)
            position += len(head) + len(body)
