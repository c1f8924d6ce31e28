"""What every encoder must do; a new family needs no code here, but a case in ``TINY``."""

import json
from fnmatch import fnmatch

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from tiny_configs import TINY
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioXVector

from speaker_encoder import (
    SpeakerEncoder,
    SpeakerEncoderConfig,
    SpeakerEncoderFeatureExtractor,
    UserError,
)
from speaker_encoder.modeling.registry import BACKBONES, NAMES, backbone_class

every_encoder = pytest.mark.parametrize("case", TINY)


@pytest.fixture
def encoder(case, make_encoder):
    return make_encoder(case)


@pytest.fixture
def saved(encoder, tmp_path):
    encoder.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_is_of_a_known_kind(name):
    assert NAMES[name].encoder_kind in BACKBONES
    assert NAMES[name].hub_id is None or NAMES[name].package is None


@pytest.mark.parametrize("encoder_kind", sorted(BACKBONES))
def test_every_family_has_a_tiny_encoder(encoder_kind):
    assert any(tiny.encoder_kind == encoder_kind for tiny in TINY.values()), (
        f"{encoder_kind!r} is in registry.BACKBONES and none of the common tests runs on it: add a "
        "small encoder_config of it to TINY in tests/modeling/tiny_configs.py"
    )


@every_encoder
def test_describes_itself(encoder, case):
    encoder_kind = TINY[case].encoder_kind
    assert backbone_class(encoder_kind).encoder_kind == encoder_kind
    assert not encoder.training
    assert encoder.config.encoder_kind == encoder_kind
    assert encoder.config.embedding_dim == encoder.embedding_dim
    assert encoder.sampling_rate == 16000
    assert encoder.min_num_samples > 0
    assert json.loads(json.dumps(encoder.config.encoder_config)) == encoder.config.encoder_config


@every_encoder
def test_the_head_is_all_that_is_computed_last(encoder, case, waveform):
    called = []
    for name, module in encoder.backbone.named_modules():
        if list(module.parameters(recurse=False)) and not list(module.children()):
            module.register_forward_hook(lambda *_, name=f"{name}.": called.append(name))
    encoder.encode(waveform(16000))
    is_head = [name.startswith(encoder.backbone.head_parts) for name in called]
    assert not is_head[0] and is_head == sorted(is_head)
    assert is_head[-1] or case == "wav2vec2-bert"  # whose mean has no weights
    names = [name for name, _ in encoder.backbone.named_parameters()]
    for name in names:  # parameters beside the modules: those of the sum of layers, of SAP
        if not name.startswith(tuple(called)) and name.count(".") < 2:
            is_of_head = name.startswith(encoder.backbone.head_parts)
            assert is_of_head == ("attention" in name or name == "layer_weights"), name


@every_encoder
def test_batch_equals_single(encoder, waveform):
    lengths = [10_000, 16000, 16001, 16159, 16160, 16319, 16320, 20480, 47777, 90_003]
    waveforms = [waveform(length) for length in lengths]
    alone = torch.cat([encoder.encode(one) for one in waveforms])
    together = encoder.encode(waveforms, batch_size=16)
    assert (together - alone).abs().max() <= 1e-5
    assert alone.std(dim=0).max() > 1e-3  # they are not all the same


@every_encoder
def test_raw_embeddings_of_a_batch_equal_those_of_one(encoder, waveform):
    lengths = torch.tensor([encoder.min_num_samples, 10_000, 31999])
    wavs = torch.zeros(3, 40_000)
    for row, length in enumerate(lengths.tolist()):
        wavs[row, :length] = torch.from_numpy(waveform(length))
    mask = torch.arange(40_000) < lengths[:, None]
    wavs[~mask] = 0.5  # what lies behind an utterance is not heard
    with torch.inference_mode():
        together = encoder(wavs, mask).embeddings
        alone = [encoder(wavs[n : n + 1, :length]).embeddings for n, length in enumerate(lengths)]
    scale = torch.cat(alone).norm(dim=1, keepdim=True).clamp(min=1.0)
    assert ((together - torch.cat(alone)) / scale).abs().max() <= 1e-5


@every_encoder
def test_save_and_reload_gives_the_same_bits(encoder, saved, waveform):
    assert sorted(path.name for path in saved.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    waveforms = [waveform(12000), waveform(20000)]
    reloaded = SpeakerEncoder.from_pretrained(saved)
    assert not reloaded.training
    assert reloaded.config.encoder_config == encoder.config.encoder_config
    assert torch.equal(encoder.encode(waveforms), reloaded.encode(waveforms))
    own, other = encoder.state_dict(), reloaded.state_dict()
    assert own.keys() == other.keys()
    assert all(torch.equal(own[name], other[name]) for name in own)
    assert all(tensor.device.type == "cpu" for tensor in reloaded.buffers())


@every_encoder
def test_auto_classes(encoder, saved, waveform):
    config = AutoConfig.from_pretrained(saved)
    assert isinstance(config, SpeakerEncoderConfig)
    feature_extractor = AutoFeatureExtractor.from_pretrained(saved)
    assert isinstance(feature_extractor, SpeakerEncoderFeatureExtractor)
    waveforms = [waveform(12000), waveform(20000)]
    batch = feature_extractor(waveforms, sampling_rate=16000, return_tensors="pt")
    for auto_class in (AutoModel, AutoModelForAudioXVector):
        model = auto_class.from_pretrained(saved)
        assert isinstance(model, SpeakerEncoder)
        with torch.inference_mode():
            embeddings = model(**batch).embeddings
        found = torch.nn.functional.normalize(embeddings, dim=-1)
        torch.testing.assert_close(found, encoder.encode(waveforms), atol=1e-6, rtol=0)


@every_encoder
def test_built_without_memory_as_with(encoder, case):
    with torch.device("meta"):
        backbone = backbone_class(TINY[case].encoder_kind)(TINY[case].encoder_config)
    own, other = encoder.backbone.state_dict(), backbone.state_dict()
    assert {name: tensor.shape for name, tensor in own.items()} == {
        name: tensor.shape for name, tensor in other.items()
    }


@every_encoder
def test_files_give_the_embeddings_of_their_waveforms(encoder, tmp_path, waveform):
    waveforms = {tmp_path / f"{n}.wav": waveform(12000 + n) for n in range(3)}
    for path, samples in waveforms.items():
        soundfile.write(path, samples, 16000, subtype="FLOAT")
    found = encoder.encode(list(waveforms))
    assert found.shape == (3, encoder.embedding_dim)
    assert found.dtype == torch.float32
    assert torch.equal(found, encoder.encode(list(waveforms.values())))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3), atol=1e-5, rtol=0)


@every_encoder
def test_a_training_step_moves_every_weight(encoder, case, waveform):
    encoder.train()
    encoder.freeze()
    crops = torch.from_numpy(np.stack([waveform(32000 + n)[:32000] for n in range(4)]))
    torch.manual_seed(1)
    output = encoder(crops)
    assert output.loss is None
    (output.embeddings * torch.randn_like(output.embeddings)).sum().backward()
    trained = dict(encoder.named_parameters())
    for pattern in TINY[case].without_gradient:
        assert [name for name in trained if fnmatch(name, pattern)], pattern
        trained = {name: p for name, p in trained.items() if not fnmatch(name, pattern)}
    assert [name for name, p in trained.items() if p.grad is None] == []
    assert [name for name, p in trained.items() if not torch.isfinite(p.grad).all()] == []
    before = {name: p.detach().clone() for name, p in trained.items()}
    torch.optim.Adam(trained.values(), lr=1e-3).step()
    assert [name for name, p in trained.items() if torch.equal(p, before[name])] == []


@every_encoder
def test_shortest_utterance_is_embedded_and_a_shorter_one_is_an_error(encoder, waveform):
    shortest = encoder.min_num_samples
    assert torch.isfinite(encoder.encode(waveform(shortest))).all()
    with pytest.raises(UserError, match=f"{shortest} samples"):
        encoder.encode(waveform(shortest - 1))
    together = encoder.encode([waveform(shortest), waveform(30000)])
    assert (together[0] - encoder.encode(waveform(shortest))[0]).abs().max() <= 1e-5


@every_encoder
def test_silence_gives_finite_embeddings(encoder):
    silence = np.zeros(16000, dtype=np.float32)
    assert torch.isfinite(encoder.encode([silence, silence[:10_000]])).all()


@every_encoder
def test_frozen_batch_norm_stays_frozen(encoder, waveform):
    encoder.freeze_batch_norm()
    encoder.train()
    kinds = torch.nn.BatchNorm1d, torch.nn.BatchNorm2d
    norms = [m for m in encoder.modules() if isinstance(m, kinds)]
    assert not any(norm.training for norm in norms)
    before = {name: tensor.clone() for name, tensor in encoder.named_buffers()}
    encoder(torch.from_numpy(np.stack([waveform(16000), waveform(16001)[:16000]])))
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.named_buffers())
    encoder.freeze_batch_norm(False)
    assert all(norm.training for norm in norms)


@every_encoder
def test_unknown_architecture_argument_is_an_error(case):
    with pytest.raises(UserError, match="not_an_argument"):
        backbone_class(TINY[case].encoder_kind)({"not_an_argument": 1})


@every_encoder
def test_half_precision_gives_float32_embeddings_near_those_without(encoder, waveform):
    waveforms = [waveform(16000), waveform(24000)]  # of one batch, so that masks count
    expected = encoder.encode(waveforms)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        of_autocast = encoder.encode(waveforms)
    of_half_weights = encoder.to(torch.bfloat16).encode(waveforms)
    for found in (of_autocast, of_half_weights):
        assert found.dtype == torch.float32
        assert float(torch.cosine_similarity(found, expected).min()) > 0.99


@pytest.mark.parametrize("encoder_kind", sorted(BACKBONES))
def test_sizes_below_one_are_refused(encoder_kind):
    build = backbone_class(encoder_kind)
    plain = TINY[encoder_kind].encoder_config
    sizes = [name for name, value in plain.items() if type(value) is int and name != "layers"]
    lists = {name: value for name, value in plain.items() if isinstance(value, list)}
    assert sizes or lists
    for value in (0, -3):
        for name in sizes:
            with pytest.raises(UserError, match=f"'{name}' in .* at least 1, found {value}"):
                build({**plain, name: value})
        for name, values in lists.items():
            with pytest.raises(UserError, match=f"'{name}' in .* whole numbers of at least 1"):
                build({**plain, name: [value, *values[1:]]})


@every_encoder
def test_trainer_checkpoint_loads_as_a_clean_encoder(encoder, tmp_path, waveform, caplog):
    encoder.attach_loss(torch.nn.Linear(encoder.embedding_dim, 3))
    encoder.save_pretrained(tmp_path / "checkpoint-7", state_dict=None)  # as the Trainer does
    keys = load_file(tmp_path / "checkpoint-7" / "model.safetensors").keys()
    assert {"loss_fn.weight", "loss_fn.bias"} <= set(keys)
    reloaded = SpeakerEncoder.from_pretrained(tmp_path / "checkpoint-7")
    assert reloaded.loss_fn is None
    assert not caplog.records
    assert torch.equal(encoder.encode(waveform(12000)), reloaded.encode(waveform(12000)))
