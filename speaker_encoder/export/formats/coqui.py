"""Coqui TTS: ``speakers.pth`` as its ``compute_embeddings.py`` makes it."""

from __future__ import annotations

from pathlib import Path

from speaker_encoder.export.formats.format import EmbeddingTable, TableFormat
from speaker_encoder.export.streamed_pickle import save_dict


class Coqui(TableFormat):
    """A dict ``{"<dataset>#<path>": {"name": speaker, "embedding": [floats]}}``.

    The path is that of the audio below the corpus without its extension, so that no two keys
    collide; the dataset is ``dataset_name`` as it stands in Coqui's config.
    """

    users = "Coqui TTS: VITS, YourTTS (d_vector_file)"

    def write(self, table: EmbeddingTable, folder: Path, final_folder: Path) -> None:
        """Writes the file."""
        pairs = (
            (
                f"{table.corpus_label}#{row.utterance_id}",
                {"name": row.speaker_id, "embedding": vector.tolist()},
            )
            for row, vector in zip(table.rows, table.vectors(), strict=True)
        )
        save_dict(pairs, folder / "speakers.pth")
