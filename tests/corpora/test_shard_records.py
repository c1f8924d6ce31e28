"""Recordings in shards: bad ones, those that change, in threads, and in lists."""

import io
import json
import os
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from shard_files import flac, left_out, write_parquet, write_tar, write_tars

from speaker_encoder.audio import read_audio, row_groups
from speaker_encoder.audio.member import find_member
from speaker_encoder.corpora import scan
from speaker_encoder.errors import UserError


@pytest.fixture(scope="module")
def readers(data_dir):
    return scan(data_dir / "voxceleb" / "wav", use_cache=False).utterances[:20]


def test_a_folder_that_is_called_as_a_recording_in_a_shard(readers, tmp_path):
    folder = tmp_path / "y.tar#1+2"
    folder.mkdir()
    path = folder / "a.wav"
    path.write_bytes(Path(readers[0].path).read_bytes())
    assert find_member(path) is None
    assert np.array_equal(read_audio(path, 16000), read_audio(readers[0].path, 16000))


def test_a_replaced_parquet_file_is_read_anew(readers, tmp_path):
    folder = write_parquet(tmp_path, readers[:4])
    path = scan(folder, use_cache=False).utterances[0].path
    assert np.array_equal(read_audio(path, 16000), read_audio(readers[0].path, 16000))
    parts = (path.partition("#")[0], tmp_path / "new")
    write_parquet(parts[1], [readers[number] for number in (3, 2, 1, 0)])
    os.replace(next(parts[1].iterdir()), parts[0])
    assert np.array_equal(read_audio(path, 16000), read_audio(readers[3].path, 16000))


def test_threads_share_row_groups(readers, tmp_path, monkeypatch):
    rows = scan(write_parquet(tmp_path, readers, 20), use_cache=False).utterances * 20
    members = [find_member(row.path) for row in rows]
    decoded = []
    original = row_groups.read_audio_bytes
    monkeypatch.setattr(
        row_groups, "read_audio_bytes", lambda *a: (decoded.append(a[1:]), original(*a))[1]
    )
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(row_groups.read_row, members))
    assert found == [Path(row.path).read_bytes() for row in readers] * 20
    assert len(decoded) == 2  # each of the two groups once
    monkeypatch.setattr(row_groups, "KEPT_BYTES", 1)
    with ThreadPoolExecutor(8) as pool:  # which push each other's groups out
        assert list(pool.map(row_groups.read_row, members[:40])) == found[:40]


def test_one_bad_record_of_a_tar_is_left_out(tmp_path):
    good = [("a.flac", flac()), ("a.spk", b"ann"), ("b.json", b"[" * 200_000), ("b.flac", flac())]
    corpus = scan(write_tar(tmp_path / "x.tar", good), use_cache=False)
    assert [row.utterance_id for row in corpus.utterances] == ["a"]
    assert left_out(corpus) == {"b.flac": "no speaker beside it"}
    headers = [{"GNU.sparse.map": "a,b"}, {"size": "-512"}, {"size": "9" * 30}]
    for header in headers:
        with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
            for name, content in (*good[:2], ("c.flac", flac()), ("c.spk", b"ann")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                member.pax_headers = header if name == "c.flac" else {}
                archive.addfile(member, io.BytesIO(content))
        corpus = scan(tmp_path / "x.tar", use_cache=False)
        assert [row.utterance_id for row in corpus.utterances] == ["a"]
        assert left_out(corpus)["x.tar"] == "truncated or damaged shard"


def test_a_negative_size_in_a_header_of_a_tar_ends_it(tmp_path):
    shard = write_tar(tmp_path / "x.tar", [("a.spk", b"ann"), ("a.flac", flac()), ("b.spk", b"b")])
    content = bytearray(shard.read_bytes())
    place = content.index(b"b.spk")
    content[place + 124 : place + 136] = b"\xff" * 10 + b"\xfe\x00"  # -512: its own header again
    header = content[place : place + 512]
    header[148:156] = b" " * 8
    content[place + 148 : place + 156] = b"%06o\0 " % sum(header)
    shard.write_bytes(content)
    corpus = scan(shard, use_cache=False)
    assert [row.utterance_id for row in corpus.utterances] == ["a"]
    assert "a negative size after 2 members" in corpus.excluded[0].detail


def test_bad_records_of_a_parquet_file(tmp_path):
    import pyarrow
    from pyarrow import parquet

    def scanned(audio, **columns):
        table = pyarrow.table({"audio": audio, "speaker_id": ["ann"] * len(audio), **columns})
        parquet.write_table(table, tmp_path / "x.parquet")
        return scan(tmp_path / "x.parquet", use_cache=False)

    paths = ("a.raw", f"b.{'x' * 200}", f"c.{'x' * 300}", None, "d.FLAC", "e")
    audio = [{"bytes": flac(), "path": path} for path in paths]
    corpus = scanned(audio)
    assert [Path(row.path).name for row in corpus.utterances] == [
        "0000-0003.flac", "a.raw.flac", f"b.{'x' * 200}.flac", "d.FLAC", "e.flac",
    ]  # fmt: skip
    assert [file.reason for file in corpus.excluded] == ["a name longer than that of any file"]
    audio = [{"bytes": flac(), "path": f"{name}.flac"} for name in "abc"]
    corpus = scanned(audio, num_samples=[800, -5, 0], sampling_rate=[16000] * 3)
    assert [row.utterance_id for row in corpus.utterances] == ["a"]
    assert [file.reason for file in corpus.excluded] == ["no audio samples"] * 2
    for lengths in (["800", "x", ""], [1.0, float("nan"), None], [None] * 3):  # as if not there
        corpus = scanned(audio, num_samples=lengths, sampling_rate=[16000] * 3)
        assert [row.num_samples for row in corpus.utterances] == [800] * 3
    for audio in ([{"bytes": [1, 2], "path": "a.wav"}], [{"bytes": flac(), "path": 7}]):
        with pytest.raises(UserError, match="needs a column of audio"):
            scanned(audio)


@pytest.mark.parametrize("write", [write_tars, write_parquet])
def test_a_list_of_shards_keeps_sessions_and_lengths(readers, tmp_path, write, monkeypatch):
    rows = scan(write(tmp_path, readers, 8), use_cache=False).utterances
    lines = [f"new_{row.speaker_id} {os.path.relpath(row.path, tmp_path)}" for row in rows]
    (tmp_path / "all.txt").write_text("\n".join(lines))
    (tmp_path / "mixed.txt").write_text("\n".join([*lines, f"eve {readers[0].path}"]))

    def facts(corpus):
        found = [(r.path, r.speaker_id, r.session_id, r.num_samples) for r in corpus.utterances]
        return sorted(found)

    wanted = [(r.path, f"new_{r.speaker_id}", r.session_id, r.num_samples) for r in rows]
    assert None not in {row.session_id for row in rows}
    mixed = facts(scan(tmp_path, list_path=tmp_path / "mixed.txt", use_cache=False))
    eve = (readers[0].path, "eve", None, readers[0].num_samples)
    assert mixed == sorted([*wanted, eve])
    module = sys.modules["speaker_encoder.corpora.scan"]
    monkeypatch.setattr(module, "read_headers", None)  # nothing else is read
    assert facts(scan(tmp_path, list_path=tmp_path / "all.txt", use_cache=False)) == sorted(wanted)


def test_only_an_id_that_gave_the_name_is_taken(tmp_path):
    texts = {"a_1": "a.1", "b_1": "c.1", "d": "../d", "__": "..", "e": 7}
    members = []
    for key, own in texts.items():
        facts = {"speaker_id": "ann", "utterance_id": own}
        members += [(f"{key}.json", json.dumps(facts).encode()), (f"{key}.flac", flac())]
    corpus = scan(write_tar(tmp_path / "x.tar", members), use_cache=False)
    assert [row.utterance_id for row in corpus.utterances] == ["__", "a.1", "b_1", "d", "e"]
