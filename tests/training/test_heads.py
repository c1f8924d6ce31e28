"""Another head on a self-supervised encoder, frozen and then joint, from the JSON file."""

import pytest
import torch

from speaker_encoder import UserError
from speaker_encoder.training import TrainConfig
from speaker_encoder.training.build import build_model, check_model

HUBERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
ECAPA = {
    "name": "ecapa",
    "channels": [16, 16, 16, 16, 48],
    "attention_channels": 8,
    "se_channels": 8,
    "lin_neurons": 24,
}


def test_ecapa_on_a_sum_of_frozen_layers_and_then_on_all(tmp_path):
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    torch.manual_seed(1)
    upstream = HubertModel(HubertConfig(**HUBERT))
    upstream.save_pretrained(tmp_path / "hubert")
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path / "hubert")
    keys = {"head": ECAPA, "layers": "weighted_sum"}

    frozen = _config(model_name=str(tmp_path / "hubert"), train_only_head=True, **keys)
    model = build_model(frozen, num_speakers=2).train()
    assert model.config.untrained_head
    optimizer = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], 0.01)
    crops = torch.randn(4, 8000)
    for _ in range(2):
        optimizer.zero_grad()
        model(crops, labels=torch.tensor([0, 0, 1, 1])).loss.backward()
        optimizer.step()
    start, now = upstream.state_dict(), model.backbone.hubert.state_dict()
    assert all(torch.equal(now[name], tensor) for name, tensor in start.items())
    assert len(model.backbone.layer_weights.unique()) > 1
    model.config.untrained_head = False
    model.save_pretrained(tmp_path / "frozen")

    joint = build_model(_config(model_name=str(tmp_path / "frozen"), **keys), num_speakers=2)
    assert not joint.config.untrained_head
    assert all(one.requires_grad for one in joint.parameters())
    own, other = joint.backbone.state_dict(), model.backbone.state_dict()
    assert all(torch.equal(own[name], other[name]) for name in other)


def _config(**keys):
    return TrainConfig.from_dict({"train_data_root": "demo", "model_name": "wavlm-base", **keys})


def test_head_and_layers_of_the_espnet_recipe_are_built():
    config = _config(pretrained=False, encoder_config=HUBERT, head="ecapa", layers="weighted_sum")
    model = build_model(config, num_speakers=2)
    assert model.embedding_dim == 192
    assert model.config.untrained_head
    architecture = model.config.encoder_config
    assert (architecture["head"]["name"], architecture["layers"]) == ("ecapa", "weighted_sum")
    again = build_model(config, num_speakers=2)
    own, other = model.state_dict(), again.state_dict()
    assert all(torch.equal(own[name], other[name]) for name in own)  # of the seed


def test_head_of_an_encoder_that_has_none_is_refused_before_any_download():
    with pytest.raises(UserError, match="head and layers have no meaning for the ecapa encoder"):
        check_model(_config(model_name="ecapa", head="mhfa"))
    with pytest.raises(UserError, match="head and layers have no meaning for the dvector encoder"):
        check_model(_config(model_name="dvector", layers="last"))
    check_model(_config(head="mhfa"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"head": "ecapo"}, 'head: found "ecapo".*possible is one of "xvector"'),
        ({"head": {"name": "mhfa", "heads": 3}}, 'head: found the option "heads"'),
        ({"head": {"name": "ecapa", "channels": [8, 0]}}, "head: its option channels"),
        ({"layers": "first"}, 'layers: found "first".*"last", "weighted_sum", or a whole number'),
        ({"layers": -1}, "layers: found -1"),
    ],
)
def test_impossible_heads_are_found_in_the_file(keys, message):
    with pytest.raises(UserError, match=message):
        _config(**keys)
