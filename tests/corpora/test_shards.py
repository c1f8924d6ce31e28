"""Shards: what is taken of them, whose it is, what is left out, and what is refused."""

import gzip
import io
import json
import os
import tarfile
from collections import Counter

import numpy as np
import pytest
import soundfile
from shard_files import flac, left_out, write_parquet, write_tar, write_tars
from trees import make_old

from speaker_encoder.audio import AudioError, read_audio, read_info
from speaker_encoder.audio.member import Member, find_member
from speaker_encoder.corpora import scan
from speaker_encoder.corpora.shards import find_shards
from speaker_encoder.corpora.shards.places import expand_braces
from speaker_encoder.errors import UserError


@pytest.fixture(scope="module")
def readers(data_dir):
    return scan(data_dir / "voxceleb" / "wav", use_cache=False).utterances[:20]


def test_what_webdataset_wrote_and_reads(readers, tmp_path):
    import webdataset

    shards = write_tars(tmp_path, readers, 8)
    corpus = scan(shards, use_cache=False)
    samples = list(webdataset.WebDataset(str(shards / "{000000..000002}.tar"), shardshuffle=False))
    assert corpus.layout == "webdataset"
    assert not corpus.excluded
    rows = {row.utterance_id: row for row in corpus.utterances}
    assert len(samples) == len(rows) == 20
    for sample, reader in zip(samples, readers, strict=True):
        row = rows[sample["__key__"]]
        facts = json.loads(sample["json"])
        assert (row.speaker_id, row.session_id) == (facts["speaker_id"], facts["session_id"])
        assert (row.num_samples, row.sampling_rate) == (reader.num_samples, reader.sampling_rate)
        theirs = soundfile.read(io.BytesIO(sample["wav"]), dtype="float32")[0]
        assert np.array_equal(read_audio(row.path, 16000), theirs)
        ours = read_audio(row.path, 8000, start=900, num_samples=5000)
        assert np.array_equal(ours, read_audio(reader.path, 8000, start=900, num_samples=5000))


def test_what_datasets_wrote(readers, tmp_path):
    of_bytes = scan(write_parquet(tmp_path / "a", readers, 12), use_cache=False)
    of_columns = scan(write_parquet(tmp_path / "b", readers, 12, has_lengths=True), use_cache=False)
    for corpus in (of_bytes, of_columns):
        assert (corpus.layout, len(corpus.utterances)) == ("huggingface", 20)
        for row, reader in zip(corpus.utterances, readers, strict=True):
            wanted = (reader.speaker_id, reader.session_id, reader.num_samples, 16000)
            assert (row.speaker_id, row.session_id, row.num_samples, row.sampling_rate) == wanted
            assert np.array_equal(read_audio(row.path, 16000), read_audio(reader.path, 16000))
    assert find_member(of_bytes.utterances[11].path)[1:3] == (1, 1)  # row groups of 10


def test_lossy_recordings_are_read_through_ffmpeg(readers, tmp_path):
    waveform = read_audio(readers[0].path, 16000)
    for name in ("a.mp3", "a.ogg"):
        soundfile.write(tmp_path / name, waveform, 16000)
        content = (tmp_path / name).read_bytes()
        tar = write_tar(tmp_path / f"{name}.tar", [(name, content), ("a.spk", b"ann\n")])
        (row,) = scan(tar, use_cache=False).utterances
        assert row.num_samples == read_info(tmp_path / name).num_samples
        for start, count in ((0, None), (20_000, 9_000)):
            ours = read_audio(row.path, 16000, start=start, num_samples=count)
            theirs = read_audio(tmp_path / name, 16000, start=start, num_samples=count)
            assert np.array_equal(ours, theirs)


def test_who_speaks(tmp_path):
    sound = flac()
    members = [
        ("a/1.flac", sound), ("a/1.json", b'{"speaker": "ann", "session": 7}'),
        ("a/2.json", b'{"spk": 12, "text": "hello"}'), ("a/2.flac", sound), ("a/2.txt", b"hello"),
        ("3.cls", b"5"), ("3.flac", sound),
        ("4.left.flac", sound), ("4.right.flac", sound), ("4.right.spk", b"eve"), ("4.spk", b"dan"),
        ("5.flac", sound), ("6.flac", sound), ("6.json", b'{"speaker_id": "x/y"}'),
        ("7.flac", sound), ("7.json", b"{broken"), ("8.json", b'{"speaker_id": "zoe"}'),
        ("9.spk", b"ann"), ("9.flac", sound[:-40]), ("9b.spk", b"ann"), ("9b.flac", b""),
    ]  # fmt: skip
    corpus = scan(write_tar(tmp_path / "x.tar", members), use_cache=False)
    found = {row.utterance_id: (row.speaker_id, row.session_id) for row in corpus.utterances}
    assert found == {
        "a/1": ("ann", "7"), "a/2": ("12", None), "3": ("5", None), "4.left": ("dan", None),
        "4.right": ("eve", None),
    }  # fmt: skip
    assert left_out(corpus) == {
        "5.flac": "no speaker beside it",
        "6.flac": "speaker with a path separator",
        "7.flac": "no speaker beside it",
        "9.flac": "truncated",
        "9b.flac": "empty file",
    }
    assert corpus.ignored[".json file"] == 5


def test_names_that_would_leave_a_folder_are_no_names(tmp_path):
    link = tarfile.TarInfo("link.flac")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device = tarfile.TarInfo("device.flac")
    device.type = tarfile.CHRTYPE
    names = ("../up.flac", "/etc/abs.flac", "a/../../up.flac", "good.flac")
    members = [(name, flac()) for name in names]
    members += [(link, b""), (device, b""), ("good.flac", flac(900)), ("good.spk", b"ann")]
    corpus = scan(write_tar(tmp_path / "x.tar", members), use_cache=False)
    assert [(row.utterance_id, row.num_samples) for row in corpus.utterances] == [("good", 800)]
    assert Counter(file.reason for file in corpus.excluded) == {
        "a name that leaves its folder": 3,
        "a link, not a file": 2,
        "a second one of this name": 1,
    }


def test_a_damaged_tar_gives_what_stands_before_the_damage(readers, tmp_path):
    shard = write_tars(tmp_path, readers, 100) / "000000.tar"
    whole = shard.read_bytes()
    rows = [find_member(row.path) for row in scan(shard, use_cache=False).utterances]
    cut = rows[12].first + 1000
    for content in (whole[:cut], whole[: rows[12].first - 512] + b"x" * 100_000):
        shard.write_bytes(content)
        corpus = scan(shard, use_cache=False)
        assert len(corpus.utterances) == 12
        (damage,) = [file for file in corpus.excluded if file.path == str(shard)]
        assert damage.reason == "truncated or damaged shard"
        assert "after 2" in damage.detail and "members, at byte" in damage.detail
    with pytest.raises(AudioError, match="truncated \\(its shard ends before it does"):
        read_audio(rows[15].path, 16000)
    shard.write_bytes(b"no tar at all" * 100)
    with pytest.raises(UserError, match="truncated or damaged shard: 1"):
        scan(shard, use_cache=False)


def test_a_compressed_tar_is_refused(readers, tmp_path):
    shard = write_tars(tmp_path, readers[:2]) / "000000.tar"
    shard.write_bytes(gzip.compress(shard.read_bytes()))
    with pytest.raises(UserError, match=r"is compressed \(gzip\).*gunzip"):
        scan(tmp_path, use_cache=False)


def test_a_damaged_or_strange_parquet_file(readers, tmp_path):
    import pyarrow
    from pyarrow import parquet

    shards = sorted(write_parquet(tmp_path, readers, 10).iterdir())
    shards[1].write_bytes(shards[1].read_bytes()[:-100])
    corpus = scan(tmp_path, use_cache=False)
    assert len(corpus.utterances) == 10
    assert [(f.path, f.reason) for f in corpus.excluded] == [(str(shards[1]), "no parquet file")]
    parquet.write_table(pyarrow.table({"text": ["a"], "speaker_id": ["b"]}), shards[1])
    with pytest.raises(UserError, match=r"needs a column of audio .* it has text, speaker_id"):
        scan(tmp_path, use_cache=False)
    audio = [{"bytes": None, "path": "a.wav"}, {"bytes": flac(), "path": "../b.flac"}]
    table = pyarrow.table({"audio": audio, "speaker_id": ["b", "b"]})
    parquet.write_table(table, shards[1])
    corpus = scan(shards[1], use_cache=False)
    assert [row.utterance_id for row in corpus.utterances] == ["b"]  # of a path, its last part
    assert [file.reason for file in corpus.excluded] == ["no audio in its row"]


def test_the_index_is_remembered_until_a_shard_changes(readers, tmp_path, monkeypatch):
    from speaker_encoder.corpora.shards import index

    shards, cache = write_tars(tmp_path / "shards", readers, 8), tmp_path / "cache"
    make_old(shards)
    first = scan(shards, cache_dir=cache)
    read = []
    original = index.index_tar
    monkeypatch.setattr(index, "index_tar", lambda *a: (read.append(a[1]), original(*a))[1])
    assert scan(shards, cache_dir=cache) == first
    assert read == []
    os.utime(shards / "000001.tar", (1_700_000_001, 1_700_000_001))
    for path in (cache / "shards").iterdir():
        if '"000002' in path.read_text():
            path.write_text("damaged")
    assert scan(shards, cache_dir=cache) == first
    assert read == [str(shards / "000001.tar")]


def test_names_of_shards(tmp_path):
    assert expand_braces("a-{000..002}.tar") == ["a-000.tar", "a-001.tar", "a-002.tar"]
    assert expand_braces("{a,b}/{9..10}.tar") == ["a/9.tar", "a/10.tar", "b/9.tar", "b/10.tar"]
    with pytest.raises(UserError, match="more than 1000000 shards"):
        expand_braces("{0..10000000}.tar")
    with pytest.raises(UserError, match="a server of http does not say which files it has"):
        find_shards("http://127.0.0.1:9/*.tar", ".tar")
    with pytest.raises(UserError, match=r"No shards .*b.tar: no .*tar was found"):
        scan(tmp_path / "*b.tar")
    write_tar(tmp_path / "a.tar", [("1.flac", flac()), ("1.spk", b"ann")])
    (tmp_path / "deep").mkdir()
    write_tar(tmp_path / "deep/b.tar", [("1.flac", flac()), ("1.spk", b"bob")])
    corpus = scan(tmp_path, use_cache=False)  # both call theirs 1
    assert [row.utterance_id for row in corpus.utterances] == ["a/1", "deep/b/1"]
    with pytest.raises(UserError, match="is of shards, not of layout 'vctk'"):
        scan(tmp_path / "a.tar", "vctk")


def test_a_list_of_recordings_in_shards(tmp_path):
    names = ["a.flac", "b.flac", "c.flac"]
    members = [(name, flac()) for name in names] + [(f"{name[0]}.spk", b"ann") for name in names]
    write_tar(tmp_path / "x.tar", members)
    with tarfile.open(tmp_path / "x.tar") as archive:
        rows = [member for member in archive if member.name in ("b.flac", "c.flac")]
    paths = [f"x.tar#{m.offset_data}+{m.size}/{m.name}" for m in rows]
    lines = [f"bob {paths[0]}", f"eve {paths[1]}", "eve gone.tar#0+5/d.flac"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    corpus = scan(tmp_path, list_path=tmp_path / "list.txt", use_cache=False)
    assert [(row.speaker_id, row.num_samples) for row in corpus.utterances] == [
        ("bob", 800), ("eve", 800),
    ]  # fmt: skip
    assert [file.reason for file in corpus.excluded] == ["listed but not there"]
    with pytest.raises(UserError, match="Give the folder of the shards, and in the list"):
        scan(tmp_path / "x.tar", list_path=tmp_path / "list.txt")
    with pytest.raises(UserError, match="A list is of files on this machine: leave it out"):
        scan("http://127.0.0.1:9/x.tar", list_path=tmp_path / "list.txt")


def test_paths_of_recordings_in_shards():
    for path in ("a.tar#1+2/b.flac", "http://h/a.tar#512+9/x/b.wav", "/x/a.parquet#3.4/b.mp3"):
        member = find_member(path)
        assert member.path == path
        assert Member(*member) == member
    for path in ("a.tar", "a#b.wav", "a.tar#1.2/b.flac", "a.parquet#1+2/b.wav", "a.tar#1+2"):
        assert find_member(path) is None
