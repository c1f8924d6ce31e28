"""Checkpoints of the original system: the libraries' own classes below a prefix."""

import pytest
import torch
from torch import nn

from speaker_encoder.errors import UserError
from speaker_encoder.modeling import registry
from speaker_encoder.modeling.original import load_original


class OriginalModule(nn.Module):
    """As the original builds it: the loss's scalars beside the library's model."""

    def __init__(self, name: str, model: nn.Module) -> None:
        super().__init__()
        self.similarity_weight = nn.Parameter(torch.tensor([10.0]))
        self.similarity_bias = nn.Parameter(torch.tensor([-5.0]))
        self.add_module(name, model)


def save(path, state):
    content = {"step": 25, "epoch": 0, "model_state": state, "optimizer_state": {}}
    torch.save(content, path)
    return path


def test_ecapa_gives_what_speechbrain_gives(tmp_path, speechbrain_folder, waveform):
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN, Classifier

    from speaker_encoder import SpeakerEncoder

    weights = torch.load(speechbrain_folder / "embedding_model.ckpt", weights_only=True)
    network = ECAPA_TDNN(
        80, channels=[64, 64, 64, 64, 192], kernel_sizes=[5, 3, 3, 3, 1],
        dilations=[1, 2, 3, 4, 1], attention_channels=128, lin_neurons=192,
    )  # fmt: skip
    network.load_state_dict(weights)
    mods = nn.ModuleDict({"embedding_model": network, "classifier": Classifier(192)})
    inner = nn.Module()
    inner.add_module("mods", mods)
    path = save(tmp_path / "encoder.pt", OriginalModule("encoder", inner).state_dict())
    loaded = load_original(path, "ecapa")
    assert not loaded.training and not loaded.config.untrained_head
    expected = SpeakerEncoder.from_pretrained(speechbrain_folder).encode(waveform(16000))
    assert torch.equal(loaded.encode(waveform(16000)), expected)


@pytest.mark.parametrize(("prefix", "old_spelling"), [("", False), ("module.", True)])
def test_wavlm_gives_what_transformers_gives(tmp_path, monkeypatch, waveform, prefix, old_spelling):
    from transformers import WavLMConfig, WavLMForXVector

    tiny = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4, "tdnn_dim": [24, 24, 24, 24, 40],
        "xvector_output_dim": 28, "use_weighted_layer_sum": True,
    }  # fmt: skip
    torch.manual_seed(0)
    upstream = WavLMForXVector(WavLMConfig(**tiny)).eval()
    entry = registry.NamedEncoder("wavlm", "a/b", encoder_config={**tiny, "xvector_output_dim": 24})
    monkeypatch.setitem(registry.NAMES, "wavlm-base-plus-sv", entry)
    state = OriginalModule("model", upstream).state_dict()
    if old_spelling:
        state = {
            key.replace("parametrizations.weight.original0", "weight_g").replace(
                "parametrizations.weight.original1", "weight_v"
            ): value
            for key, value in state.items()
        }
    path = save(tmp_path / "encoder.pt", {prefix + key: value for key, value in state.items()})
    loaded = load_original(path, "wavlm-base-plus-sv")
    assert loaded.embedding_dim == 28
    samples = torch.from_numpy(waveform(16000))[None]
    with torch.no_grad():
        expected = upstream(samples).embeddings
        found = loaded(samples).embeddings
    assert torch.allclose(found, expected, atol=1e-5)


def test_another_family_or_size_names_both(tmp_path, speechbrain_folder):
    weights = torch.load(speechbrain_folder / "embedding_model.ckpt", weights_only=True)
    state = {f"encoder.mods.embedding_model.{key}": value for key, value in weights.items()}
    path = save(tmp_path / "encoder.pt", state)
    with pytest.raises(UserError, match=r"'wavlm-large' is of the family 'wavlm', .*'ecapa'"):
        load_original(path, "wavlm-large")
    state.pop("encoder.mods.embedding_model.fc.conv.bias")
    with pytest.raises(UserError, match=r"incomplete .*network\.fc\.conv\.bias"):
        load_original(save(tmp_path / "part.pt", state), "ecapa")


def test_a_wavlm_of_another_size_is_refused(tmp_path):
    from transformers import WavLMConfig, WavLMForXVector

    config = WavLMConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        conv_dim=[16] * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    state = OriginalModule("model", WavLMForXVector(config)).state_dict()
    path = save(tmp_path / "encoder.pt", state)
    with pytest.raises(
        UserError, match="no 'wavlm-large': its weights have hidden_size 32 instead"
    ):
        load_original(path, "wavlm-large")


def test_files_that_are_no_such_checkpoint(tmp_path):
    torch.save({"weights": {}}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="wanted a dict with 'model_state', found weights"):
        load_original(tmp_path / "a.pt", "ecapa")
    with pytest.raises(UserError, match="neither SpeechBrain's ECAPA-TDNN nor"):
        load_original(save(tmp_path / "b.pt", {"layer.weight": torch.zeros(1)}), "ecapa")
    torch.save({"model_state": print}, tmp_path / "c.pt")
    with pytest.raises(UserError, match="holds more than plain tensors"):
        load_original(tmp_path / "c.pt", "ecapa")
