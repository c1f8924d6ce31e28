"""A form that gives other embeddings stops the push before anything is sent."""

import pytest
import torch

from speaker_encoder.errors import UserError
from speaker_encoder.hub import contents


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "file", "form"),
    [
        ("ecapa", "embedding_model.ckpt", "EncoderClassifier"),
        ("ecapa", "model.safetensors", "SpeakerEncoder.from_pretrained"),
        ("wavlm", "transformers/model.safetensors", "WavLMForXVector"),
    ],
)
def test_other_weights_stop_the_push(hub, make_encoder, monkeypatch, kind, file, form):
    written = contents.write_contents

    def write(encoder, folder, *rest):
        written(encoder, folder, *rest)
        other = folder.parent / "other"
        written(make_encoder(kind, seed=12), other, *rest)
        (other / file).replace(folder / file)

    monkeypatch.setattr("speaker_encoder.hub.push.write_contents", write)
    with pytest.raises(UserError, match=rf"Nothing was pushed: .*{form}.*other embeddings"):
        make_encoder(kind).push_to_hub("someone/mine")
    assert not hub.received


def test_damaged_file_stops_the_push(hub, make_encoder, monkeypatch):
    written = contents.write_contents

    def write(encoder, folder, *rest):
        written(encoder, folder, *rest)
        (folder / "model.safetensors").write_bytes(b"damaged")

    monkeypatch.setattr("speaker_encoder.hub.push.write_contents", write)
    with pytest.raises(UserError, match=r"could not be read back by a fresh process: .*damaged"):
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
