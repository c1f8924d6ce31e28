"""A run that pushes: at its end, after its saves, without a Hub; and nothing secret leaves."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hub_server import WRITE_TOKEN
from huggingface_hub import ModelCard
from results_by_hand import untouched
from safetensors.torch import load

from speaker_encoder import SpeakerEncoder
from speaker_encoder.hub.push import PushOptions, push_folder
from speaker_encoder.hub.secrets import known_secrets
from speaker_encoder.training import TrainConfig, publishing
from speaker_encoder.training.build import build_model
from speaker_encoder.training.callbacks import StopRequest
from speaker_encoder.training.publishing import BackgroundPush, push_problem, push_run
from speaker_encoder.training.run import TrainOutcome
from speaker_encoder.training.run_dir import RunDirectory

REPOSITORY = Path(__file__).resolve().parents[2]
COMET_KEY = "CometKey0123456789abcdefghijklmnop"
ECAPA = {"channels": [16, 16, 16, 16, 48], "attention_channels": 8, "lin_neurons": 24}
SPEAKERS = {"train": ("p225", "p226", "p227", "p228"), "val": ("p229", "p230", "p231", "p232")}


@pytest.fixture
def start_run(hub_environment, tmp_path):
    """Trains in a new process, its home below the test's folder, and gives what it said."""
    home = tmp_path / "home" / "jane-planted-doe"
    for split, names in SPEAKERS.items():
        for number, name in enumerate(names):
            _write_speaker(home / split / name, 100 * (1 + number) + (50 if split == "val" else 0))

    def start(expect: int = 0, environment: dict | None = None, **changes: object) -> str:
        values = {
            "model_name": "ecapa",
            "pretrained": False,
            "encoder_config": ECAPA,
            "train_data_root": str(home / "train"),
            "val_data_root": str(home / "val"),
            "window_size_s": 0.5,
            "speakers_per_batch": 2,
            "utterances_per_speaker": 2,
            "val_speakers_per_batch": 2,
            "val_utterances_per_speaker": 2,
            "num_workers": 0,
            "max_steps": 3,
            "save_every": 1,
            "val_every": 2,
            "bootstrap_samples": 20,
            "device": "cpu",
            "output_dir": str(home / "runs"),
            "run_id": "run",
            "comet": "off",
            "comet_key": COMET_KEY,
            "hub_token": WRITE_TOKEN,
            "push_to_hub": True,
            "hub_model_id": "someone/trained",
            "allow_worse": True,  # of three steps from random weights
            **changes,
        }
        (home / "config.json").write_text(json.dumps(values))
        given = {**hub_environment, "HOME": str(home), "COMET_API_KEY": COMET_KEY}
        given = {**given, "SPEAKER_ENCODER_CACHE": str(home / "cache"), **(environment or {})}
        given.pop("HF_TOKEN", None)  # that of the config is used
        done = subprocess.run(
            [sys.executable, "train_encoder.py", "--config", str(home / "config.json")],
            cwd=REPOSITORY,
            env=given,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == expect, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    start.home = home
    start.run = home / "runs" / "run"
    return start


def _write_speaker(folder: Path, pitch: float) -> None:
    """Writes four utterances of one harmonic voice."""
    import soundfile

    folder.mkdir(parents=True)
    generator = np.random.default_rng(int(pitch))
    time = np.arange(16000) / 16000
    for number in range(4):
        voice = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 8))
        waveform = 0.1 * voice + 0.05 * generator.standard_normal(len(time))
        soundfile.write(folder / f"{number}.wav", waveform.astype(np.float32), 16000)


def _assert_nothing_secret(hub, home: Path) -> None:
    """Greps every byte that was sent: lines, headers and bodies, also within encodings."""
    assert hub.received
    for request in hub.received:
        headers = {k: v for k, v in request.headers.items() if k != "authorization"}
        said = request.path.encode() + json.dumps(headers).encode() + request.body
        bodies = [said, *_decoded(request.body)]
        for secret in (COMET_KEY, WRITE_TOKEN, str(home), "jane-planted"):
            assert not any(secret.encode() in body for body in bodies), (secret, request.path)
        if request.path.startswith("/storage/"):
            assert "authorization" not in request.headers


def _decoded(body: bytes) -> list[bytes]:
    import base64

    contents = re.findall(rb'"(?:content|sample)": ?"([A-Za-z0-9+/=]+)"', body)
    return [base64.b64decode(content) for content in contents]


@pytest.mark.slow
def test_run_that_pushes_at_its_end(hub, start_run, utterances, unchecked, tmp_path):
    said = start_run()
    assert f"pushed 15 files to {hub.url}/someone/trained, commit" in said
    files = hub.repositories["someone/trained"].commits[-1].files
    assert {
        *("config.json", "model.safetensors", "preprocessor_config.json", "README.md"),
        *("train_config.json", "results.json", "hyperparams.yaml", "embedding_model.ckpt"),
        *("plots/umap.png", "plots/det.png", "plots/curve.png"),
    } <= set(files)
    _assert_nothing_secret(hub, start_run.home)
    assert not any(
        WRITE_TOKEN.encode() in path.read_bytes()
        for path in start_run.run.rglob("*")
        if path.is_file()
    )
    config = json.loads(files["train_config.json"])
    assert config["loss"] == {"name": "ge2e", "variant": "softmax"} and config["max_steps"] == 3
    assert not {"train_data_root", "val_data_root", "output_dir", "hub_token"} & set(config)
    results = json.loads(files["results.json"])
    assert results["num_val_speakers"] == 4 and results["num_unusable_files"] == 0

    card = ModelCard(files["README.md"].decode())
    assert card.data.library_name == "speaker-encoder"
    assert card.data.license is None and card.data.base_model is None  # random weights
    metrics = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert metrics["eer"] == round(100 * results["after"]["eer"], 3)
    assert metrics["min_dcf"] == round(results["after"]["min_dcf"], 4)
    assert "4 speakers that were not trained on" in card.data.eval_results[0].dataset_name
    for text in ("16 utterances", "| before | 0 |", "| after |", "plots/det.png", "wan2018ge2e"):
        assert text in card.content, text

    pulled = SpeakerEncoder.from_pretrained("someone/trained", cache_dir=tmp_path / "cache")
    trained = SpeakerEncoder.from_pretrained(start_run.run / "model")
    assert (pulled.encode(utterances) - trained.encode(utterances)).abs().max() <= 1e-5

    push_folder(start_run.run, PushOptions("someone/whole", include_loss=True))
    weights = hub.repositories["someone/whole"].commits[-1].files["loss.safetensors"]
    assert set(load(weights)) == {"loss.w", "loss.b"}
    assert not any(name.startswith("loss") for name in files)

    num_commits = len(hub.repositories["someone/trained"].commits)
    said = start_run()  # finished and pushed
    assert f"pushed 15 files to {hub.url}/someone/trained" in said
    assert len(hub.repositories["someone/trained"].commits) == num_commits

    # The same config goes on from what was pulled.
    go_on = {"model_name": "someone/trained", "pretrained": True, "encoder_config": None}
    said = start_run(**go_on, run_id="second", push_to_hub=False)
    assert "someone/trained: 3 steps" in said
    second = SpeakerEncoder.from_pretrained(start_run.run.parent / "second" / "model")
    assert second.embedding_dim == 24


@pytest.mark.slow
def test_hub_out_of_reach_leaves_the_model_and_says_how_to_push_later(hub, start_run):
    hub.stop()
    said = start_run(expect=3, hub_private=True, hub_strategy="every_save")
    assert (start_run.run / "push.log").is_file()
    command = f"speaker-encoder push {start_run.run} --repo_id someone/trained --private"
    assert "not pushed, the model is saved: Could not push to someone/trained" in said
    assert "the Hub cannot be reached" in said and command in said
    assert WRITE_TOKEN not in said and COMET_KEY not in said
    assert (start_run.run / "results.json").is_file()
    assert SpeakerEncoder.from_pretrained(start_run.run / "model").embedding_dim == 24


@pytest.fixture
def finished(make_encoder, tmp_path):
    """The config and the directory of a run that is to be pushed."""
    config = TrainConfig(
        model_name="dvector",
        pretrained=False,
        train_data_root="demo",
        push_to_hub=True,
        hub_model_id="someone/mine",
        hub_token=WRITE_TOKEN,
        comet_key=COMET_KEY,
    )
    run = RunDirectory(tmp_path / "run")
    run.create()
    make_encoder("dvector").save_pretrained(run.model_dir)
    return config, run


def _push_with(monkeypatch, *command: str) -> None:
    """Lets another command stand for the push."""
    monkeypatch.setattr(publishing, "_command", lambda *_: command)


def _is_alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.is_file() and state.read_text().rpartition(")")[2].split()[0] != "Z"


def _wait_for(path: Path) -> list[int]:
    limit = time.monotonic() + 60
    while not (path.is_file() and path.read_text().endswith("\n")):
        assert time.monotonic() < limit
        time.sleep(0.01)
    return [int(pid) for pid in path.read_text().split()]


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "], ids=["ends", "does not listen"])
def test_signal_ends_the_last_push_and_all_that_it_started(
    finished, monkeypatch, tmp_path, caplog, trap
):
    config, run = finished
    pids = tmp_path / "pids"
    _push_with(monkeypatch, "sh", "-c", f"{trap}sleep 600 & echo $! $$ > {pids}; wait; sleep 600")
    monkeypatch.setattr(publishing, "_END_SECONDS", 0.3)
    with StopRequest() as stop:
        stop.consequence = "ending the push"
        stopper = threading.Thread(
            target=lambda: _wait_for(pids) and os.kill(os.getpid(), signal.SIGTERM)
        )
        stopper.start()
        pushed = push_run(config, run, stop)
        stopper.join()
        command = f"speaker-encoder push {run.path} --repo_id someone/mine"
        assert "not pushed, the model is saved: the push was ended by a signal." in pushed.text
        assert command in pushed.text and pushed.problem in pushed.text
        assert "SIGTERM: ending the push" in caplog.text
        assert not any(_is_alive(pid) for pid in _wait_for(pids))
        assert push_problem(run) == pushed.problem
        assert TrainOutcome(run, None, "", push_problem(run)).exit_code == 3
        # A wish that is older than the push.
        _push_with(monkeypatch, "sh", "-c", f"touch {tmp_path / 'started'}")
        assert "ended by a signal" in push_run(config, run, stop).text
        assert not (tmp_path / "started").exists()
    # The same run again, without a signal.
    _push_with(monkeypatch, "echo", "pushed 4 files")
    assert push_run(config, run, StopRequest()).text == "pushed 4 files"
    assert push_problem(run) is None


def test_process_that_cannot_be_started_does_not_end_training(finished, monkeypatch, caplog):
    config, run = finished
    _push_with(monkeypatch, "/nowhere/python")
    assert not BackgroundPush(config, run).start()
    assert "a push to someone/mine could not be started: [Errno 2]" in caplog.text
    pushed = push_run(config, run, StopRequest())
    assert "its process could not be started ([Errno 2]" in pushed.problem
    assert f"speaker-encoder push {run.path} --repo_id someone/mine" in pushed.text
    assert TrainOutcome(run, None, "", pushed.problem).exit_code == 3


@pytest.mark.slow
def test_run_that_found_nothing_better_is_not_pushed(hub, finished, monkeypatch, hub_environment):
    config, run = finished
    untouched().save(run.results_path)
    for name, value in hub_environment.items():
        monkeypatch.setenv(name, value)
    pushed = push_run(config, run, StopRequest())
    assert "not pushed, the model is saved: " in pushed.text
    assert "beat the encoder that it started from" in pushed.problem
    assert pushed.problem.endswith(
        f"\n  speaker-encoder push {run.path} --repo_id someone/mine --allow_worse"
    )
    assert not hub.received
    assert TrainOutcome(run, None, "", push_problem(run)).exit_code == 3
    assert "--allow_worse" not in publishing._command(config, run.path)
    assert "--allow_worse" in publishing._command(replace(config, allow_worse=True), run.path)


def test_damaged_record_of_the_last_push_is_no_obstacle(finished, monkeypatch):
    config, run = finished
    (run.path / "push.json").write_text("{")
    _push_with(monkeypatch, "true")  # says nothing
    assert push_run(config, run, StopRequest()).text == "pushed to someone/mine"


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_token_of_the_environment_wins_over_the_config(finished, monkeypatch, name):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    environment = publishing._environment(finished[0])
    assert environment["HF_TOKEN"] == WRITE_TOKEN
    monkeypatch.setenv(name, "own")
    environment = publishing._environment(finished[0])
    assert environment.get("HF_TOKEN", "own") == environment[name] == "own"
    for secret, value in environment.items():  # it is searched for all the same
        monkeypatch.setenv(secret, value)
    assert {WRITE_TOKEN, COMET_KEY} <= known_secrets()
    monkeypatch.delenv("SPEAKER_ENCODER_HUB_TOKEN")
    build_model(finished[0], num_speakers=2)
    assert WRITE_TOKEN not in os.environ.values()


@pytest.mark.slow
def test_pushes_in_the_background_one_at_a_time(
    hub, make_encoder, hub_environment, tmp_path, monkeypatch, caplog
):
    for name, value in hub_environment.items():
        monkeypatch.setenv(name, value)
    config = TrainConfig(
        model_name="dvector",
        train_data_root="demo",
        push_to_hub=True,
        hub_model_id="someone/background",
    )
    run = RunDirectory(tmp_path / "run")
    run.create()
    push = BackgroundPush(config, run)
    assert not push.start()  # there is no model yet
    make_encoder("dvector").save_pretrained(run.model_dir)
    assert push.start()
    assert not push.start()
    push._process.wait()
    assert len(hub.repositories["someone/background"].commits) == 2
    hub.stop()
    assert push.start()
    push._process.wait()
    push.stop()
    assert "a push to someone/background failed" in caplog.text
    assert "the Hub cannot be reached" in (run.path / "push.log").read_text()
    assert push.start()
    push.stop()  # ends it at once
