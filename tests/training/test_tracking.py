"""The record of a run, with the real TensorBoard and Comet's real offline archive."""

import http.server
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import zipfile

import numpy as np
import pytest
import soundfile

from speaker_encoder.training.config import TrainConfig
from speaker_encoder.training.tracking import ExperimentTracker
from speaker_encoder.training.tracking_comet import quiet_comet
from speaker_encoder.training.tracking_files import read_metrics

quiet_comet()
SECRET = "PLANTEDSECRETKEY123456789"
LEAST = {"model_name": "ecapa", "train_data_root": "demo"}


@pytest.fixture(autouse=True)
def no_key_of_the_machine(monkeypatch):
    for name in ("COMET_API_KEY", "COMET_URL_OVERRIDE"):
        monkeypatch.delenv(name, raising=False)


def start(run_dir, resume_step=None, **keys):
    config = TrainConfig.from_dict({**LEAST, **keys})
    tracker = ExperimentTracker(config)
    tracker.start(config.to_dict(), run_dir, "my run", resume_step)
    return tracker


def lines(run_dir):
    return [json.loads(text) for text in (run_dir / "metrics.jsonl").read_text().splitlines()]


def archives(run_dir):
    """The messages and the files of each offline archive, oldest first."""
    found = []
    for path in sorted((run_dir / "comet").glob("*.zip"), key=os.path.getmtime):
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        messages = [json.loads(text) for text in files["messages.json"].splitlines()]
        found.append((messages, files))
    return found


def metrics_of(messages):
    found = []
    for message in messages:
        if message["type"] == "metric_msg" and message["payload"].get("context"):
            metric = message["payload"]["metric"]
            context, value = message["payload"]["context"], float(metric["metricValue"])
            found.append((context, metric["metricName"], value, metric["step"]))
    return sorted(found)


def uploads(messages, kind):
    return [
        message["payload"]
        for message in messages
        if message["type"] == "file_upload" and message["payload"]["upload_type"] == kind
    ]


def picture(path):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (10, 20, 30)).save(path)
    return path


def everything_in(folder):
    """Every byte in a folder, archives opened."""
    found = b""
    for path in folder.rglob("*"):
        if path.is_file():
            found += path.read_bytes() + str(path).encode()
            if path.suffix == ".zip":
                with zipfile.ZipFile(path) as archive:
                    found += b"".join(archive.read(name) for name in archive.namelist())
    return found


def test_offline_archive_holds_metrics_pictures_and_audio(tmp_path):
    before = time.monotonic()
    tracker = start(tmp_path)
    tracker.log_metrics({"loss": 1.5, "eer": 0.25}, "train", 3, 0.5)
    tracker.log_metrics({"eer": 0.125}, "validation", 3, 0.5)
    tracker.log_image(picture(tmp_path / "plots" / "train_umap_000003.png"), "train_umap", 3)
    waveform = np.array([0.5, -0.25, 0.0, 2.0], dtype=np.float32)
    about = {"step": 3, "speaker": "p225", "utterance": "p225_001"}
    tracker.log_audio(waveform, 16000, "step_000003_000.wav", 3, about)
    tracker.log_audio(np.zeros(10, dtype=np.float32), 16000, "silence.wav", 3, about)
    tracker.log_text("the augmentation", "augmentation", 3)
    tracker.log_parameters({"num_train_speakers": 5})
    tracker.finish()
    tracker.finish()
    assert time.monotonic() - before < 30  # nothing waits for a network; 2 s on a free core

    ((messages, files),) = archives(tmp_path)
    assert metrics_of(messages) == [
        ("train", "eer", 0.25, 3),
        ("train", "loss", 1.5, 3),
        ("validation", "eer", 0.125, 3),
    ]
    audio, silence = uploads(messages, "audio")
    assert audio["additional_params"]["fileName"] == "step_000003_000.wav"
    assert audio["metadata"] == {**about, "sample_rate": 16000}
    wav = tmp_path / "x.wav"
    wav.write_bytes(files[audio["file_path"]])
    samples, rate = soundfile.read(wav)
    assert rate == 16000
    np.testing.assert_allclose(samples, [0.5, -0.25, 0.0, 1.0], atol=1e-4)
    assert len(files[silence["file_path"]]) > 44
    (image,) = uploads(messages, "visualization")
    assert image["additional_params"]["step"] == 3
    assert files[image["file_path"]].startswith(b"\x89PNG")
    text = json.dumps(messages)
    assert "my run" in text and "num_train_speakers" in text
    assert b"the augmentation" in files.values()


def test_nothing_of_the_machine_is_logged(tmp_path):
    tracker = start(tmp_path)
    tracker.log_metrics({"loss": 1.0}, "train", 1, 0.1)
    tracker.finish()
    ((messages, _),) = archives(tmp_path)
    kinds = {message["type"] for message in messages}
    assert kinds <= {"log_other", "metric_msg", "parameter_msg", "file_upload"}
    text = json.dumps(messages)
    assert socket.gethostname() not in text and "pytest" not in text


def test_metrics_file_is_on_disk_at_once_and_plain_json(tmp_path):
    tracker = start(tmp_path, comet="off")
    tracker.log_metrics({"loss": np.float32(0.5), "eer": float("nan")}, "train", 1, 0.25)
    expected = {"step": 1, "epoch": 0.25, "split": "train", "loss": 0.5, "eer": None}
    assert lines(tmp_path) == [expected]
    tracker.finish()
    assert not (tmp_path / "comet").exists()


def test_resume_drops_what_came_after_the_checkpoint(tmp_path):
    tracker = start(tmp_path, comet="off")
    for step in range(6):
        tracker.log_metrics({"loss": float(step)}, "train", step, step / 10)
    tracker.finish()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "epo')  # killed in the middle of a line
    tracker = start(tmp_path, resume_step=3, comet="off")
    assert [line["step"] for line in lines(tmp_path)] == [0, 1, 2, 3]
    tracker.log_metrics({"loss": 40.0}, "train", 4, 0.4)
    tracker.finish()
    assert [line["loss"] for line in lines(tmp_path)] == [0.0, 1.0, 2.0, 3.0, 40.0]
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1, 2, 3, 4]
    assert not list(tmp_path.glob(".*.part"))

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [
        (0, 0.0),
        (1, 1.0),
        (2, 2.0),
        (3, 3.0),
        (4, 40.0),
    ]


def test_a_new_start_begins_an_empty_record(tmp_path):
    tracker = start(tmp_path, comet="off")
    tracker.log_metrics({"loss": 1.0}, "train", 1, 0.1)
    tracker.finish()
    start(tmp_path, comet="off").finish()
    assert lines(tmp_path) == []


def test_pictures_are_in_tensorboard_and_a_bad_one_is_only_a_warning(tmp_path, caplog):
    tracker = start(tmp_path, comet="off")
    tracker.log_image(picture(tmp_path / "plots" / "a.png"), "umap", 2)
    (tmp_path / "plots" / "bad.png").write_text("no picture")
    with caplog.at_level(logging.WARNING):
        tracker.log_image(tmp_path / "plots" / "bad.png", "bad", 2)
        tracker.log_image(tmp_path / "plots" / "none.png", "none", 2)
    tracker.finish()
    assert caplog.text.count("cannot be recorded") == 2

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Tags()["images"] == ["umap"]
    assert events.Images("umap")[0].step == 2


def test_a_resumed_run_goes_on_in_its_comet_experiment(tmp_path):
    first = start(tmp_path)
    first.log_metrics({"loss": 1.0}, "train", 1, 0.1)
    first.finish()
    second = start(tmp_path, resume_step=1)
    second.log_metrics({"loss": 2.0}, "train", 2, 0.2)
    second.finish()
    (before, files_before), (after, files_after) = archives(tmp_path)
    assert metrics_of(before) == [("train", "loss", 1.0, 1)]
    assert metrics_of(after) == [("train", "loss", 2.0, 2)]
    keys = {
        json.loads(files["experiment.json"])["offline_id"] for files in (files_before, files_after)
    }
    assert len(keys) == 1
    new = start(tmp_path)
    new.finish()
    assert json.loads(archives(tmp_path)[-1][1]["experiment.json"])["offline_id"] not in keys


def test_a_killed_run_is_logged_again(tmp_path):
    code = f"""
import os
from speaker_encoder.training.config import TrainConfig
from speaker_encoder.training.tracking import ExperimentTracker
config = TrainConfig(model_name="ecapa", train_data_root="demo")
tracker = ExperimentTracker(config)
tracker.start(config.to_dict(), {str(tmp_path)!r}, "my run")
for step in (1, 2, 3):
    tracker.log_metrics({{"loss": float(step)}}, "train", step, 0.1)
os.kill(os.getpid(), 9)
"""
    killed = subprocess.run([sys.executable, "-c", code], timeout=120)
    assert killed.returncode == -9
    resumed = start(tmp_path, resume_step=2)
    resumed.log_metrics({"loss": 30.0}, "train", 3, 0.3)
    resumed.finish()
    newest = max((tmp_path / "comet").glob("*.zip"), key=os.path.getmtime)
    with zipfile.ZipFile(newest) as archive:
        messages = [json.loads(text) for text in archive.read("messages.json").splitlines()]
    assert metrics_of(messages) == [
        ("train", "loss", 1.0, 1),
        ("train", "loss", 2.0, 2),
        ("train", "loss", 30.0, 3),
    ]


class RefusingServer(http.server.BaseHTTPRequestHandler):
    """Refuses every key."""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.dumps({"msg": f"wrong key {SECRET}", "code": 400, "sdk_error_code": 90212})
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body.encode())

    do_GET = do_POST

    def log_message(self, *arguments):
        pass


@pytest.fixture(params=["unreachable", "refusing"])
def server_url(request):
    if request.param == "unreachable":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        yield f"http://127.0.0.1:{port}/clientlib/"
        return
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), RefusingServer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/clientlib/"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("given_by", ["config", "environment"])
def test_a_key_that_does_not_work_goes_offline_and_is_written_nowhere(
    tmp_path, monkeypatch, caplog, server_url, given_by
):
    monkeypatch.setenv("COMET_URL_OVERRIDE", server_url)
    keys = {"comet_key": SECRET, "hub_token": SECRET}
    if given_by == "environment":
        monkeypatch.setenv("COMET_API_KEY", SECRET)
        keys = {}
    log_path = tmp_path / "train.log"
    handler = logging.FileHandler(log_path)
    logging.getLogger().addHandler(handler)
    before = time.monotonic()
    try:
        with caplog.at_level(logging.DEBUG):
            tracker = start(tmp_path, **keys)
            tracker.log_metrics({"loss": 1.0}, "train", 1, 0.1)
            tracker.finish()
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    assert time.monotonic() - before < 30
    assert "going on offline" in caplog.text
    ((messages, _),) = archives(tmp_path)
    assert metrics_of(messages) == [("train", "loss", 1.0, 1)]
    assert SECRET.encode() not in everything_in(tmp_path)


def test_offline_and_off_never_use_the_key(tmp_path, monkeypatch):
    def refuse(*arguments, **keywords):
        raise AssertionError("a network connection")

    monkeypatch.setattr(socket, "create_connection", refuse)
    for mode in ("offline", "off"):
        tracker = start(tmp_path / mode, comet=mode, comet_key=SECRET)
        tracker.log_metrics({"loss": 1.0}, "train", 1, 0.1)
        tracker.finish()
        assert SECRET.encode() not in everything_in(tmp_path / mode)
    assert archives(tmp_path / "offline") and not (tmp_path / "off" / "comet").exists()


def test_online_without_a_key_says_so(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        start(tmp_path, comet="online").finish()
    assert "neither comet_key nor COMET_API_KEY" in caplog.text
    assert len(archives(tmp_path)) == 1
