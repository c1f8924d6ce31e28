"""Shards behind a URL: read by ranges, again where a connection drops."""

import io
import json
import os
import re
import resource
import signal
import tarfile
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import huggingface_hub
import numpy as np
import pytest
import soundfile
from hub_server import HubServer
from shard_files import write_parquet, write_tars

from speaker_encoder.audio import AudioError, ranges, read_audio, row_groups
from speaker_encoder.audio.member import find_member
from speaker_encoder.corpora import Utterance, scan
from speaker_encoder.corpora.shards.entries import Entry
from speaker_encoder.corpora.shards.index_file import write_index_beside
from speaker_encoder.errors import UserError


class ShardServer(ThreadingHTTPServer):
    """Serves a folder by ranges; the next `num_dropped` answers are cut off in the middle."""

    daemon_threads = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.num_dropped = 0
        self.knows_ranges = True
        self.has_tags = True
        self.surplus = 0  # bytes behind a range
        self.ill = ""  # what it answers with 503
        self.locked = ""  # and with 403
        self.requests = []


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET(has_body=False)

    def do_GET(self, has_body=True):
        path = self.server.folder / urllib.parse.unquote(self.path).lstrip("/")
        if self.server.ill and self.server.ill in self.path:
            self.send_error(503)
            return
        if self.server.locked and self.server.locked in self.path:
            self.send_error(403)
            return
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        self.server.requests.append((self.path, has_body and len(content)))
        self.send_response(206 if asked and self.server.knows_ranges else 200)
        if asked and self.server.knows_ranges:
            content = content[int(asked[1]) : int(asked[2]) + 1 + self.server.surplus]
            self.server.requests[-1] = (self.path, len(content))
        self.send_header("Content-Length", str(len(content)))
        if self.server.has_tags:
            self.send_header("ETag", str(path.stat().st_mtime_ns))
        self.end_headers()
        if has_body and self.server.num_dropped > 0:
            self.server.num_dropped -= 1
            content = content[: len(content) // 2]
            self.close_connection = True
        if has_body:
            self.wfile.write(content)


@pytest.fixture(scope="module")
def served(data_dir, tmp_path_factory):
    readers = scan(data_dir / "voxceleb" / "wav", use_cache=False).utterances[:12]
    folder = tmp_path_factory.mktemp("served")
    write_tars(folder, readers, 6)
    write_parquet(folder / "a", readers, 6)
    write_parquet(folder / "b", readers, 6, has_lengths=True)
    server = ShardServer(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server, readers
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(ranges, "_PAUSES", (0.01, 0.01))


@pytest.mark.parametrize("name", ["{000000..000001}.tar", "a/train-{00000..00001}.parquet"])
def test_shards_of_a_server(served, tmp_path, name):
    server, readers = served
    address = f"{server.url}/{name}"
    corpus = scan(address, cache_dir=tmp_path)
    assert not corpus.excluded
    assert corpus.root == f"{server.url}/{name.rpartition('/')[0]}".rstrip("/")
    server.requests.clear()
    assert scan(address, cache_dir=tmp_path) == corpus
    assert all(num_bytes is False for _, num_bytes in server.requests)  # HEAD alone
    server.requests.clear()
    server.num_dropped = 2
    for row, reader in zip(corpus.utterances, readers, strict=True):
        assert row.path.startswith(server.url)
        assert (row.speaker_id, row.num_samples) == (reader.speaker_id, reader.num_samples)
        ours = read_audio(row.path, 16000, start=1000, num_samples=2000)
        assert np.array_equal(ours, read_audio(reader.path, 16000, start=1000, num_samples=2000))
    assert server.num_dropped == 0
    fetched = sum(num_bytes for _, num_bytes in server.requests)
    size = sum(row.num_samples * 2 for row in readers)
    assert fetched < 1.3 * size  # each once, and what was dropped


def test_an_index_beside_a_shard_spares_fetching_it(served, tmp_path):
    server, _ = served
    shard = server.folder / "000001.tar"
    expected = scan(f"{server.url}/000001.tar", cache_dir=tmp_path / "a")
    write_index_beside(shard)
    index = server.folder / "000001.tar.index.json"
    server.requests.clear()
    assert scan(f"{server.url}/000001.tar", cache_dir=tmp_path / "b") == expected
    fetched = [num_bytes for path, num_bytes in server.requests if num_bytes]
    assert sum(fetched) < 40_000 < shard.stat().st_size
    text = index.read_text()
    values = json.loads(text)
    name = find_member(expected.utterances[0].path).name

    def entry(**changes):
        first = dict(zip(Entry._fields, values["entries"][0], strict=True)) | changes
        return json.dumps(values | {"entries": [list(first.values()), *values["entries"][1:]]})

    try:
        for wrong in (
            text.replace(name, "../x.wav"),
            text.replace(str(shard.stat().st_size), "7"),
            text[:-9],
            "[" * 100_000,
            entry(session_id={"a": 1}),
            entry(sampling_rate=0),
            entry(num_samples=1 << 63),
            entry(second=shard.stat().st_size),
            entry(name="x.exe"),
            json.dumps(values | {"ignored": ["x"]}),
            json.dumps(values | {"checks": []}),
            text + " " * (64 << 20),
        ):
            index.write_text(wrong)
            server.requests.clear()
            assert scan(f"{server.url}/000001.tar", use_cache=False) == expected
            assert ("/000001.tar", shard.stat().st_size) in server.requests  # fetched whole
    finally:
        index.unlink()


def write_voices(path, voices):
    """Writes (name, content, speaker) as a tar."""
    with tarfile.open(path, "w") as archive:
        for name, content, speaker in voices:
            for own, text in ((f"{name}.wav", content), (f"{name}.spk", speaker)):
                member = tarfile.TarInfo(own)
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text))


@pytest.mark.parametrize("is_remote", [False, True])
def test_an_index_of_another_tar_of_the_same_size_is_not_believed(served, tmp_path, is_remote):
    server, readers = served
    shard = server.folder / "voices.tar"
    contents = []
    for start in (1000, 2000):
        waveform = read_audio(readers[0].path, 16000, start=start, num_samples=8000)
        soundfile.write(tmp_path / "a.wav", waveform, 16000)
        contents.append((tmp_path / "a.wav").read_bytes())
    first, second = ("x", contents[0], b"ann"), ("y", contents[1], b"bob")
    address = f"{server.url}/voices.tar" if is_remote else shard
    try:
        for other in ([second, first], [first, ("y", contents[1], b"eve")]):
            write_voices(shard, [first, second])
            write_index_beside(shard)
            write_voices(shard, other)
            os.utime(shard, (1_700_000_000, 1_700_000_000))  # as a copy may be
            for row in scan(address, cache_dir=tmp_path / other[0][0]).utterances:
                content, speaker = {name: rest for name, *rest in other}[row.utterance_id]
                assert row.speaker_id == speaker.decode()
                ours, _ = soundfile.read(io.BytesIO(content), dtype="float32")
                assert np.array_equal(read_audio(row.path, 16000), ours)
    finally:
        shard.unlink()
        (server.folder / "voices.tar.index.json").unlink()


def test_without_a_tag_nothing_is_remembered(served, tmp_path, monkeypatch):
    server, readers = served
    monkeypatch.setattr(server, "has_tags", False)
    for num_rows in (6, 5):
        write_tars(server.folder / "untagged", readers[:num_rows], 6)
        found = scan(f"{server.url}/untagged/000000.tar", cache_dir=tmp_path)
        assert len(found.utterances) == num_rows
    assert not (tmp_path / "shards").exists()


def test_a_name_that_is_no_ascii(served, tmp_path):
    server, readers = served
    write_tars(server.folder / "données à part", readers[:6], 6)
    for name in ("données à part", "donn%C3%A9es%20%C3%A0%20part"):
        corpus = scan(f"{server.url}/{name}/000000.tar", cache_dir=tmp_path)
        ours = read_audio(corpus.utterances[0].path, 16000)
        assert np.array_equal(ours, read_audio(readers[0].path, 16000))


def test_no_more_is_read_than_was_asked_for(served, monkeypatch):
    server, _ = served
    monkeypatch.setattr(server, "surplus", 1000)
    with pytest.raises(AudioError, match="more than the 20 bytes asked for"):
        ranges.read_span(f"{server.url}/000000.tar", 10, 20)


@pytest.mark.parametrize("name", ["000001.tar", "a/train-00001.parquet"])
def test_a_shard_that_cannot_be_read_for_a_moment_is_not_left_out(served, tmp_path, name):
    server, _ = served
    address = f"{server.url}/{name.replace('00001', '{00000..00001}')}"
    server.ill = name
    try:
        with pytest.raises(UserError, match=rf"{name} cannot be used: cannot be fetched .*503"):
            scan(address, cache_dir=tmp_path)
    finally:
        server.ill = ""
    server.num_dropped = 100  # of what is asked for after the size
    try:
        with pytest.raises(UserError, match=r"cannot be used: cannot be fetched .*IncompleteRead"):
            scan(address, cache_dir=tmp_path)
    finally:
        server.num_dropped = 0
    assert len(scan(address, cache_dir=tmp_path).utterances) == 12
    with pytest.raises(UserError, match=r"00002.* cannot be used: not found .*404"):
        scan(address.replace("1}", "2}"), cache_dir=tmp_path)


def test_a_full_disk_is_not_a_damaged_shard(served, tmp_path, monkeypatch):
    server, _ = served
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"000000.tar cannot be used: .*File too large"):
            scan(f"{server.url}/000000.tar", use_cache=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_lengths_in_columns_spare_reading_the_audio(served, tmp_path, monkeypatch):
    server, readers = served
    server.requests.clear()
    corpus = scan(f"{server.url}/b/train-{{00000..00001}}.parquet", cache_dir=tmp_path)
    assert [row.num_samples for row in corpus.utterances] == [r.num_samples for r in readers]
    size = sum((server.folder / "b" / name).stat().st_size for name in ("train-00000.parquet",))
    assert sum(num_bytes for _, num_bytes in server.requests) < size
    server.requests.clear()
    for row in corpus.utterances[:6]:  # row groups of 10: the first file has one
        read_audio(row.path, 16000, num_samples=100)
    assert len([1 for path, _ in server.requests if path.endswith("train-00000.parquet")]) < 8
    monkeypatch.setattr(row_groups, "KEPT_BYTES", 1)  # the group alone is kept
    read_audio(corpus.utterances[6].path, 16000, num_samples=100)
    assert len(row_groups._KEPT._groups) == 1


def test_what_a_server_cannot_do_is_said(served, tmp_path):
    server, _ = served
    path = scan(f"{server.url}/000000.tar", cache_dir=tmp_path).utterances[0].path
    server.num_dropped = 3
    with pytest.raises(AudioError, match=r"cannot be fetched \(IncompleteRead"):
        read_audio(path, 16000)
    with pytest.raises(AudioError, match=r"not found \(HTTPError: .*404"):
        read_audio(path.replace("000000.tar", "000009.tar"), 16000)
    server.locked = "000000.tar"
    with pytest.raises(AudioError, match=r"no access \(HTTPError: .*403") as refused:
        read_audio(path, 16000)
    assert refused.value.reason in ranges.UNREACHABLE
    server.locked = ""
    server.knows_ranges = False
    try:
        with pytest.raises(AudioError, match="its server gives whole files only"):
            read_audio(path, 16000)
    finally:
        server.knows_ranges = True
    with pytest.raises(AudioError, match="no way to read such addresses"):
        read_audio(path.replace("http://", "gopher://"), 16000)


@pytest.fixture
def hub(monkeypatch):
    """A Hub that this process's huggingface_hub talks to."""
    server = HubServer().start()
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    huggingface_hub.close_session()
    huggingface_hub.HfFileSystem.clear_instance_cache()
    yield server
    server.stop()
    huggingface_hub.HfFileSystem.clear_instance_cache()
    huggingface_hub.close_session()


def test_a_dataset_of_the_hub(served, hub, tmp_path):
    server, readers = served
    files = {f"data/{p.name}": p.read_bytes() for p in (server.folder / "b").iterdir()}
    hub.publish("someone/voices", {**files, "README.md": b"voices", "voices.py": b"exit(1)"})
    corpus = scan("hf://datasets/someone/voices/data/train-*.parquet", cache_dir=tmp_path)
    assert (corpus.layout, corpus.root) == ("huggingface", "hf://datasets/someone/voices/data")
    assert len(corpus.utterances) == 12
    for row, reader in zip(corpus.utterances[5:7], readers[5:7], strict=True):
        assert row.num_samples == reader.num_samples
        assert np.array_equal(read_audio(row.path, 16000), read_audio(reader.path, 16000))
    assert hub.downloaded == {name.removeprefix("data/") for name in files}
    assert len(scan("hf://datasets/someone/voices", use_cache=False).utterances) == 12
    with pytest.raises(AudioError, match=r"hf://datasets/someone/none.*not found"):
        scan("hf://datasets/someone/none/*.parquet", use_cache=False)


def test_any_storage_that_fsspec_knows(served, tmp_path):
    server, readers = served
    memory = fsspec.filesystem("memory")
    for shard in server.folder.glob("*.tar"):
        memory.pipe_file(f"/voices/{shard.name}", shard.read_bytes())
    corpus = scan("memory://voices", cache_dir=tmp_path)
    assert corpus.layout == "webdataset"
    for row, reader in zip(corpus.utterances, readers, strict=True):
        assert np.array_equal(read_audio(row.path, 16000), read_audio(reader.path, 16000))
    memory.rm("/voices", recursive=True)
    with pytest.raises(AudioError, match="not found"):
        read_audio(corpus.utterances[0].path.replace("#", "#0"), 16000)


def test_what_is_fetched_is_of_the_shard_that_was_scanned_last(tmp_path):
    server = ShardServer(tmp_path)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for write, shard in ((write_tars, "000000.tar"), (write_parquet, "train-00000.parquet")):
        for level in (0.25, 0.125):
            soundfile.write(tmp_path / "a.wav", np.full(800, level), 16000)
            write(tmp_path, [Utterance("a", "ann", None, str(tmp_path / "a.wav"), 800, 16000)])
            (row,) = scan(f"{server.url}/{shard}", use_cache=False).utterances
            assert read_audio(row.path, 16000).max() == level
    server.shutdown()
    server.server_close()
