"""WavLM folders in transformers' own layout, through the speaker encoder."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import normalize
from transformers import Wav2Vec2FeatureExtractor, WavLMForCTC, WavLMForXVector, WavLMModel
from wavlm_models import TINY, make_upstream, make_waveform, write_folder

from speaker_encoder import SpeakerEncoder, UserError

POSITIONAL = "wavlm.encoder.pos_conv_embed.conv"


def upstream_embedding(upstream, waveform, do_normalize):
    extractor = Wav2Vec2FeatureExtractor(do_normalize=do_normalize, return_attention_mask=True)
    batch = extractor(waveform, sampling_rate=16000, return_tensors="pt")
    with torch.inference_mode():
        return normalize(upstream(batch["input_values"]).embeddings, dim=-1)


@pytest.fixture
def folder(tmp_path):
    return write_folder(make_upstream("base-sv"), tmp_path / "wavlm-base-plus-sv")


@pytest.mark.parametrize(("variant", "do_normalize"), [("base-sv", False), ("large-sv", True)])
@pytest.mark.parametrize("weights", ["pytorch_model.bin", "model.safetensors", "shards"])
def test_xvector_folder_gives_upstream_embeddings(tmp_path, variant, do_normalize, weights):
    upstream = make_upstream(variant)
    folder = write_folder(upstream, tmp_path / "folder", do_normalize)
    if weights != "pytorch_model.bin":
        (folder / "pytorch_model.bin").unlink()
        upstream.save_pretrained(folder, max_shard_size="50KB" if weights == "shards" else "1GB")
        assert (folder / "model.safetensors").exists() == (weights == "model.safetensors")
    encoder = SpeakerEncoder.from_pretrained(folder)
    assert not encoder.training
    assert not encoder.config.untrained_head
    assert encoder.config.do_normalize is do_normalize
    assert encoder.embedding_dim == TINY["xvector_output_dim"]
    assert encoder.min_num_samples == 5200
    waveforms = [make_waveform(num_samples) for num_samples in (6400, 16000, 31999)]
    found = encoder.encode(waveforms)
    expected = torch.cat([upstream_embedding(upstream, one, do_normalize) for one in waveforms])
    assert (found - expected).abs().max() <= 1e-5


def test_folder_is_read_into_a_small_plain_config(folder):
    encoder = SpeakerEncoder.from_pretrained(folder)
    config = encoder.config.encoder_config
    assert json.loads(json.dumps(config)) == config
    assert config["use_weighted_layer_sum"] is True
    assert "id2label" not in config
    assert not any("classifier" in name or "objective" in name for name in encoder.state_dict())


def test_saved_encoder_reloads_with_the_same_bits(folder, tmp_path):
    encoder = SpeakerEncoder.from_pretrained(folder)
    encoder.save_pretrained(tmp_path / "saved")
    names = load_file(tmp_path / "saved" / "model.safetensors")
    assert f"backbone.{POSITIONAL}.parametrizations.weight.original0" in names
    reloaded = SpeakerEncoder.from_pretrained(tmp_path / "saved")
    own, other = encoder.state_dict(), reloaded.state_dict()
    assert own.keys() == other.keys()
    assert all(torch.equal(own[name], other[name]) for name in own)
    waveform = make_waveform(16000)
    assert torch.equal(encoder.encode(waveform), reloaded.encode(waveform))


def test_trained_weights_load_back_into_upstream(folder, tmp_path):
    encoder = SpeakerEncoder.from_pretrained(folder)
    upstream = WavLMForXVector.from_pretrained(folder)
    missing, unexpected = upstream.load_state_dict(encoder.backbone.state_dict(), strict=False)
    assert not unexpected
    assert set(missing) == {"classifier.weight", "classifier.bias", "objective.weight"}


@pytest.mark.parametrize("model_class", [WavLMModel, WavLMForCTC])
def test_folder_without_the_head_gives_an_untrained_head(tmp_path, model_class):
    torch.manual_seed(1)
    upstream = model_class(make_upstream("base").config).eval()
    folder = write_folder(upstream, tmp_path / "wavlm-base")
    torch.manual_seed(2)
    encoder = SpeakerEncoder.from_pretrained(folder)
    assert encoder.config.untrained_head
    with pytest.raises(UserError, match="random weights"):
        encoder.encode(make_waveform(16000))
    base = getattr(upstream, "wavlm", upstream).state_dict()
    own = encoder.backbone.state_dict()
    assert all(torch.equal(own[f"wavlm.{name}"], tensor) for name, tensor in base.items())
    # Initialised as upstream does it: normal weights, zero biases.
    for name in ("projector", "feature_extractor", "tdnn.0.kernel"):
        assert float(own[f"{name}.weight"].std()) == pytest.approx(0.2, rel=0.15)
        assert own[f"{name}.bias"].abs().max() == 0


def test_head_without_weights_differs_from_seed_to_seed(tmp_path):
    folder = write_folder(WavLMModel(make_upstream("base").config), tmp_path / "wavlm-base")
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        weights.append(SpeakerEncoder.from_pretrained(folder).backbone.projector.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("mask_time_prob", [0.0, 0.05])
def test_mask_embedding_follows_the_config(tmp_path, mask_time_prob):
    folder = write_folder(make_upstream("base", mask_time_prob=0.05 - mask_time_prob), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "mask_time_prob": mask_time_prob}))
    encoder = SpeakerEncoder.from_pretrained(folder)
    assert hasattr(encoder.backbone.wavlm, "masked_spec_embed") == (mask_time_prob > 0)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, True), ({"do_normalize": False}, False), (None, False)],
)
def test_do_normalize_comes_from_the_preprocessor_config(folder, settings, expected):
    path = folder / "preprocessor_config.json"
    path.unlink()
    if settings is not None:
        path.write_text(json.dumps(settings))
    assert SpeakerEncoder.from_pretrained(folder).config.do_normalize is expected


@pytest.mark.parametrize(("name", "expected"), [("wavlm-base", False), ("wavlm-large", True)])
def test_random_encoder_of_a_name_prepares_waveforms_as_the_published_one(name, expected):
    changes = {key: value for key, value in TINY.items() if key != "initializer_range"}
    encoder = SpeakerEncoder.from_name(name, pretrained=False, encoder_config=changes)
    assert encoder.config.do_normalize is expected
    assert encoder.config.untrained_head


def test_enlarged_head_is_saved_and_reloaded(folder, tmp_path):
    encoder = SpeakerEncoder.from_pretrained(folder)
    torch.manual_seed(3)
    encoder.enlarge_head(1024)
    head = encoder.backbone.feature_extractor.requires_grad_(False)
    assert head.weight.shape == (1024, 2 * TINY["tdnn_dim"][-1])
    assert float(head.weight.std()) == pytest.approx(TINY["initializer_range"], rel=0.05)
    assert head.bias.abs().max() == 0
    assert encoder.embedding_dim == encoder.config.embedding_dim == 1024
    assert encoder.config.untrained_head
    assert encoder.config.encoder_config["xvector_output_dim"] == 1024
    encoder.save_pretrained(tmp_path / "large")
    reloaded = SpeakerEncoder.from_pretrained(tmp_path / "large")
    assert reloaded.embedding_dim == 1024
    waveform = make_waveform(16000)
    found = reloaded.encode(waveform, allow_untrained_head=True)
    assert found.shape == (1, 1024)
    assert torch.equal(found, encoder.encode(waveform, allow_untrained_head=True))


def test_enlarged_head_must_have_a_size(folder):
    with pytest.raises(UserError, match="at least 1, found 0"):
        SpeakerEncoder.from_pretrained(folder).enlarge_head(0)


class RunsCode:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of a pickle ran')",)


def _damage(folder, what):
    if what == "no weights":
        (folder / "pytorch_model.bin").unlink()
    elif what == "code in the pickle":
        with open(folder / "pytorch_model.bin", "wb") as file:
            pickle.dump({"wavlm.x": RunsCode()}, file, protocol=2)
    elif what == "damaged safetensors":
        (folder / "model.safetensors").write_bytes(b"no header")
    elif what == "damaged preprocessor":
        (folder / "preprocessor_config.json").write_text("{")
    elif what == "preprocessor is a list":
        (folder / "preprocessor_config.json").write_text("[]")
    elif what == "8 kHz":
        (folder / "preprocessor_config.json").write_text('{"sampling_rate": 8000}')
    elif what == "missing tensor":
        weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
        del weights["tdnn.1.kernel.weight"]
        torch.save(weights, folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no weights", "neither model.safetensors nor pytorch_model.bin"),
        ("code in the pickle", "is refused"),
        ("damaged safetensors", "model.safetensors cannot be read"),
        ("damaged preprocessor", "preprocessor_config.json cannot be read"),
        ("preprocessor is a list", "not a JSON object"),
        ("8 kHz", "is for 8000 Hz"),
        ("missing tensor", "missing: tdnn.1.kernel.weight"),
    ],
)
def test_damaged_folder_is_an_error(folder, what, message):
    _damage(folder, what)
    with pytest.raises(UserError, match=message):
        SpeakerEncoder.from_pretrained(folder)
