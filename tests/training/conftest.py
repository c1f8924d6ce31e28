"""Runs of the training command on tiny encoders and real speech."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from preloaded import Preloaded

from speaker_encoder import SpeakerEncoder

REPOSITORY = Path(__file__).resolve().parents[2]
TINY_ECAPA = {"channels": [16, 16, 16, 16, 48], "attention_channels": 8, "lin_neurons": 24}
TINY_WAVLM = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": [16, 16, 16, 16, 16, 16, 16],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "tdnn_dim": [16, 16, 16, 16, 32],
    "xvector_output_dim": 24,
}


class TrainingRun:
    """One config on disk, and the processes that are started with it."""

    def __init__(self, folder: Path, values: dict) -> None:
        self.folder = folder
        self.config_path = folder / "config.json"
        self.config_path.write_text(json.dumps(values))
        self.path = folder / "runs" / "run"

    def start(
        self, *arguments: str, command: tuple[str, ...] = (), is_fresh: bool = False
    ) -> Preloaded | subprocess.Popen:
        """Starts the command with its libraries imported already, or in a fresh interpreter.

        Fresh must be what has a launcher of its own, or sets variables that are read on import.
        """
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        environment["SPEAKER_ENCODER_CACHE"] = str(self.folder / "cache")
        given = [f"--config={self.config_path}", *arguments]
        if not (command or is_fresh):
            return Preloaded(REPOSITORY / "train_encoder.py", given, REPOSITORY, environment)
        return subprocess.Popen(
            [*(command or (sys.executable, "train_encoder.py")), *given],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, expect: int = 0, **options) -> subprocess.CompletedProcess:
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=300)
        assert process.returncode == expect, f"exit code {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def run_until(self, step: int, number: signal.Signals, **options) -> int:
        """Sends the signal when the step is in the record; gives the exit code."""
        process = self.start(**options)
        limit = time.monotonic() + 240
        while time.monotonic() < limit and process.poll() is None:
            if any(line["step"] >= step for line in self.metrics("train")):
                process.send_signal(number)
                break
            time.sleep(0.005)
        _, err = process.communicate(timeout=120)
        assert process.returncode != 0 or number == signal.SIGTERM, err
        return process.returncode

    def metrics(self, split: str) -> list[dict]:
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return []
        lines = path.read_text().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return [line for line in found if line["split"] == split]

    def bytes_of(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def results_exist(self) -> bool:
        return (self.path / "results.json").is_file()

    def results(self) -> dict:
        return json.loads((self.path / "results.json").read_text())


@pytest.fixture(scope="session")
def trained_start(tmp_path_factory) -> dict:
    """Keys of a run that starts from a tiny encoder which counts as trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        encoder = SpeakerEncoder.from_name("ecapa", False, TINY_ECAPA)
    encoder.config.untrained_head = False
    folder = tmp_path_factory.mktemp("pretrained")
    encoder.save_pretrained(folder)
    return {"model_name": str(folder), "pretrained": True, "encoder_config": None}


@pytest.fixture
def make_run(tmp_path, data_dir):
    """Gives make_run(name, **keys): 24 real readers to train on, 4 others to validate on."""

    def make(name: str = "a", **keys) -> TrainingRun:
        folder = tmp_path / name
        folder.mkdir()
        values = {
            "model_name": "ecapa",
            "pretrained": False,
            "encoder_config": TINY_ECAPA,
            "run_id": "run",
            "output_dir": str(folder / "runs"),
            "train_data_root": str(data_dir / "voxceleb" / "wav"),
            "val_data_root": str(data_dir / "libritts"),
            "window_size_s": 0.8,
            "speakers_per_batch": 4,
            "utterances_per_speaker": 3,
            "val_speakers_per_batch": 3,
            "val_utterances_per_speaker": 3,
            "max_steps": 6,
            "learning_rate_init": 1e-3,
            "val_every": 3,
            "save_every": 2,
            "backup_every": 0,
            "bootstrap_samples": 20,
            "vis_train_art_every": 0,
            "vis_val_art_every": 0,
            "num_workers": 0,
            "device": "cpu",
            "comet": "off",
        }
        values.update(keys)
        return TrainingRun(folder, values)

    return make
