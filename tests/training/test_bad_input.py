"""Configs, corpora, disks and networks that cannot work: one message, exit code 2."""

import contextlib
import json
import os
import subprocess
import sys
import zipfile

import pytest
from broken_files import CorpusWriter, make_config, refused

NOBODY_LISTENS = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def clean_root(tmp_path_factory):
    return CorpusWriter(tmp_path_factory.mktemp("corpus") / "clean").speakers(*"abcd").root


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    """A Hub that does not answer, an empty cache, and no proxy on the way."""
    monkeypatch.setenv("HF_ENDPOINT", NOBODY_LISTENS)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("COMET_URL_OVERRIDE", NOBODY_LISTENS)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HF_HUB_CACHE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


# corpora


def test_an_empty_root_and_one_without_audio(tmp_path):
    empty, text = tmp_path / "empty", tmp_path / "text"
    (text / "speaker").mkdir(parents=True)
    (text / "speaker" / "notes.txt").write_text("no recordings yet")
    empty.mkdir()
    message = refused(make_config(tmp_path / "a", empty), "--validate_only")
    assert f"The corpus {empty} is an empty folder. Put recordings there" in message
    message = refused(make_config(tmp_path / "b", text), "--validate_only")
    assert f"No audio files in {text}; found 1 x .txt file. Wanted recordings" in message


def test_recordings_that_are_in_no_speakers_folder(tmp_path):
    corpus = CorpusWriter(tmp_path / "corpus")
    corpus.write("", "a.wav")
    message = refused(make_config(tmp_path / "a", corpus.root), "--validate_only")
    assert f"not in the folder of a speaker: 1 (such as {corpus.root / 'a.wav'})" in message


@pytest.mark.slow
def test_one_speaker_is_too_few_and_no_encoder_is_loaded_for_that(tmp_path, no_network):
    corpus = CorpusWriter(tmp_path / "corpus").speakers("a", num_utterances=4)
    run = make_config(tmp_path / "a", corpus.root, pretrained=True, encoder_config=None)
    message = refused(run, is_fresh=True)
    assert (
        "A training batch needs 4 different speakers, found 1. Add speakers, or lower " in message
    )
    assert "speakers_per_batch" in message and "Hub" not in message
    assert not any(run.path.glob("model*"))


def test_too_few_validation_speakers(tmp_path, clean_root):
    corpus = CorpusWriter(tmp_path / "val").speakers("x")
    run = make_config(tmp_path / "a", clean_root, val_data_root=str(corpus.root))
    message = refused(run, "--validate_only")
    assert "A validation batch needs 3 different speakers, found 1" in message
    assert "val_speakers_per_batch" in message


def test_speakers_with_few_utterances_are_an_error_when_asked_for(tmp_path, clean_root):
    keys = {"few_utterances": "error", "utterances_per_speaker": 5}
    message = refused(make_config(tmp_path / "a", clean_root, **keys), "--validate_only")
    assert "4 training speakers have fewer than 5 utterances: a (3), b (3), c (3), d (3)" in message


def test_speakers_in_both_training_and_validation_data_are_named(tmp_path, clean_root):
    corpus = CorpusWriter(tmp_path / "val").speakers("b", "d", "x")
    run = make_config(tmp_path / "a", clean_root, val_data_root=str(corpus.root))
    message = refused(run, "--validate_only")
    assert "2 speakers are in both training and validation data: b, d." in message
    assert "allow_speaker_overlap" in message
    run.run("--validate_only", "--override", "allow_speaker_overlap=true")


def test_an_unknown_encoder_is_found_without_training(tmp_path, clean_root):
    run = make_config(tmp_path / "a", clean_root, model_name="ecappa")
    message = refused(run, "--validate_only")
    assert "ecappa" in message and "Did you mean 'ecapa'?" in message


# configs


def test_a_trailing_comma_with_its_line_and_column(tmp_path, clean_root):
    run = make_config(tmp_path / "a", clean_root)
    run.config_path.write_text('{\n  "model_name": "ecapa",\n  "seed": 1,\n}\n')
    message = refused(run)
    assert f"{run.config_path} has 1 problem" in message
    assert "line 3 column 12: a trailing comma; remove it" in message


def test_a_duplicate_key_with_its_lines(tmp_path, clean_root):
    run = make_config(tmp_path / "a", clean_root)
    run.config_path.write_text('{\n  "seed": 1,\n  "model_name": "ecapa",\n  "seed": 2\n}\n')
    assert "seed: stands twice, in line 2 and line 4" in refused(run)


def test_every_wrong_value_in_one_go(tmp_path):
    missing = tmp_path / "missing"
    keys = {"learning_rate_init": "1e-4", "max_step": 3, "scheduler_patience": -1}
    message = refused(make_config(tmp_path / "a", missing, **keys))
    assert "has 4 problems" in message
    number = 'learning_rate_init: found "1e-4", a text; write the number without quotes: 1e-4'
    assert number in message
    assert "max_step: an unknown key. Did you mean max_steps?" in message
    assert f'train_data_root: found "{missing}", which does not exist' in message
    assert "scheduler_patience: found -1" in message


def test_a_device_that_is_not_there(tmp_path, clean_root):
    keys = {"data_parallel": [0, 61], "device": "best"}
    message = refused(make_config(tmp_path / "a", clean_root, **keys))
    assert "data_parallel: found [0, 61], this machine has" in message
    assert "Possible is null, or" in message and "cpu" in message
    assert not (tmp_path / "a" / "runs").exists()


def test_a_trial_list_that_is_not_text(tmp_path, clean_root):
    corpus = CorpusWriter(tmp_path / "val").speakers(*"xyz")
    trials = tmp_path / "trials.txt"
    trials.write_bytes(b"1 caf\xe9/a.wav b.wav\n")
    keys = {"val_data_root": str(corpus.root), "val_trials": str(trials)}
    message = refused(make_config(tmp_path / "a", clean_root, **keys), "--validate_only")
    assert str(trials) in message


# full disks


def limited(num_kib: int) -> tuple[str, ...]:
    command = f'ulimit -f {num_kib}; exec "$0" train_encoder.py "$@"'
    return ("bash", "-c", command, sys.executable)


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, clean_root):
    run = make_config(tmp_path / "a", clean_root, max_steps=1)
    run.run()
    before = {path.name: path.read_bytes() for path in (run.path / "checkpoint-1").iterdir()}
    assert len(before["optimizer.pt"]) > 300_000
    more = ("--override", "max_steps=2")
    message = refused(run, *more, command=limited(280))
    assert f"The disk is full: {run.path / 'checkpoint-2'} could not be saved." in message
    assert f"The newest complete checkpoint is {run.path / 'checkpoint-1'}." in message
    assert "force_restart false" in message
    assert [path.name for path in run.path.glob("checkpoint-*")] == ["checkpoint-1"]
    assert {p.name: p.read_bytes() for p in (run.path / "checkpoint-1").iterdir()} == before


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1.8 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1800k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root; a limit on file sizes is tested too")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_a_file_system_that_fills_up(tmp_path, clean_root, small_disk):
    keys = {"max_steps": 6, "backup_every": 1, "backup_keep": 9, "output_dir": str(small_disk)}
    run = make_config(tmp_path / "a", clean_root, **keys)
    run.path = small_disk / "run"
    message = refused(run)
    assert "The disk is full:" in message and "The newest complete checkpoint is" in message
    steps = sorted(path.name for path in run.path.glob("checkpoint-*"))
    assert steps and len(steps) < 6 and f"{run.path / steps[-1]}." in message
    assert (run.path / steps[-1] / "optimizer.pt").is_file()
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    done = run.run()
    assert f"resuming from {run.path / steps[-1]}" in done.stderr
    assert run.results()["steps"] == 6


@pytest.mark.slow
def test_a_disk_that_was_full_at_the_start_can_be_cleared_and_used(
    tmp_path, clean_root, small_disk
):
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    keys = {"max_steps": 1, "output_dir": str(small_disk)}
    run = make_config(tmp_path / "a", clean_root, **keys)
    assert "disk is full" in refused(run)
    filler.unlink()
    assert "model" in run.run().stdout


# network and secrets


@pytest.mark.slow
@pytest.mark.usefixtures("no_network")
def test_a_hub_that_cannot_be_reached(tmp_path, clean_root):
    run = make_config(tmp_path / "a", clean_root, pretrained=True, encoder_config=None)
    message = refused(run, is_fresh=True)
    assert "Could not load 'ecapa' (speechbrain/spkrec-ecapa-voxceleb on the Hub)" in message
    assert "cannot be reached, and there is no copy in the local cache" in message
    assert "hf download speechbrain/spkrec-ecapa-voxceleb --local-dir" in message


SECRETS = ("COMETKEYcomet0123456789", "hf_HUBTOKENhub0123456789", "hf_FROMENVenv0123456789")


@pytest.mark.slow
@pytest.mark.usefixtures("no_network")
def test_secrets_are_never_written(tmp_path, clean_root, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRETS[2])
    keys = {"comet": "auto", "comet_key": SECRETS[0], "hub_token": SECRETS[1], "max_steps": 1}
    run = make_config(tmp_path / "a", clean_root, **keys)
    done = run.run(is_fresh=True)
    assert "Comet cannot be used online" in done.stderr
    assert "comet_key" not in json.loads((run.path / "train_config.json").read_text())
    checked = run.run("--validate_only", is_fresh=True)
    texts = [text.encode() for text in (done.stdout, done.stderr, checked.stdout, checked.stderr)]
    num_archives = 0
    for path in run.path.rglob("*"):
        texts.append(os.fsencode(path))
        if path.is_file():
            texts.append(path.read_bytes())
            if zipfile.is_zipfile(path):
                num_archives += 1
                with zipfile.ZipFile(path) as archive:
                    texts += [archive.read(name) for name in archive.namelist()]
    assert num_archives >= 2 and len(texts) > 30  # the Comet archive, and torch's own files
    for secret in SECRETS:
        assert not any(secret.encode() in text for text in texts)


def test_a_wrong_secret_is_not_shown(tmp_path, clean_root):
    keys = {"comet_key": [SECRETS[0]], "hub_token": {"token": SECRETS[1]}}
    message = refused(make_config(tmp_path / "a", clean_root, **keys))
    assert "comet_key" in message and "hub_token" in message
    assert not any(secret in message for secret in SECRETS)
