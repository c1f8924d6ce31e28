"""`prepare` on archives and downloads that are damaged, strange or hostile."""

import gzip
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speaker_encoder.corpora.prepare import Prepared, PrepareOptions, prepare
from speaker_encoder.errors import UserError


def recording(seed: int) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(seed).standard_normal(8000) / 10
    soundfile.write(file, noise, 16000, format="WAV", subtype="PCM_16")
    return file.getvalue()


def make_tar(names: int = 3, *, seed: int = 0) -> bytes:
    """A plain tar of LibriSpeech's form."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for number in range(names):
            content = recording(seed + number)
            info = tarfile.TarInfo(f"LibriSpeech/train-x/19/198/19-198-{number:04d}.wav")
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return out.getvalue()


def librispeech(archive: Path, output: Path) -> Prepared:
    return prepare(PrepareOptions(corpus="librispeech", output_dir=output, archives=[archive]))


def voxceleb(archive: Path, output: Path) -> Prepared:
    options = PrepareOptions(corpus="voxceleb", output_dir=output, archives=[archive], check=False)
    return prepare(options)


def bad_header(content: bytes) -> bytes:
    second = 512 + -(-len(recording(0)) // 512) * 512
    return gzip.compress(content[: second + 10] + b"\xff" * 40 + content[second + 50 :])


def bad_sum(content: bytes) -> bytes:
    packed = bytearray(gzip.compress(content))
    packed[-8] ^= 1
    return bytes(packed)


@pytest.mark.parametrize(
    "damage",
    [
        bad_header,
        bad_sum,
        lambda content: gzip.compress(content)[:-9000],
        lambda content: gzip.compress(content.rstrip(b"\0") + bytes(2048) + b"more"),
        lambda content: content[: 512 + -(-len(recording(0)) // 512) * 512],
    ],
    ids=["header", "sum", "cut", "behind the end", "plain, cut between files"],
)
def test_a_damaged_tar_is_never_taken_for_whole(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    archive, output = tmp_path / "train-x.tar.gz", tmp_path / "corpus"
    archive.write_bytes(damage(make_tar()))
    for _ in range(2):
        with pytest.raises(UserError, match=r"train-x.tar.gz cannot be unpacked.*delete"):
            librispeech(archive, output)
    archive.write_bytes(gzip.compress(make_tar(seed=100)))  # same names and sizes, other content
    assert librispeech(archive, output).corpus is not None
    for number in range(3):
        written = output / f"LibriSpeech/train-x/19/198/19-198-{number:04d}.wav"
        assert written.read_bytes() == recording(100 + number)


def make_zip(path: Path, names: list[str]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, recording(0))
    return path


def with_field(path: Path, local: int, central: int, value: int) -> Path:
    """Overwrites two bytes in the header of each member."""
    content = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        at = content.find(magic)
        while at >= 0:
            content[at + offset : at + offset + 2] = value.to_bytes(2, "little")
            at = content.find(magic, at + 4)
    path.write_bytes(content)
    return path


def test_strange_zips_are_one_message_each(tmp_path: Path) -> None:
    name = "wav/id10001/video/00001.wav"
    archives = {
        "encrypted": with_field(make_zip(tmp_path / "vox1_a.zip", [name]), 6, 8, 1),
        "method": with_field(make_zip(tmp_path / "vox1_b.zip", [name]), 8, 10, 97),
        "Error -3|cannot be unpacked: .*damaged": with_field(
            make_zip(tmp_path / "vox1_c.zip", [name]), 8, 10, 8
        ),
        "LZMA|cannot be unpacked: .*damaged": with_field(
            make_zip(tmp_path / "vox1_d.zip", [name]), 8, 10, 14
        ),
        "file where its folder": make_zip(tmp_path / "vox1_e.zip", ["wav/a", "wav/a/b.wav"]),
        "folder of that name": make_zip(tmp_path / "vox1_f.zip", ["wav/a/b.wav", "wav/a"]),
        "too long": make_zip(tmp_path / "vox1_g.zip", [f"wav/{'x' * 300}.wav"]),
        "kept for": make_zip(tmp_path / "vox1_h.zip", [".prepare/vox1_h.zip.json"]),
    }
    for number, (message, archive) in enumerate(archives.items()):
        with pytest.raises(UserError, match=message):
            voxceleb(archive, tmp_path / f"corpus{number}")
    long = make_zip(tmp_path / "vox1_i.zip", [f"wav/id10001/video/{'ж' * 120}.wav"])
    assert len(voxceleb(long, tmp_path / "long").corpus.utterances) == 1


def test_only_archives_are_taken_from_a_folder_and_not_twice(tmp_path: Path) -> None:
    (tmp_path / "vox1_meta.csv").write_text("VoxCeleb1 ID\n")
    archive = make_zip(tmp_path / "vox1_dev_wav.zip", ["wav/id10001/video/00001.wav"])
    assert len(voxceleb(tmp_path, tmp_path / "corpus").corpus.utterances) == 1
    for letter in "abcd":
        (tmp_path / f"vox1_dev_wav_parta{letter}").write_bytes(archive.read_bytes())
    with pytest.raises(UserError, match=r"vox1_dev_wav.zip is there whole and in parts"):
        voxceleb(tmp_path, tmp_path / "other")


class _Server(BaseHTTPRequestHandler):
    content = b""
    version: str | None = None
    breaks_off = False
    asked: str | None = None

    def do_GET(self) -> None:
        cls = type(self)
        cls.asked = self.headers["Range"]
        start = 0
        if cls.asked and cls.version and self.headers["If-Range"] == cls.version:
            start = int(cls.asked[6:-1])
        size, body = len(cls.content), cls.content[start:]
        self.send_response(416 if start >= size else 206 if start else 200)
        span = f"{start}-{size - 1}" if body else "*"
        self.send_header("Content-Range", f"bytes {span}/{size}")
        self.send_header("Content-Length", str(len(body)))
        if cls.version is not None:
            self.send_header("Last-Modified", cls.version)
        self.end_headers()
        self.wfile.write(body[:5000] if cls.breaks_off else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/train-x.tar.gz"
    server.shutdown()
    server.server_close()


OLD, NEW = "Mon, 05 Feb 2018 10:00:00 GMT", "Tue, 06 Feb 2018 10:00:00 GMT"


@pytest.mark.parametrize(
    ("before", "after", "is_resumed"),
    [(OLD, OLD, True), (OLD, NEW, False), (None, None, False)],
    ids=["same", "another", "unknown"],
)
def test_only_the_same_file_is_gone_on_with(
    tmp_path: Path, address: str, before: str | None, after: str | None, is_resumed: bool
) -> None:
    options = PrepareOptions(corpus="librispeech", output_dir=tmp_path, download=[address])
    first, second = (gzip.compress(make_tar(seed=seed), mtime=0) for seed in (0, 50))
    _Server.content, _Server.version, _Server.breaks_off = first, before, True
    again = "goes on from 5000 bytes" if before else "starts again"
    with pytest.raises(UserError, match=f"closed after 5000 of .* {again}"):
        prepare(options)
    _Server.breaks_off, _Server.version = False, after
    _Server.content = first if is_resumed else second
    prepare(options)
    assert (tmp_path / "archives" / "train-x.tar.gz").read_bytes() == _Server.content
    assert _Server.asked == ("bytes=5000-" if before else None)


@pytest.mark.parametrize("extra", [b"", b"too much"])
def test_a_download_that_has_it_all_is_whole_only_at_its_size(
    tmp_path: Path, address: str, extra: bytes
) -> None:
    folder = tmp_path / "archives"
    folder.mkdir()
    _Server.content, _Server.version = gzip.compress(make_tar(), mtime=0), OLD
    _Server.breaks_off = False
    (folder / ".train-x.tar.gz.download").write_bytes(_Server.content + extra)
    (folder / ".train-x.tar.gz.version").write_text(OLD)
    prepare(PrepareOptions(corpus="librispeech", output_dir=tmp_path, download=[address]))
    assert [path.name for path in folder.iterdir()] == ["train-x.tar.gz"]
    assert (folder / "train-x.tar.gz").read_bytes() == _Server.content


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1/a b?key=GEHEIM&file=vox1_dev_wav.zip",
        "127.0.0.1:1/x?key=GEHEIM&file=vox1_dev_wav.zip",
        "http://[abc/x?key=GEHEIM",
        "http://127.0.0.1:GEHEIM/vox1_dev_wav.zip",
        "http://me:GEHEIM@127.0.0.1:1/vox1_dev_wav.zip",
        "http://me:GEHEIM?x@127.0.0.1:1/vox1_dev_wav.zip",
        "http://127.0.0.1:1/vox1_dev_wav.zip?key=GEHEIM",
        "http://127.0.0.1:1/x?key=GEHEIM&file=%0avox1.zip",
        "ftp://127.0.0.1/x?key=GEHEIM",
    ],
)
def test_no_message_shows_a_key(tmp_path: Path, address: str) -> None:
    options = PrepareOptions(corpus="voxceleb", output_dir=tmp_path, download=[address])
    with pytest.raises(UserError) as caught:
        prepare(options)
    if ":GEHEIM/" not in address:  # a port: nothing that anyone would keep secret
        assert "GEHEIM" not in str(caught.value)
