"""Scanning: bad input, the cache, the summary, and speed."""

import gc
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pytest
import soundfile
from trees import SECOND, make_old, write_tree

from speaker_encoder.corpora import headers as headers_module
from speaker_encoder.corpora import scan
from speaker_encoder.corpora.cache import default_cache_dir
from speaker_encoder.errors import UserError


def reasons_of(root: Path) -> dict[str, str]:
    corpus = scan(root, use_cache=False)
    return {os.path.relpath(file.path, root): file.reason for file in corpus.excluded}


def test_every_bad_file_is_named_and_counted(tmp_path: Path) -> None:
    write_tree(tmp_path, ["ann/good.wav", "ann/cut.wav", "ann/cut.flac", "ann/.hidden.wav"], 16_000)
    for name in ("ann/cut.wav", "ann/cut.flac"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    (tmp_path / "ann/empty.wav").touch()
    (tmp_path / "ann/text.wav").write_text("not audio")
    (tmp_path / "ann/gone.wav").symlink_to("nowhere.wav")
    (tmp_path / "ann/folder.wav").mkdir()
    soundfile.write(tmp_path / "ann/nothing.wav", SECOND[:0], 16_000)
    (tmp_path / "bob").mkdir()
    (tmp_path / "cyd").mkdir()
    (tmp_path / "cyd/1.wav").touch()
    assert reasons_of(tmp_path) == {
        "ann/cut.flac": "same name with another extension",
        "ann/cut.wav": "truncated",
        "ann/empty.wav": "empty file",
        "ann/text.wav": "not audio that can be decoded",
        "ann/gone.wav": "broken link",
        "ann/folder.wav": "a folder, not a file",
        "ann/nothing.wav": "no audio samples",
        "ann/.hidden.wav": "hidden file",
        "cyd/1.wav": "empty file",
        "bob": "speaker without usable audio",
        "cyd": "speaker without usable audio",
    }


def test_what_is_not_audio_is_counted_by_kind(tmp_path: Path) -> None:
    names = ["ann/1.wav", "ann/1.txt", "ann/2.normalized.txt", "ann/1.ecapa_embedding"]
    names += ["ann/ann.ecapa_averaged_embedding", "ann/.DS_Store", ".git/x.wav", "README"]
    write_tree(tmp_path, names)
    corpus = scan(tmp_path, use_cache=False)
    assert len(corpus.utterances) == 1
    assert corpus.ignored == {
        ".txt file": 2,
        "embedding file": 2,
        "file without extension": 1,
        "hidden file": 1,
        "hidden folder": 1,
    }


def test_unusual_recordings_are_taken(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s "Σπύρος" 说话人'
    folder.mkdir()
    for subtype in ("PCM_U8", "PCM_24", "DOUBLE"):
        soundfile.write(folder / f"{subtype}.wav", SECOND, 16_000, subtype)
    for rate in (8_000, 44_100, 48_000):
        soundfile.write(folder / f"{rate} Hz.flac", SECOND, rate)
    soundfile.write(folder / "stereo.wav", np.stack([SECOND, SECOND], axis=1), 16_000)
    soundfile.write(folder / "10 ms.wav", SECOND[:160], 16_000)
    soundfile.write(folder / "silence.flac", 0 * SECOND, 16_000)
    corpus = scan(tmp_path, use_cache=False)
    assert not corpus.excluded
    assert len(corpus.utterances) == 9
    assert list(corpus.speakers) == [folder.name]
    lengths = {row.utterance_id.split("/")[1]: row.num_samples for row in corpus.utterances}
    assert (lengths["stereo"], lengths["10 ms"]) == (16_000, 160)


def test_one_hour_is_scanned_by_its_header(tmp_path: Path) -> None:
    (tmp_path / "ann").mkdir()
    with soundfile.SoundFile(tmp_path / "ann/hour.flac", "w", 8_000, 1) as file:
        for _ in range(60):
            file.write(np.zeros(8_000 * 60, dtype=np.int16))
    start = time.perf_counter()
    corpus = scan(tmp_path, use_cache=False)
    assert time.perf_counter() - start < 0.5
    assert corpus.utterances[0].seconds == 3_600


def test_missing_and_empty_roots(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"The corpus .*gone does not exist"):
        scan(tmp_path / "gone")
    with pytest.raises(UserError, match="is an empty folder"):
        scan(tmp_path)
    (tmp_path / "ann").mkdir()
    with pytest.raises(UserError, match="found 1 folders without files"):
        scan(tmp_path)
    write_tree(tmp_path, ["ann/1.txt", "ann/2.txt", "ann/1.ecapa_embedding"])
    with pytest.raises(UserError, match=r"No audio files in .*2 x \.txt file; 1 x embedding file"):
        scan(tmp_path)
    (tmp_path / "ann/1.wav").touch()
    with pytest.raises(UserError, match=r"No usable recording in .*\n.*empty file: 1 \(such as"):
        scan(tmp_path, use_cache=False)


def test_an_unknown_layout_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        scan(tmp_path, "libritss")
    assert "Unknown corpus layout 'libritss'" in str(caught.value)
    assert "vctk" in str(caught.value)
    assert "nearest: 'libritts'" in str(caught.value)


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user, which only root can")
def test_files_and_folders_without_permission(tmp_path: Path) -> None:
    write_tree(tmp_path, ["ann/1.wav", "bob/1.wav", "cyd/1.wav"])
    for folder in (tmp_path, *tmp_path.parents):
        if "pytest" in str(folder):  # pytest's folders are for their owner alone
            folder.chmod(0o755)
    (tmp_path / "bob/1.wav").chmod(0)
    (tmp_path / "cyd").chmod(0)
    program = (
        "import os, sys, soundfile, tqdm, speaker_encoder.corpora as corpora\n"
        "from concurrent.futures import thread\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "corpus = corpora.scan(sys.argv[1], use_cache=False)\n"
        "print(len(corpus.utterances), sorted({file.reason for file in corpus.excluded}))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True
    )
    (tmp_path / "cyd").chmod(0o755)
    expected = ["folder that cannot be read", "no permission to read it"]
    expected.append("speaker without usable audio")
    assert result.stdout.strip() == f"1 {expected}", result.stderr


def test_links_are_followed_and_their_loops_are_not(tmp_path: Path) -> None:
    write_tree(tmp_path, ["real/1.wav", "corpus/ann/1.wav"])
    root = tmp_path / "corpus"
    (root / "bob").symlink_to(tmp_path / "real")
    (root / "ann/self").symlink_to(".")
    (root / "ann/up").symlink_to("..")
    corpus = scan(root, use_cache=False)
    assert [row.utterance_id for row in corpus.utterances] == ["ann/1", "bob/1"]
    assert {file.reason for file in corpus.excluded} == {"link to a folder around it"}


def test_the_cache_is_used_until_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cache_dir = tmp_path / "corpus", tmp_path / "cache"
    write_tree(root, ["ann/1.wav", "ann/2.wav", "bob/1.wav"])
    (root / "bob/bad.wav").write_text("bad")
    make_old(root)
    read: list[str] = []
    read_info = headers_module.read_info
    monkeypatch.setattr(headers_module, "read_info", lambda p: read.append(p) or read_info(p))

    def scan_again() -> list[str]:
        read.clear()
        corpora.append(scan(root, cache_dir=cache_dir))
        return sorted(os.path.relpath(path, root) for path in read)

    corpora: list = []
    everything = ["ann/1.wav", "ann/2.wav", "bob/1.wav", "bob/bad.wav"]
    assert scan_again() == everything
    assert scan_again() == []
    assert corpora[0] == corpora[1]

    soundfile.write(root / "ann/2.wav", SECOND, 16_000)
    assert scan_again() == ["ann/2.wav"]
    assert scan_again() == ["ann/2.wav"], "what was written a moment ago may change unseen"
    os.utime(root / "ann/2.wav", (1_700_000_001, 1_700_000_001))
    assert scan_again() == ["ann/2.wav"]
    assert scan_again() == []
    assert corpora[-1].utterances[1].num_samples == 16_000

    (root / "ann/1.wav").unlink()
    assert scan_again() == []
    assert len(corpora[-1].utterances) == 2
    read.clear()
    scan(root, use_cache=False)
    assert len(read) == 3

    cache_path = next(cache_dir.rglob("*.json"))
    assert not list(cache_dir.rglob("*.part"))
    whole = cache_path.read_text()
    for damaged in (whole[:40], "[]", "{}", '{"version": 1, "files": {"a": 1}}', "\0"):
        cache_path.write_text(damaged)
        assert len(scan_again()) == 3
        assert corpora[-1] == corpora[-2]
        assert json.loads(cache_path.read_text()) == json.loads(whole)


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("SPEAKER_ENCODER_CACHE", raising=False)
    assert default_cache_dir() == Path("/home/ann/.cache/speaker_encoder")
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch")
    assert default_cache_dir() == Path("/scratch/speaker_encoder")
    monkeypatch.setenv("SPEAKER_ENCODER_CACHE", "~/here")
    assert default_cache_dir() == Path("/home/ann/here")


def test_a_cache_that_cannot_be_written_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tree(tmp_path / "corpus", ["ann/1.wav"])
    make_old(tmp_path / "corpus")
    (tmp_path / "cache").write_text("a file")
    with caplog.at_level(logging.WARNING):
        corpus = scan(tmp_path / "corpus", cache_dir=tmp_path / "cache")
    assert len(corpus.utterances) == 1
    assert "The scan could not be cached" in caplog.text


def test_a_scan_leaves_no_cycles_and_the_garbage_collector_on(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "corpus", ["ann/1.wav", "ann/2.flac", "bob/1.wav"])
    soundfile.write(root / "bob/2.mp3", SECOND, 16_000)
    for name in ("bad.wav", "bad.flac", "bad.mp3"):
        (root / "ann" / name).write_text("bad")
    scan(root, use_cache=False)  # what is imported here may leave some
    gc.collect()
    gc.disable()
    try:
        corpus = scan(root, use_cache=False)
        assert gc.collect() == 0
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert len(corpus.utterances) == 4 and len(corpus.excluded) == 3
    with pytest.raises(UserError):
        scan(tmp_path / "missing")
    assert gc.isenabled()


def test_many_scans_at_once_leave_a_whole_cache(tmp_path: Path) -> None:
    write_tree(tmp_path / "corpus", [f"s{i}/{j}.wav" for i in range(5) for j in range(20)])
    make_old(tmp_path / "corpus")
    found: list[int] = []

    def run() -> None:
        for _ in range(5):
            corpus = scan(tmp_path / "corpus", cache_dir=tmp_path / "cache")
            found.append(len(corpus.utterances))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [100] * 20
    assert len(list((tmp_path / "cache/headers").iterdir())) == 1


def test_the_progress_bar_is_for_terminals(tmp_path: Path) -> None:
    write_tree(tmp_path, ["ann/1.wav", "ann/2.wav"])

    def stderr_of(**options: bool | None) -> str:
        with redirect_stderr(io.StringIO()) as stream:
            scan(tmp_path, use_cache=False, **options)
        return stream.getvalue()

    assert stderr_of() == ""
    assert stderr_of(show_progress=False) == ""
    assert "Reading headers: 100%" in stderr_of(show_progress=True)


def test_summary_and_its_text(tmp_path: Path) -> None:
    write_tree(tmp_path, [f"ann/{i}.wav" for i in range(4)] + ["bob/1.wav", "bob/1.txt"], 16_000)
    soundfile.write(tmp_path / "bob/2.wav", SECOND, 8_000)
    for index in range(5):
        (tmp_path / f"bob/empty{index}.wav").touch()
    summary = scan(tmp_path, use_cache=False).summary()
    assert (summary.num_speakers, summary.num_utterances) == (2, 6)
    assert summary.hours == pytest.approx(7 / 3_600)
    assert summary.sampling_rates == {8_000: 1, 16_000: 5}
    assert summary.exclusions == {"empty file": 5}
    text = str(summary)
    assert text.startswith("2 speakers, 6 utterances, 0.00 hours (8000 Hz: 1, 16000 Hz: 5)\n")
    assert "left out, empty file: 5 (" in text
    assert "empty2.wav, ...)" in text
    assert text.endswith("not audio: 1 .txt file")


def test_speakers_are_indices_of_the_utterances(tmp_path: Path) -> None:
    write_tree(tmp_path, ["b/1.wav", "a/2.wav", "a/1.wav", "c/1.wav"])
    corpus = scan(tmp_path, use_cache=False)
    assert corpus.speakers == {"a": [0, 1], "b": [2], "c": [3]}


def test_to_dataset(tmp_path: Path) -> None:
    write_tree(tmp_path, ["ann/mon/1.wav", "bob/mon/1.wav"])
    corpus = scan(tmp_path, use_cache=False)
    dataset = corpus.to_dataset()
    assert dataset.num_rows == 2
    assert dataset[1] == {
        "utterance_id": "bob/mon/1",
        "speaker_id": "bob",
        "session_id": "mon",
        "num_samples": 800,
        "sampling_rate": 16_000,
        "audio": {"bytes": None, "path": str(tmp_path / "bob/mon/1.wav")},
    }


@pytest.mark.slow
def test_twenty_thousand_files_are_scanned_quickly(tmp_path: Path) -> None:
    write_tree(tmp_path, ["first.wav"])
    for speaker in range(200):
        (tmp_path / f"corpus/s{speaker:03d}").mkdir(parents=True)
        for index in range(100):
            os.link(tmp_path / "first.wav", tmp_path / f"corpus/s{speaker:03d}/{index:03d}.wav")
    os.utime(tmp_path / "first.wav", (1_700_000_000, 1_700_000_000))
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        corpus = scan(tmp_path / "corpus", cache_dir=tmp_path / "cache")
        seconds.append(time.perf_counter() - start)
    assert len(corpus.utterances) == 20_000
    assert 20_000 / seconds[0] > 1_000
    assert 20_000 / seconds[1] > 10_000
