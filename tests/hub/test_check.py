"""A form that gives other embeddings stops the push before anything is sent."""

import json
import os

import pytest
import torch

from speaker_encoder.errors import UserError
from speaker_encoder.hub import contents
from speaker_encoder.hub.check import check_contents, embed_forms


@pytest.mark.parametrize(
    ("kind", "file", "form"),
    [
        ("ecapa", "embedding_model.ckpt", "EncoderClassifier"),
        ("ecapa", "model.safetensors", "SpeakerEncoder.from_pretrained"),
        ("wavlm", "transformers/model.safetensors", "WavLMForXVector"),
    ],
)
def test_other_weights_stop_the_push(hub, make_encoder, monkeypatch, tmp_path, kind, file, form):
    def read_here(folder, encoder_kind, subfolder, waveforms):
        return embed_forms(folder, encoder_kind, waveforms, subfolder)

    monkeypatch.setattr("speaker_encoder.hub.check._read_back", read_here)
    monkeypatch.chdir(tmp_path)
    written = contents.write_contents

    def write(encoder, folder, *rest):
        written(encoder, folder, *rest)
        other = folder.parent / "other"
        written(make_encoder(kind, seed=12), other, *rest)
        (other / file).replace(folder / file)

    monkeypatch.setattr("speaker_encoder.hub.push.write_contents", write)
    with pytest.raises(UserError, match=rf"Nothing was published .*{form}.*other embeddings"):
        make_encoder(kind).push_to_hub("someone/mine")
    assert not hub.received


@pytest.mark.slow
def test_the_fresh_process_knows_no_secret(make_encoder, monkeypatch, tmp_path):
    planted = {
        "HF_TOKEN": "hf_" + "P" * 34,
        "COMET_API_KEY": "planted-comet-key",
        "DATABASE_URL": "postgres://me:planted-password@host/db",  # its name says nothing
        "HF_HOME": str(tmp_path / "hf_home"),
    }
    for name, value in planted.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "hf_home").mkdir()
    (tmp_path / "hf_home" / "token").write_text("hf_" + "L" * 34)
    # Python runs this at the start of every process, with what that process has.
    (tmp_path / "sitecustomize.py").write_text(
        "import json, os, huggingface_hub\n"
        "about = [dict(os.environ), huggingface_hub.get_token()]\n"
        f"open({str(tmp_path / 'seen.json')!r}, 'w').write(json.dumps(about))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    encoder = make_encoder("dvector")
    encoder.save_pretrained(tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"could not be read back by a fresh process: .*damaged"):
        check_contents(encoder, tmp_path / "damaged")
    environment, token = json.loads((tmp_path / "seen.json").read_text())
    assert token is None
    assert not {"HF_TOKEN", "COMET_API_KEY", "DATABASE_URL"} & set(environment)
    assert not [name for name, value in environment.items() if value in planted.values()]
    assert environment["HF_HUB_OFFLINE"] == "1" and environment["PATH"] == os.environ["PATH"]


def test_a_form_that_cannot_be_read_stops_the_push(hub, make_encoder, monkeypatch):
    def refuse(*_):
        raise UserError("Nothing was published or kept: the files could not be read back")

    monkeypatch.setattr("speaker_encoder.hub.check._read_back", refuse)
    with pytest.raises(UserError, match="could not be read back"):
        make_encoder("dvector").push_to_hub("someone/mine")
    assert not hub.received


def test_pushing_leaves_the_encoder_as_it_was(hub, make_encoder, unchecked):
    encoder = make_encoder("dvector").train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    state = torch.random.get_rng_state()
    encoder.push_to_hub("someone/mine")
    assert encoder.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[name], t) for name, t in encoder.state_dict().items())
