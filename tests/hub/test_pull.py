"""Pulling: private repositories, revisions, the cache, and one clear message for each trouble."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hub_server import WRITE_TOKEN
from transformers import AutoFeatureExtractor, AutoModel

from speaker_encoder import SpeakerEncoder, UserError

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 1)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def publish(hub, tmp_path):
    """Publishes an encoder as somebody pushed it; gives the commit's sha."""

    def put(encoder: SpeakerEncoder, private: bool = False, **extra: bytes) -> str:
        folder = tmp_path / f"saved{len(list(tmp_path.iterdir()))}"
        encoder.save_pretrained(folder)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        return hub.publish("someone/mine", {**files, **extra}, private).sha

    return put


def test_private_repository_needs_a_token(hub, publish, make_encoder, cache, monkeypatch):
    publish(make_encoder("dvector"), private=True)
    assert SpeakerEncoder.from_pretrained("someone/mine").embedding_dim == 24
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match=r"no such repository, or it is private.*hf auth login"):
        SpeakerEncoder.from_pretrained("someone/mine", cache_dir=cache / "other")
    encoder = SpeakerEncoder.from_pretrained(
        "someone/mine", cache_dir=cache / "third", token=WRITE_TOKEN
    )
    assert encoder.embedding_dim == 24
    with pytest.raises(UserError, match=r"does not accept the token \(401\)"):
        SpeakerEncoder.from_pretrained("someone/mine", cache_dir=cache / "4", token="hf_wrong")


def test_revisions(hub, publish, make_encoder, utterances, cache):
    first, second = make_encoder("dvector"), make_encoder("dvector", seed=12)
    sha = publish(first)
    publish(second)
    newest = SpeakerEncoder.from_pretrained("someone/mine").encode(utterances)
    assert (newest - second.encode(utterances)).abs().max() <= 1e-6
    older = SpeakerEncoder.from_pretrained("someone/mine", revision=sha).encode(utterances)
    assert (older - first.encode(utterances)).abs().max() <= 1e-6
    with pytest.raises(UserError, match=r"no such revision 'v9'. Check it: a branch, a tag"):
        SpeakerEncoder.from_pretrained("someone/mine", revision="v9")


def test_auto_classes_and_the_cache_offline(
    hub, publish, make_encoder, utterances, cache, monkeypatch
):
    encoder = make_encoder("dvector")
    publish(encoder)
    AutoFeatureExtractor.from_pretrained("someone/mine")
    AutoModel.from_pretrained("someone/mine")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    num_requests = len(hub.received)
    model = AutoModel.from_pretrained("someone/mine")
    extractor = AutoFeatureExtractor.from_pretrained("someone/mine")
    assert extractor.sampling_rate == 16000
    assert (model.encode(utterances) - encoder.encode(utterances)).abs().max() <= 1e-6
    assert len(hub.received) == num_requests
    with pytest.raises(UserError, match="no copy in the local cache"):
        SpeakerEncoder.from_pretrained("someone/other")


def test_repository_of_another_kind(hub, cache):
    hub.publish("someone/bert", {"config.json": b'{"model_type": "bert"}', "a.txt": b"x"})
    with pytest.raises(UserError, match=r"'someone/bert' holds no speaker encoder.*'bert'"):
        SpeakerEncoder.from_pretrained("someone/bert")
    hub.publish("someone/data", {"train.csv": b"a,b"})
    with pytest.raises(UserError, match=r"holds no speaker encoder that is known here"):
        SpeakerEncoder.from_pretrained("someone/data")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("401", r"does not accept the token \(401\)"),
        ("403", r"the token may not read it \(403\)"),
        ("404", r"refuses it \(status 404\)"),
        ("500", r"has trouble of its own \(status 500\)"),
        ("503", r"has trouble of its own \(status 503\)"),
        ("cut", r"cannot be reached"),
        ("slow", r"does not answer in time"),
    ],
)
def test_the_hub_fails(hub, publish, make_encoder, cache, kind, message, monkeypatch):
    publish(make_encoder("dvector"))
    hub.order(kind, "/api/models/", times=99, seconds=3)
    with pytest.raises(UserError, match=message) as caught:
        SpeakerEncoder.from_pretrained("someone/mine")
    assert "Could not load 'someone/mine', which is no local folder either" in str(caught.value)


@pytest.mark.parametrize("place", ["/resolve/", "/storage/"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("401", r"does not accept the token \(401\)"),
        ("403", r"the token may not read it \(403\)"),
        ("404", r"refuses it \(status 404\)"),
        ("500", r"has trouble of its own \(status 500\)"),
        ("cut", r"cannot be reached"),
        ("slow", r"does not answer in time"),
    ],
)
def test_the_hub_fails_at_a_file(
    hub, publish, make_encoder, cache, kind, message, place, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    publish(make_encoder("dvector"))
    hub.order(kind, place, times=99, seconds=1)
    with pytest.raises(UserError, match=message) as caught:
        SpeakerEncoder.from_pretrained("someone/mine")
    assert "Could not load 'someone/mine', which is no local folder either" in str(caught.value)


def test_once_broken_and_then_fine(hub, publish, make_encoder, cache):
    publish(make_encoder("dvector"))
    hub.order("500", "/storage/", times=1)
    hub.order("cut", "/resolve/", times=1)
    assert SpeakerEncoder.from_pretrained("someone/mine").embedding_dim == 24


def test_upstream_forms_are_not_downloaded_twice(hub, publish, make_encoder, cache):
    publish(make_encoder("dvector"), **{"embedding_model.ckpt": b"x", "pytorch_model.bin": b"x"})
    SpeakerEncoder.from_pretrained("someone/mine")
    assert hub.downloaded == {"config.json", "preprocessor_config.json", "model.safetensors"}


def test_config_of_a_pushed_model_says_what_it_started_from(
    hub, make_encoder, cache, unchecked, tmp_path
):
    make_encoder("ecapa").push_to_hub("someone/mine")
    pulled = SpeakerEncoder.from_pretrained("someone/mine")
    assert pulled.config.base_model_name == "ecapa"
    pulled.save_pretrained(tmp_path / "again")
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert str(tmp_path) not in json.dumps(config)


@pytest.mark.slow
def test_training_goes_on_from_a_repository(hub, make_encoder, hub_environment, tmp_path):
    pushed = make_encoder("dvector")
    pushed.save_pretrained(tmp_path / "saved")
    files = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    hub.publish("someone/mine", files, private=True)
    time = np.arange(12000) / 16000
    for number in range(6):
        folder = tmp_path / ("train" if number < 3 else "val") / f"speaker{number}"
        folder.mkdir(parents=True)
        for take in range(2):
            tone = np.sin(2 * np.pi * (120 + 40 * number + take) * time) * np.sin(9 * time)
            soundfile.write(folder / f"{take}.wav", 0.3 * tone, 16000)
    config = {
        **{"model_name": "someone/mine", "learning_rate_init": 1e-30, "max_steps": 1},
        **{"train_data_root": str(tmp_path / "train"), "val_data_root": str(tmp_path / "val")},
        **{"speakers_per_batch": 2, "utterances_per_speaker": 2, "window_size_s": 0.6},
        **{"val_speakers_per_batch": 2, "val_utterances_per_speaker": 2, "bootstrap_samples": 5},
        **{"output_dir": str(tmp_path / "runs"), "run_id": "run", "num_workers": 0},
        **{"vis_train_art_every": 0, "vis_val_art_every": 0, "device": "cpu", "comet": "off"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "train_encoder.py", "--config", str(tmp_path / "config.json")],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=280,
        env={**hub_environment, "SPEAKER_ENCODER_CACHE": str(tmp_path / "corpora")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trained = SpeakerEncoder.from_pretrained(tmp_path / "runs" / "run" / "model")
    # Steps of that length change nothing: what was trained is what was pulled.
    weights = trained.backbone.state_dict()
    for name, wanted in pushed.backbone.state_dict().items():
        assert torch.allclose(weights[name], wanted, atol=1e-6), name
