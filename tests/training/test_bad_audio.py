"""Recordings that cannot be used are named, counted exclusions, or end the command with why."""

import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from broken_files import (
    RATE,
    CorpusWriter,
    make_config,
    refused,
    write_broken_corpus,
    write_unusual_corpus,
)

EXCLUSIONS = {
    "speaker without usable audio": ("folder_of_text", "folder_without_files"),
    "truncated": ("cut/half.wav", "cut/other_half.flac"),
    "empty file": ("zero/empty.wav",),
    "not audio that can be decoded": ("text/text.wav",),
    "broken link": ("link/broken.wav",),
}
FOUND_WHEN_READ = {
    "silent/silence.wav": "digital silence",
    "nan/samples.wav": "non-finite samples",
    "inf/samples.wav": "non-finite samples",
}


@pytest.fixture(scope="module")
def broken_root(tmp_path_factory) -> Path:
    return write_broken_corpus(tmp_path_factory.mktemp("corpus") / "broken")


@pytest.fixture(scope="module")
def clean_root(tmp_path_factory) -> Path:
    return CorpusWriter(tmp_path_factory.mktemp("corpus") / "clean").speakers(*"abcd").root


def test_what_the_scan_leaves_out_is_named_and_counted(tmp_path, broken_root):
    done = make_config(tmp_path / "a", broken_root).run("--validate_only")
    assert "Traceback" not in done.stderr
    found = dict(re.findall(r"^  left out, ([^:]+): (\d+ \(.*\))$", done.stdout, re.MULTILINE))
    wanted = {
        reason: f"{len(names)} ({', '.join(str(broken_root / name) for name in names)})"
        for reason, names in EXCLUSIONS.items()
    }
    assert found == wanted
    assert "not audio: 1 .txt file" in done.stdout
    # 3 x 3 good ones, 8 speakers with one each, and nan, inf, silent, short
    assert "training: 11 speakers, 21 utterances" in done.stdout
    assert "of these are used: 11 speakers, 20 utterances" in done.stdout
    assert f"{broken_root / 'short' / 'ten_milliseconds.wav'} (0.010 s)" in done.stderr
    assert "8 training speakers have fewer than 3 utterances" in done.stderr
    assert not (tmp_path / "a" / "runs").exists()


@pytest.mark.slow
def test_what_reading_finds_out_is_named_counted_and_replaced(tmp_path, broken_root):
    run = make_config(tmp_path / "a", broken_root, speakers_per_batch=11)
    done = run.run(expect=3)
    assert "Traceback" not in done.stderr
    wanted = {str(broken_root / name): reason for name, reason in FOUND_WHEN_READ.items()}
    assert run.results()["unusable_files"] == wanted
    assert "3 files could not be used:" in done.stdout
    log = (run.path / "train.log").read_text()
    for path, reason in wanted.items():
        assert f"  {path}: {reason}" in done.stdout
        assert f"left out of training: {path}: {reason}" in done.stderr
    for reason, names in EXCLUSIONS.items():
        for name in names:
            assert f"left out: {broken_root / name}: {reason}" in log
    assert all(np.isfinite(line["loss"]) for line in run.metrics("train"))
    assert (run.path / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_unusual_formats_rates_lengths_and_names_are_used(tmp_path):
    root = write_unusual_corpus(tmp_path / "unusual")
    run = make_config(tmp_path / "a", root, speakers_per_batch=6, num_workers=1)
    checked = run.run("--validate_only")
    rates = "8000 Hz: 2, 16000 Hz: 6, 44100 Hz: 1, 48000 Hz: 1"
    assert f"training: 6 speakers, 10 utterances, 1.00 hours ({rates})" in checked.stdout
    assert "left out" not in checked.stdout
    done = run.run()
    assert "could not be used" not in done.stdout and "Traceback" not in done.stderr
    assert all(np.isfinite(line["loss"]) for line in run.metrics("train"))


def command_bound_by_permissions() -> tuple[str, ...]:
    """Gives the command so that permissions hold for it also when it is root's."""
    command = (sys.executable, "train_encoder.py")
    if os.geteuid() != 0:
        return command
    if shutil.which("setpriv") is None:
        pytest.skip("root reads files whatever their permissions say, and there is no setpriv")
    return ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", *command)


def test_an_unreadable_file_and_folder_are_named(tmp_path):
    corpus = CorpusWriter(tmp_path / "corpus").speakers(*"abcd", "locked_folder")
    locked, folder = corpus.write("a", "locked.wav"), corpus.root / "locked_folder"
    locked.chmod(0)
    folder.chmod(0)
    try:
        run = make_config(tmp_path / "a", corpus.root)
        done = run.run("--validate_only", command=command_bound_by_permissions())
    finally:
        folder.chmod(0o700)
    assert f"left out, no permission to read it: 1 ({locked})" in done.stdout
    assert f"left out, folder that cannot be read: 1 ({folder})" in done.stdout


@pytest.mark.slow
def test_a_speaker_of_silence_alone_ends_the_run_with_the_files(tmp_path):
    corpus = CorpusWriter(tmp_path / "corpus").speakers(*"abc")
    paths = [corpus.write("mute", f"{n}.wav", np.zeros(RATE, np.float32)) for n in range(2)]
    run = make_config(tmp_path / "a", corpus.root, num_workers=1)
    message = refused(run)
    assert "Speaker 'mute' has no usable recording" in message
    assert "Repair or remove these files, or the speaker." in message
    for path in paths:
        assert f"{path}: digital silence" in message


def write_validation(root: Path, waveform: np.ndarray) -> tuple[Path, Path]:
    """Gives a validation corpus of which one file is bad, and that file."""
    corpus = CorpusWriter(root).speakers(*"xyz")
    return corpus.root, corpus.write("x", "bad.wav", waveform, subtype="FLOAT")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("waveform", "reason"),
    [
        (np.full(RATE, np.nan, np.float32), "non-finite samples"),
        (np.full(160, 0.1, np.float32), "0.010 s"),
    ],
    ids=["nan", "10 ms"],
)
def test_a_validation_file_that_cannot_be_embedded_is_named(tmp_path, clean_root, waveform, reason):
    root, bad = write_validation(tmp_path / "val", waveform)
    run = make_config(tmp_path / "a", clean_root, val_data_root=str(root), min_utterance_seconds=0)
    message = refused(run)
    assert str(bad) in message and reason in message


@pytest.mark.slow
def test_silence_in_the_validation_data_is_named(tmp_path, clean_root):
    root, bad = write_validation(tmp_path / "val", np.zeros(RATE, np.float32))
    run = make_config(tmp_path / "a", clean_root, val_data_root=str(root))
    process = run.start()
    out, err = process.communicate(timeout=120)
    assert process.returncode in (2, 3), f"exit code {process.returncode}\n{out}\n{err}"
    assert f"{bad}: digital silence" in out + err


@pytest.mark.slow
def test_a_name_that_is_not_unicode_is_no_crash(tmp_path):
    corpus = CorpusWriter(tmp_path / "corpus").speakers(*"abcd")
    corpus.write("d", "silence.wav", np.zeros(RATE, np.float32))
    os.rename(corpus.root / "d", os.fsencode(corpus.root) + b"/Andr\xe9")
    run = make_config(tmp_path / "a", corpus.root)
    process = run.start()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 3, f"exit code {process.returncode}\n{out}\n{err}"
    assert "Traceback" not in err and "digital silence" in out
    assert run.results_exist()
