"""A Hugging Face dataset in Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.export.formats.format import EmbeddingTable, TableFormat

_ROWS_AT_ONCE = 4096


class Parquet(TableFormat):
    """``utterances.parquet`` (utterance_id, speaker_id, path, embedding) and ``speakers.parquet``.

    ``load_dataset("parquet", data_files=".../utterances.parquet")`` reads them.
    """

    users = "Hugging Face datasets"

    def write(self, table: EmbeddingTable, folder: Path, final_folder: Path) -> None:
        """Writes the two files."""
        texts = [
            {"utterance_id": r.utterance_id, "speaker_id": r.speaker_id, "path": r.relative_path}
            for r in table.rows
        ]
        write_parquet(
            folder / "utterances.parquet", texts, "embedding", table.vectors(), table.embedding_dim
        )
        speakers = [{"speaker_id": speaker} for speaker in table.speakers]
        write_parquet(
            folder / "speakers.parquet",
            speakers,
            "embedding",
            table.speakers.values(),
            table.embedding_dim,
        )


def write_parquet(
    path: Path,
    texts: Sequence[dict[str, str]],
    column: str,
    vectors: Iterable[NDArray[np.float32]],
    embedding_dim: int,
) -> None:
    """Writes a table of texts and vectors that knows its types as a dataset.

    Args:
        path: of the file.
        texts: the other columns of each row; at least one row.
        column: name of the vectors' column.
        vectors: (D,) of each row.
        embedding_dim: D.
    """
    import datasets
    import pyarrow
    import pyarrow.parquet

    features = datasets.Features(
        {
            **{name: datasets.Value("string") for name in texts[0]},
            column: datasets.Sequence(datasets.Value("float32"), length=embedding_dim),
        }
    )
    schema = features.arrow_schema
    remaining = iter(vectors)
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, len(texts), _ROWS_AT_ONCE):
            part = texts[start : start + _ROWS_AT_ONCE]
            matrix = np.stack(list(islice(remaining, len(part))))
            values = pyarrow.array(matrix.reshape(-1), type=pyarrow.float32())
            columns: list[Any] = [
                pyarrow.array([row[name] for row in part], type=pyarrow.string())
                for name in texts[0]
            ]
            columns.append(pyarrow.FixedSizeListArray.from_arrays(values, embedding_dim))
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))
