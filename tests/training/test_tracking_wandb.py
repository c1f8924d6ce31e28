"""The record of a run in wandb's real offline folder."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from speaker_encoder.errors import UserError
from speaker_encoder.training.config import TrainConfig
from speaker_encoder.training.tracking import ExperimentTracker

REPOSITORY = Path(__file__).resolve().parents[2]
SECRET = "PLANTEDSECRETKEY1234567890PLANTEDSECRETKEY"
LEAST = {"model_name": "ecapa", "train_data_root": "demo", "comet": "off", "report_to": ["wandb"]}


GO_ON = """
import sys
from pathlib import Path
from speaker_encoder.training.tracking_wandb import WandbRecord
record = WandbRecord("my run", Path(sys.argv[1]), resume=True)
record.log_metrics({"loss": 0.0625}, "train", 4, 0.6)
record.close()
"""


def record(run_dir):
    config = TrainConfig.from_dict({**LEAST, "comet_key": SECRET, "hub_token": SECRET})
    tracker = ExperimentTracker(config)
    tracker.start(config.to_dict(), run_dir, "my run")
    return tracker


def contents(run_dir):
    """The bytes of the offline runs, oldest first."""
    paths = sorted((run_dir / "wandb").glob("offline-run-*/*.wandb"))
    return [path.read_bytes() for path in paths]


def test_metrics_pictures_and_audio_are_in_the_offline_record(tmp_path, monkeypatch):
    import wandb
    from PIL import Image

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    tracker = record(tmp_path)
    tracker.log_metrics({"loss": 0.125, "eer": 0.25}, "train", 3, 0.5)
    Image.new("RGB", (8, 6), (10, 20, 30)).save(tmp_path / "umap.png")
    tracker.log_image(tmp_path / "umap.png", "val_umap", 3)
    tracker.log_audio(np.zeros(1600, np.float32), 16000, "a.wav", 3, {"speaker": "p225"})
    tracker.finish()
    wandb.teardown()  # waits for the last bytes
    (found,) = contents(tmp_path)
    for part in (b"train/loss", b"0.125", b"train/eer", b"my run", b"val_umap", b"model_name"):
        assert part in found, part
    assert list((tmp_path / "wandb").glob("offline-run-*/files/media/images/*.png"))
    assert list((tmp_path / "wandb").glob("offline-run-*/files/media/audio/**/*.wav"))
    run_id = json.loads((tmp_path / "wandb" / "session.json").read_text())["run_id"]
    everything = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(SECRET.encode() in content for content in everything)
    assert socket.gethostname().encode() not in found

    subprocess.run([sys.executable, "-c", GO_ON, str(tmp_path)], check=True, cwd=REPOSITORY)
    assert b"0.0625" in b"".join(contents(tmp_path))
    assert all(run_id.encode() in content for content in contents(tmp_path))


def test_without_a_key_it_is_offline_and_asks_nothing(tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    record(tmp_path / "run").finish()
    assert len(contents(tmp_path / "run")) == 1


def test_without_wandb_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        record(tmp_path)


RECORD = """
import logging, sys
from pathlib import Path
from speaker_encoder.training import tracking_wandb
logging.basicConfig(level="INFO")
tracking_wandb._INIT_SECONDS = 1.0
record = tracking_wandb.WandbRecord("my run", Path(sys.argv[1]), resume=False)
record.log_metrics({"loss": 0.0625}, "train", 4, 0.6)
record.close()
"""


def in_a_process(folder, **environment):
    """Records in a process that has only these variables of wandb."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_") and k != "NETRC"}
    return subprocess.run(
        [sys.executable, "-c", RECORD, str(folder / "run")],
        env={**kept, "HOME": str(folder), "USERPROFILE": str(folder), **environment},
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=60,
        check=False,
    )


@pytest.fixture
def nobody():
    """The address of a server on this machine that refuses every connection."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and never listens
        yield f"127.0.0.1:{held.getsockname()[1]}"


def test_a_server_that_cannot_be_reached_leaves_an_offline_record(tmp_path, nobody):
    (tmp_path / ".netrc").write_text(f"machine {nobody} login user password {'a' * 40}\n")
    (tmp_path / ".netrc").chmod(0o600)
    found = in_a_process(tmp_path, WANDB_BASE_URL=f"http://{nobody}")
    assert found.returncode == 0, found.stderr
    assert "wandb cannot record online (CommError" in found.stderr  # it went by the key
    assert "send it with: wandb sync" in found.stderr
    assert b"0.0625" in b"".join(contents(tmp_path / "run"))


def test_a_key_of_another_server_is_none(tmp_path, nobody):
    (tmp_path / ".netrc").write_text(f"machine other.server login user password {'a' * 40}\n")
    (tmp_path / ".netrc").chmod(0o600)
    found = in_a_process(tmp_path, WANDB_BASE_URL=f"http://{nobody}")
    assert found.returncode == 0 and "cannot record" not in found.stderr, found.stderr
    assert len(contents(tmp_path / "run")) == 1


def test_an_unknown_mode_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(UserError, match=r"WANDB_MODE is 'ofline'.*online, offline or disabled"):
        record(tmp_path)
    found = in_a_process(tmp_path, WANDB_MODE="ofline")  # wandb itself has not started yet
    assert "UserError: report_to: the environment's WANDB_MODE" in found.stderr
