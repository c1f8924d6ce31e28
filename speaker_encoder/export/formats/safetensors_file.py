"""One safetensors file: all utterances, all speakers, and the ids of both."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from speaker_encoder.export.formats.format import EmbeddingTable, TableFormat


class Safetensors(TableFormat):
    """``embeddings.safetensors`` with tensors ``utterances`` (N, D) and ``speakers`` (S, D).

    Its metadata has one text, ``ids``: a JSON object with lists in the order of the rows:
    ``utterance_ids``, ``speaker_of_utterance`` and ``speaker_ids``.
    """

    users = "own code; no pickle, one file, memory-mapped"

    def write(self, table: EmbeddingTable, folder: Path, final_folder: Path) -> None:
        """Writes the file."""
        from safetensors.numpy import save_file

        utterances = np.empty((len(table.rows), table.embedding_dim), dtype=np.float32)
        for number, vector in enumerate(table.vectors()):
            utterances[number] = vector
        speakers = np.empty((len(table.speakers), table.embedding_dim), dtype=np.float32)
        for number, vector in enumerate(table.speakers.values()):
            speakers[number] = vector
        ids = {
            "utterance_ids": [row.utterance_id for row in table.rows],
            "speaker_of_utterance": [row.speaker_id for row in table.rows],
            "speaker_ids": list(table.speakers),
        }
        save_file(
            {"utterances": utterances, "speakers": speakers},
            folder / "embeddings.safetensors",
            # One text alone: safetensors writes several in an order of chance.
            metadata={"ids": json.dumps(ids)},
        )
