"""Shards give the embeddings of their files, into an output folder."""

import json

import pytest
from shard_files import write_parquet

from speaker_encoder.corpora import scan
from speaker_encoder.corpora.shards.write import write_shards
from speaker_encoder.errors import UserError


def test_shards_give_the_embeddings_of_their_files(libritts, export, embeddings_of, tmp_path):
    corpus = scan(libritts)
    shards = write_shards(corpus, tmp_path / "shards", 3_000_000)
    export(libritts, output_dir=str(tmp_path / "of_files"))
    expected = embeddings_of(tmp_path / "of_files")
    assert len(expected) == len(corpus.utterances) + 4
    export(tmp_path / "shards" / "*.tar", output_dir=str(tmp_path / "of_shards"))
    assert embeddings_of(tmp_path / "of_shards") == expected
    with pytest.raises(UserError, match=r"audio of shards lies in them.*Give --output_dir"):
        export(tmp_path / "shards")

    shards[-1].write_bytes(shards[-1].read_bytes()[:500_000])
    outcome = export(tmp_path / "shards", output_dir=str(tmp_path / "of_damaged"))
    assert outcome.exit_code == 3
    failures = json.loads(next((tmp_path / "of_damaged").glob("*.report.json")).read_text())
    assert f'"{shards[-1].name}"' in json.dumps(failures)
    assert "truncated or damaged shard" in json.dumps(failures)


def test_parquet_files_of_a_pattern(libritts, export, embeddings_of, tmp_path):
    rows = scan(libritts).utterances[:6]
    write_parquet(tmp_path / "a", rows, 3)
    export(tmp_path / "a" / "train-*.parquet", output_dir=str(tmp_path / "out"))
    assert len(embeddings_of(tmp_path / "out", "*.ecapa_embedding")) == 6
    second = tmp_path / "a" / "train-00001.parquet"
    second.write_bytes(second.read_bytes()[:-50])
    outcome = export(tmp_path / "a" / "train-*.parquet", output_dir=str(tmp_path / "of_damaged"))
    assert outcome.exit_code == 3
    report = next((tmp_path / "of_damaged").glob("*.report.json")).read_text()
    assert "train-00001.parquet" in report and "no parquet file" in report
    assert len(embeddings_of(tmp_path / "of_damaged", "*.ecapa_embedding")) == 3
