"""Small trained-looking encoders, a Hub on loopback, and processes that talk to it."""

import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from hub_server import WRITE_TOKEN, HubServer

from speaker_encoder import SpeakerEncoder
from speaker_encoder.hub.check import check_utterances

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = {
    "ecapa": (
        "ecapa",
        {
            "channels": [16, 16, 16, 16, 48],
            "attention_channels": 8,
            "se_channels": 8,
            "lin_neurons": 24,
        },
    ),
    "wavlm": (
        "wavlm-base-plus-sv",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "conv_dim": [16] * 7,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
            "use_weighted_layer_sum": True,
            "tdnn_dim": [24, 24, 24, 24, 40],
            "xvector_output_dim": 24,
            "initializer_range": 0.2,
        },
    ),
    "dvector": ("dvector", {"hidden_size": 32, "num_layers": 2, "embedding_size": 24}),
}


@pytest.fixture(scope="session")
def make_encoder():
    """Makes a small encoder of a kind with random weights that says it was trained."""

    def make(encoder_kind: str, seed: int = 11) -> SpeakerEncoder:
        name, architecture = SMALL[encoder_kind]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = SpeakerEncoder.from_name(name, False, architecture)
            for module in encoder.modules():
                if isinstance(module, torch.nn.BatchNorm1d):
                    torch.nn.init.normal_(module.running_mean, std=0.3)
                    torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
        encoder.config.untrained_head = False
        encoder.config.base_model_name = name
        return encoder

    return make


@pytest.fixture(scope="session")
def utterances() -> list[np.ndarray]:
    return [waveform[500:] for waveform in check_utterances(16000, 0)]


@pytest.fixture
def hub(monkeypatch):
    """A Hub that this process's huggingface_hub talks to, with a token that may write."""
    server = HubServer().start()
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    yield server
    server.stop()


@pytest.fixture
def unchecked(monkeypatch):
    """Leaves out the fresh process, where a test is about what comes after it."""
    monkeypatch.setattr("speaker_encoder.hub.push.check_contents", lambda *_: None)


@pytest.fixture
def hub_environment(hub, tmp_path):
    """The environment of a process that talks to the Hub, with a cache of its own."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "hf_home"),
        "HF_TOKEN": WRITE_TOKEN,
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
        "PYTHONPATH": str(REPOSITORY),
    }
    environment.pop("HF_HUB_CACHE", None)
    return environment


@pytest.fixture
def run_python(hub_environment, tmp_path):
    """Runs code, or a module, in a new process."""

    def run(code: str, *arguments: str, expect: int = 0, **changes: str | None) -> str:
        environment = {**hub_environment, **changes}
        environment = {name: value for name, value in environment.items() if value is not None}
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == expect, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    return run
