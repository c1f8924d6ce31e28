"""SpeechT5: a dataset of 512-dimensional x-vectors."""

from __future__ import annotations

from pathlib import Path

from speaker_encoder.errors import UserError
from speaker_encoder.export.formats.format import EmbeddingTable, TableFormat
from speaker_encoder.export.formats.parquet import write_parquet
from speaker_encoder.export.names import flat_id

XVECTOR_DIM = 512


class SpeechT5(TableFormat):
    """``validation.parquet`` with ``filename`` and ``xvector``, as ``cmu-arctic-xvectors`` has."""

    users = "SpeechT5 (speaker_embeddings=torch.tensor(row['xvector'])[None])"

    def check(self, embedding_dim: int) -> None:
        """Refuses all but 512 dimensions.

        Raises:
            UserError: the model has others.
        """
        if embedding_dim != XVECTOR_DIM:
            raise UserError(
                f"SpeechT5 takes {XVECTOR_DIM}-dimensional x-vectors; this encoder gives "
                f"{embedding_dim} dimensions. Take wavlm-base-plus-sv or another encoder with "
                f"{XVECTOR_DIM}, or leave --format speecht5 out."
            )

    def write(self, table: EmbeddingTable, folder: Path, final_folder: Path) -> None:
        """Writes the table; ``load_dataset(folder, split="validation")`` reads it."""
        write_parquet(
            folder / "validation.parquet",
            [{"filename": flat_id(row.utterance_id)} for row in table.rows],
            "xvector",
            table.vectors(),
            table.embedding_dim,
        )
