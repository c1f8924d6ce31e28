"""What every family of backbones must do; a new line in the table is tested without new code."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioXVector

from speaker_encoder import (
    SpeakerEncoder,
    SpeakerEncoderConfig,
    SpeakerEncoderFeatureExtractor,
    UserError,
)
from speaker_encoder.modeling.registry import BACKBONES, NAMES, backbone_class

every_kind = pytest.mark.parametrize("encoder_kind", sorted(BACKBONES))


@pytest.fixture
def encoder(encoder_kind, make_encoder):
    return make_encoder(encoder_kind)


@pytest.fixture
def saved(encoder, tmp_path):
    encoder.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_is_of_a_known_kind(name):
    assert NAMES[name].encoder_kind in BACKBONES
    assert (NAMES[name].hub_id is None) != (NAMES[name].package is None)


@every_kind
def test_describes_itself(encoder, encoder_kind):
    assert backbone_class(encoder_kind).encoder_kind == encoder_kind
    assert not encoder.training
    assert encoder.config.encoder_kind == encoder_kind
    assert encoder.config.embedding_dim == encoder.embedding_dim
    assert encoder.sampling_rate == 16000
    assert encoder.min_num_samples > 0
    assert json.loads(json.dumps(encoder.config.encoder_config)) == encoder.config.encoder_config


@every_kind
def test_batch_equals_single(encoder, waveform):
    lengths = [6400, 320_000, 16000, 16001, 16159, 16160, 16319, 16320, 47777, 100_003]
    waveforms = [waveform(length) for length in lengths]
    alone = torch.cat([encoder.encode(one) for one in waveforms])
    for batch_size in (4, 16):
        together = encoder.encode(waveforms, batch_size=batch_size)
        assert (together - alone).abs().max() <= 1e-5
    assert alone.std(dim=0).max() > 1e-3  # they are not all the same


@every_kind
def test_save_and_reload_gives_the_same_bits(encoder, saved, waveform):
    assert sorted(path.name for path in saved.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    waveforms = [waveform(9000), waveform(20000)]
    reloaded = SpeakerEncoder.from_pretrained(saved)
    assert not reloaded.training
    assert reloaded.config.encoder_config == encoder.config.encoder_config
    assert torch.equal(encoder.encode(waveforms), reloaded.encode(waveforms))
    own, other = encoder.state_dict(), reloaded.state_dict()
    assert own.keys() == other.keys()
    assert all(torch.equal(own[name], other[name]) for name in own)
    assert all(tensor.device.type == "cpu" for tensor in reloaded.buffers())


@every_kind
def test_auto_classes(encoder, saved, waveform):
    config = AutoConfig.from_pretrained(saved)
    assert isinstance(config, SpeakerEncoderConfig)
    feature_extractor = AutoFeatureExtractor.from_pretrained(saved)
    assert isinstance(feature_extractor, SpeakerEncoderFeatureExtractor)
    waveforms = [waveform(9000), waveform(20000)]
    batch = feature_extractor(waveforms, sampling_rate=16000, return_tensors="pt")
    for auto_class in (AutoModel, AutoModelForAudioXVector):
        model = auto_class.from_pretrained(saved)
        assert isinstance(model, SpeakerEncoder)
        with torch.inference_mode():
            embeddings = model(**batch).embeddings
        found = torch.nn.functional.normalize(embeddings, dim=-1)
        torch.testing.assert_close(found, encoder.encode(waveforms), atol=1e-6, rtol=0)


@every_kind
def test_gradients_are_finite_and_not_zero(encoder, waveform):
    encoder.train()
    crops = torch.from_numpy(np.stack([waveform(32000 + n)[:32000] for n in range(4)]))
    output = encoder(crops)
    assert output.loss is None
    (output.embeddings * torch.randn_like(output.embeddings)).sum().backward()
    gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert sum(float(gradient.abs().sum()) for gradient in gradients) > 0


@every_kind
def test_shortest_utterance_is_embedded_and_a_shorter_one_is_an_error(encoder, waveform):
    shortest = encoder.min_num_samples
    assert torch.isfinite(encoder.encode(waveform(shortest))).all()
    with pytest.raises(UserError, match=f"{shortest} samples"):
        encoder.encode(waveform(shortest - 1))
    together = encoder.encode([waveform(shortest), waveform(30000)])
    assert (together[0] - encoder.encode(waveform(shortest))[0]).abs().max() <= 1e-5


@every_kind
def test_silence_gives_finite_embeddings(encoder):
    silence = np.zeros(16000, dtype=np.float32)
    assert torch.isfinite(encoder.encode([silence, silence[:8000]])).all()


@every_kind
def test_frozen_batch_norm_stays_frozen(encoder, waveform):
    encoder.freeze_batch_norm()
    encoder.train()
    norms = [m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    assert not any(norm.training for norm in norms)
    before = {name: tensor.clone() for name, tensor in encoder.named_buffers()}
    encoder(torch.from_numpy(np.stack([waveform(16000), waveform(16001)[:16000]])))
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.named_buffers())
    encoder.freeze_batch_norm(False)
    assert all(norm.training for norm in norms)


@every_kind
def test_unknown_architecture_argument_is_an_error(encoder_kind):
    name = next(name for name, entry in NAMES.items() if entry.encoder_kind == encoder_kind)
    with pytest.raises(UserError, match="not_an_argument"):
        SpeakerEncoder.from_name(name, pretrained=False, encoder_config={"not_an_argument": 1})


@every_kind
def test_autocast_gives_float32_embeddings_near_those_without(encoder, waveform):
    crops = torch.from_numpy(waveform(16000))[None]
    with torch.inference_mode():
        expected = encoder(crops).embeddings
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = encoder(crops).embeddings
    assert found.dtype == torch.float32
    assert float(torch.cosine_similarity(found, expected)) > 0.99


@every_kind
def test_trainer_checkpoint_loads_as_a_clean_encoder(encoder, tmp_path, waveform, caplog):
    encoder.attach_loss(torch.nn.Linear(encoder.embedding_dim, 3))
    encoder.save_pretrained(tmp_path / "checkpoint-7", state_dict=None)  # as the Trainer does
    keys = load_file(tmp_path / "checkpoint-7" / "model.safetensors").keys()
    assert {"loss_fn.weight", "loss_fn.bias"} <= set(keys)
    reloaded = SpeakerEncoder.from_pretrained(tmp_path / "checkpoint-7")
    assert reloaded.loss_fn is None
    assert not caplog.records
    assert torch.equal(encoder.encode(waveform(9000)), reloaded.encode(waveform(9000)))
