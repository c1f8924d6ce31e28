"""CosyVoice: ``utt2embedding.pt`` and ``spk2embedding.pt`` of a data folder."""

from __future__ import annotations

from pathlib import Path

from speaker_encoder.export.formats.format import EmbeddingTable, TableFormat
from speaker_encoder.export.streamed_pickle import save_dict


class CosyVoice(TableFormat):
    """Two dicts: utterance -> list of floats, speaker -> list of floats."""

    users = "CosyVoice (tools/make_parquet_list.py)"

    def write(self, table: EmbeddingTable, folder: Path, final_folder: Path) -> None:
        """Writes the two files; an utterance's key is its file name where all of these differ."""
        vectors = zip(table.short_ids, table.vectors(), strict=True)
        pairs = ((key, vector.tolist()) for key, vector in vectors)
        save_dict(pairs, folder / "utt2embedding.pt")
        means = ((speaker, vector.tolist()) for speaker, vector in table.speakers.items())
        save_dict(means, folder / "spk2embedding.pt")
