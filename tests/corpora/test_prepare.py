"""`speaker-encoder prepare` on archives made of real speech, as the published ones are made."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from unittest import mock

import av
import numpy as np
import pytest
import soundfile

from speaker_encoder.audio import read_audio
from speaker_encoder.cli.main import main
from speaker_encoder.corpora import scan
from speaker_encoder.corpora.prepare import CORPORA, known_archives


def prepare(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in this process, as one of its own costs a second and a half."""
    given = ["prepare", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), mock.patch.dict(os.environ, environment):
        try:
            code = main(given)
        except SystemExit as ended:
            code = ended.code
    return subprocess.CompletedProcess(given, code, out.getvalue(), err.getvalue())


def tree(root: Path) -> dict[str, str]:
    """Path -> digest of every file."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".prepare" not in path.parts
    }


def write_m4a(path: Path, waveform: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        size = stream.codec_context.frame_size or 1024
        for start in range(0, len(waveform) - size, size):
            piece = np.ascontiguousarray(waveform[None, start : start + size])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def speech(data_dir: Path) -> list[Path]:
    return sorted((data_dir / "voxceleb" / "wav").glob("*/*/*.wav"))[:6]


@pytest.fixture(scope="module")
def voxceleb_archives(speech: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip with wav, and a zip with m4a in eight parts, under the names of VoxCeleb's."""
    folder = tmp_path_factory.mktemp("downloads")
    with zipfile.ZipFile(folder / "vox1_test_wav.zip", "w") as file:
        for path in speech:
            file.write(path, Path("wav", *path.parts[-3:]))
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as file:
        for number, path in enumerate(speech):
            source = folder / "one.m4a"
            write_m4a(source, soundfile.read(path, dtype="float32")[0])
            file.write(source, f"dev/aac/id0{number % 3}000/video{number}/00001.m4a")
            source.unlink()
    content = whole.getvalue()
    cuts = np.linspace(0, len(content), 9).astype(int)
    for letter, start, end in zip("abcdefgh", cuts[:-1], cuts[1:], strict=True):
        (folder / f"vox2_dev_aac_parta{letter}").write_bytes(content[start:end])
    return folder


def test_voxceleb_from_its_archives(
    voxceleb_archives: Path, speech: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "corpus"
    done = prepare(
        *("voxceleb", "--archives", voxceleb_archives, "--output_dir", output, "--no_check"),
        *("--kaldi", tmp_path / "kaldi"),
    )
    assert done.returncode == 0, done.stderr
    copied = output / "voxceleb1" / "wav" / Path(*speech[0].parts[-3:])
    assert copied.read_bytes() == speech[0].read_bytes()
    m4a = output / "voxceleb2" / "aac" / "id01000" / "video1" / "00001.m4a"
    rounded = np.round(read_audio(m4a, 16000) * 32768) / 32768
    np.testing.assert_allclose(read_audio(m4a.with_suffix(".flac"), 16000), rounded, atol=1e-6)
    listed = scan(output, "list", list_path=output / "lists" / "voxceleb.txt")
    assert listed.speakers.keys() == scan(output).speakers.keys()
    assert len(listed.utterances) == 2 * len(speech)
    kaldi = scan(tmp_path / "kaldi")
    assert kaldi.layout == "kaldi"
    assert {u.path for u in kaldi.utterances} == {u.path for u in listed.utterances}
    assert {u.speaker_id for u in kaldi.utterances} == set(listed.speakers)
    names = (tmp_path / "kaldi" / "utt2spk").read_text().splitlines()
    assert names == sorted(names)


def test_originals_are_removed_on_request_only(voxceleb_archives: Path, tmp_path: Path) -> None:
    common = ("voxceleb", "--archives", voxceleb_archives, "--output_dir", tmp_path, "--no_check")
    assert prepare(*common, "--convert", "none").returncode == 0
    assert len(list(tmp_path.rglob("*.m4a"))) == 6 and not list(tmp_path.rglob("*.flac"))
    assert prepare(*common, "--convert", "wav", "--remove_originals").returncode == 0
    assert len(list(tmp_path.glob("voxceleb2/**/*.wav"))) == 6 and not list(tmp_path.rglob("*.m4a"))


def test_a_killed_run_is_gone_on_with(voxceleb_archives: Path, tmp_path: Path) -> None:
    common = ("voxceleb", "--archives", voxceleb_archives, "--no_check")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert prepare(*common, "--output_dir", whole).returncode == 0
    codes = []
    for suffix in ("*.wav", "*.flac"):
        process = subprocess.Popen(
            [sys.executable, "-m", "speaker_encoder", "prepare", *map(str, common),
             "--output_dir", str(killed)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not list(killed.rglob(suffix)) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        codes.append(process.wait())
    assert codes == [-signal.SIGKILL] * 2
    done = prepare(*common, "--output_dir", killed)
    assert done.returncode == 0, done.stderr
    wanted = tree(whole)
    found = {name: digest for name, digest in tree(killed).items() if not name.endswith(".part")}
    assert found == wanted


def test_a_damaged_archive_is_named(voxceleb_archives: Path, tmp_path: Path) -> None:
    done = prepare("voxceleb", "--archives", voxceleb_archives, "--output_dir", tmp_path)
    assert done.returncode == 2
    assert "vox1_test_wav.zip" in done.stderr and "185fdc63c3c739954633d50379a3d102" in done.stderr
    assert not list(tmp_path.rglob("*.wav"))


def test_a_missing_part_is_named(voxceleb_archives: Path, tmp_path: Path) -> None:
    parts = [p for p in voxceleb_archives.glob("vox2*") if not p.name.endswith("ad")]
    done = prepare("voxceleb", "--archives", *parts, "--output_dir", tmp_path, "--no_check")
    assert done.returncode == 2 and "missing: vox2_dev_aac_partad" in done.stderr


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    "name", ["../escaped.wav", "/tmp/escaped_absolute.wav", "a/../../escaped.wav"]
)
def test_nothing_leaves_the_output_folder(tmp_path: Path, kind: str, name: str) -> None:
    output = tmp_path / "corpus"
    if kind == "zip":
        archive, corpus = tmp_path / "vox1_x.zip", "voxceleb"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr(name, b"x")
    else:
        archive, corpus = tmp_path / "train-x.tar.gz", "librispeech"
        with tarfile.open(archive, "w:gz") as file:
            info = tarfile.TarInfo(name)
            info.size = 1
            file.addfile(info, io.BytesIO(b"x"))
    done = prepare(corpus, "--archives", archive, "--output_dir", output)
    assert done.returncode == 2 and "leads out of its folder" in done.stderr
    assert not list(tmp_path.glob("escaped*")) and not Path("/tmp/escaped_absolute.wav").exists()


def test_links_in_an_archive_are_not_unpacked(tmp_path: Path, speech: list[Path]) -> None:
    archive = tmp_path / "train-x.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        link = tarfile.TarInfo("LibriSpeech/train-x/19")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "outside")
        file.addfile(link)
        file.add(speech[0], "LibriSpeech/train-x/19/198/19-198-0001.wav")
    (tmp_path / "outside").mkdir()
    done = prepare("librispeech", "--archives", archive, "--output_dir", tmp_path / "corpus")
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "outside").iterdir())
    assert "no sum is published" in done.stderr
    assert "train-x.tar.gz: 1 links and the like in it were not unpacked" in done.stderr


def test_noises_are_split(tmp_path: Path, data_dir: Path) -> None:
    noise = sorted((data_dir / "noise").rglob("*.flac"))[0]
    waveform, rate = soundfile.read(noise, dtype="float32")
    long = np.resize(waveform, 12 * rate)
    soundfile.write(tmp_path / "long.wav", long, rate, subtype="PCM_16")
    soundfile.write(tmp_path / "short.wav", long[: 2 * rate], rate, subtype="PCM_16")
    with tarfile.open(tmp_path / "musan.tar.gz", "w:gz") as file:
        file.add(tmp_path / "long.wav", "musan/noise/free-sound/long.wav")
        file.add(tmp_path / "short.wav", "musan/music/fma/short.wav")
    output = tmp_path / "corpus"
    done = prepare(
        "musan", "--archives", tmp_path / "musan.tar.gz", "--output_dir", output, "--no_check"
    )
    assert done.returncode == 0, done.stderr
    pieces = (output / "lists" / "musan_noise.txt").read_text().splitlines()
    assert len(pieces) == 3  # 0 to 5, 3 to 8, 6 to 11 s
    for number, name in enumerate(pieces):
        found, _ = soundfile.read(output / name, dtype="float32")
        wanted = read_audio(tmp_path / "long.wav", rate)[
            3 * number * rate : (3 * number + 5) * rate
        ]
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    (music,) = (output / "lists" / "musan_music.txt").read_text().splitlines()
    assert soundfile.info(output / music).frames == 2 * rate


class _Server(BaseHTTPRequestHandler):
    content = b""
    asked: ClassVar[list[tuple[str | None, str | None]]] = []
    break_off_at: int | None = None
    version: str | None = '"one"'

    def do_GET(self) -> None:
        cls = type(self)
        cls.asked.append((self.headers["Range"], self.headers["Authorization"]))
        if "private" in self.path and not self.headers["Authorization"]:
            self.send_error(401)
            return
        if "missing" in self.path:
            self.send_error(404)
            return
        is_same = self.headers["If-Range"] in (None, cls.version)
        start = int((self.headers["Range"] or "bytes=0-")[6:-1]) if is_same else 0
        body, size = cls.content[start:], len(cls.content)
        self.send_response(416 if start >= size else 206 if start else 200)
        rest = f"bytes {start}-{size - 1}/{size}" if body else f"bytes */{size}"
        self.send_header("Content-Range", rest)
        self.send_header("Content-Length", str(len(body)))
        if cls.version is not None:
            self.send_header("ETag", cls.version)
        self.end_headers()
        if cls.break_off_at is not None:
            body, cls.break_off_at = body[: cls.break_off_at], None
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_downloads_go_on_where_they_broke_off(tmp_path: Path, speech: list[Path]) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as file:
        file.add(speech[0], "LibriSpeech/train-x/19/198/19-198-0001.wav")
    _Server.content = (tmp_path / "a.tar.gz").read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    try:
        output = tmp_path / "corpus"
        command = ("librispeech", "--output_dir", output, "--download")
        address = f"{base}/private?key=geheim&file=train-x.tar.gz"
        refused = prepare(*command, address)
        assert refused.returncode == 2 and "answers 401" in refused.stderr
        assert "SPEAKER_ENCODER_PASSWORD" in refused.stderr and "geheim" not in refused.stderr
        _Server.break_off_at = 5000
        secret = {"SPEAKER_ENCODER_PASSWORD": "sehr geheim"}
        cut = prepare(*command, address, "--user", "me", **secret)
        assert cut.returncode == 2 and "closed after 5000 of" in cut.stderr
        done = prepare(*command, address, "--user", "me", **secret)
        assert done.returncode == 0, done.stderr
        assert _Server.asked[-1][0] == "bytes=5000-"
        assert (output / "archives" / "train-x.tar.gz").read_bytes() == _Server.content
        assert "geheim" not in done.stdout + done.stderr + cut.stderr
        missing = prepare(*command, f"{base}/missing/dev-x.tar.gz")
        assert missing.returncode == 2 and "answers 404" in missing.stderr
    finally:
        server.shutdown()


def test_what_to_give_is_said(tmp_path: Path) -> None:
    nothing = prepare("librispeech", "--output_dir", tmp_path)
    assert nothing.returncode == 2 and "train-clean-100" in nothing.stderr
    unknown = prepare("voxceleb", "--output_dir", tmp_path, "--download", "vox3")
    assert unknown.returncode == 2 and "no address of 'vox3'" in unknown.stderr


def test_published_sums_are_well_formed() -> None:
    lengths = {"md5": 32, "sha256": 64}
    for corpus in CORPORA:
        known = known_archives(corpus)
        assert known, corpus
        for archive in known.values():
            assert len(archive.digest) == lengths[archive.algorithm]
            int(archive.digest, 16)
