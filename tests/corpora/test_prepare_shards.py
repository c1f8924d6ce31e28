"""Shards that `prepare` writes: of files and of shards, resumed, and mixed."""

import os

import numpy as np
import pytest
import soundfile
from shard_files import write_parquet, write_tars

from speaker_encoder.audio import read_audio
from speaker_encoder.cli.main import main
from speaker_encoder.corpora import scan


@pytest.fixture(scope="module")
def readers(data_dir):
    return scan(data_dir / "voxceleb" / "wav", use_cache=False).utterances[:20]


def test_prepare_writes_shards_that_webdataset_reads(data_dir, tmp_path, capsys):
    import webdataset

    corpus = scan(data_dir / "libritts", use_cache=False)
    command = ["prepare", "folders", "--archives", str(data_dir / "libritts"), "--shard_size", "2"]
    command += ["--output_dir", str(tmp_path / "out"), "--shards", str(tmp_path / "shards")]
    assert main(command) == 0
    files = sorted((tmp_path / "shards").iterdir())
    written = {path: path.read_bytes() for path in files if path.suffix == ".tar"}
    assert [path.name for path in files if path not in written] == [
        f"{number:06d}.tar.index.json" for number in range(3)
    ]
    assert "shards: 3 shards" in capsys.readouterr().out
    first, second = list(written)[:2]
    first.unlink()  # killed and started again: what is there stays
    second_time = second.stat().st_mtime_ns
    assert main(command) == 0
    assert {path: path.read_bytes() for path in written} == written
    assert second.stat().st_mtime_ns == second_time
    again = scan(tmp_path / "shards", use_cache=False)

    def facts(rows):
        return {(r.utterance_id, r.speaker_id, r.session_id, r.num_samples) for r in rows}

    assert facts(again.utterances) == facts(corpus.utterances)
    samples = webdataset.WebDataset([str(path) for path in written], shardshuffle=False)
    keys = [sample["__key__"] for sample in samples]
    assert scan(tmp_path / "shards", cache_dir=tmp_path / "cache") == again  # of the indexes
    assert sorted(keys) == sorted(row.utterance_id for row in corpus.utterances)
    assert keys != sorted(keys)
    command[command.index("2")] = "100"
    assert main(command) == 2
    assert "holds other shards (000001.tar" in capsys.readouterr().err


def write_mixed(archives, out):
    command = ["prepare", "folders", "--archives", str(archives), "--shard_size", "0.4"]
    command += ["--output_dir", str(out), "--shards", str(out / "shards")]
    assert main(command) == 0
    return scan(out / "shards", use_cache=False)


@pytest.mark.parametrize("write", [write_tars, write_parquet])
def test_prepare_writes_shards_of_shards(readers, tmp_path, write):
    source = write(tmp_path / "source", readers, 8)
    wanted = scan(source, use_cache=False).utterances
    pattern = source / f"*{next(source.iterdir()).suffix}"
    for number, archives in enumerate((source, pattern)):
        rows = write_mixed(archives, tmp_path / str(number)).utterances
        assert len(list((tmp_path / str(number) / "shards").glob("*.tar"))) > 1
        for row, own in zip(rows, wanted, strict=True):
            assert row.utterance_id == own.utterance_id
            assert (row.speaker_id, row.session_id) == (own.speaker_id, own.session_id)
            assert np.array_equal(read_audio(row.path, 16000), read_audio(own.path, 16000))
        listed = scan(source, list_path=tmp_path / str(number) / "lists/folders.txt")
        assert len(listed.utterances) == len(rows)


def test_shards_are_not_written_over_themselves(readers, tmp_path, capsys):
    source = write_tars(tmp_path / "source", readers, 8)
    before = {path: path.read_bytes() for path in source.iterdir()}
    command = ["prepare", "folders", "--archives", str(source), "--output_dir", str(tmp_path / "o")]
    assert main([*command, "--shards", str(source)]) == 2
    assert "holds the shards of the corpus itself" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in source.iterdir()} == before


def test_prepare_writes_a_shard_anew_where_a_recording_changed(tmp_path):
    for speaker in ("ann", "bob"):
        (tmp_path / "in" / speaker).mkdir(parents=True)
        for number in range(3):
            soundfile.write(tmp_path / "in" / speaker / f"{number}.wav", np.ones(800) / 4, 16000)
    write_mixed(tmp_path / "in", tmp_path / "out")
    changed = tmp_path / "in" / "bob" / "1.wav"
    soundfile.write(changed, np.ones(800) / 8, 16000)
    os.utime(changed, (1_700_000_000, 1_700_000_000))  # a copy that kept its old time
    rows = write_mixed(tmp_path / "in", tmp_path / "out").utterances
    assert [read_audio(row.path, 16000).max() for row in rows] == [0.25] * 4 + [0.125] + [0.25]


def test_shards_keep_names_with_dots(tmp_path):
    names = ("v1.0/a.1.wav", "v1.0/a.b.c.wav", "bob/.x.wav", "bob/plain.wav")
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "in" / name, np.ones(800) / 4, 16000)
    ids = [row.utterance_id for row in scan(tmp_path / "in", use_cache=False).utterances]
    rows = write_mixed(tmp_path / "in", tmp_path / "out").utterances
    assert [row.utterance_id for row in rows] == ids
    assert {"v1.0/a.1", "v1.0/a.b.c", "bob/plain"} <= set(ids)
    again = write_mixed(tmp_path / "out" / "shards", tmp_path / "again").utterances
    assert [row.utterance_id for row in again] == ids
