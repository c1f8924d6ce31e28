"""The optimizer of the config, and slower rates for the lower layers."""

import pytest
import torch
from conftest import TINY_ECAPA, TINY_WAVLM

from speaker_encoder import SpeakerEncoder
from speaker_encoder.errors import UserError
from speaker_encoder.training import TrainConfig
from speaker_encoder.training.optimizers import choose_optimizer, layer_scales, scale_rates

LEAST = {"model_name": "ecapa", "train_data_root": "demo"}


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        ("radam", torch.optim.RAdam),
        ({"name": "sgd", "momentum": 0.8, "nesterov": True}, torch.optim.SGD),
    ],
)
def test_a_step_is_torchs(chosen, wanted):
    config = TrainConfig.from_dict({**LEAST, "optimizer": chosen, "learning_rate_init": 0.1})
    found = choose_optimizer(config)
    assert found is not None
    results = []
    options = {} if isinstance(chosen, str) else dict(chosen)
    options.pop("name", None)
    for make, arguments in (found, (wanted, {"lr": 0.1, **options})):
        weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        optimizer = make([weight], **arguments)
        for _ in range(8):
            optimizer.zero_grad()
            weight.pow(4).sum().mul(0.1).backward()
            optimizer.step()
        results.append(weight.detach().clone())
    assert torch.equal(*results)
    assert not torch.equal(results[0], torch.tensor([1.0, -2.0]))


def scales_of(name, encoder_config, decay=0.5):
    model = SpeakerEncoder.from_name(name, pretrained=False, encoder_config=encoder_config)
    model.attach_loss(torch.nn.Linear(2, 2))
    return model, layer_scales(model, decay)


def test_wavlm_layers_decay_from_the_head_down():
    _, scales = scales_of("wavlm-base", TINY_WAVLM)
    assert scales["backbone.wavlm.encoder.layers.1.attention.k_proj.weight"] == 0.5
    assert scales["backbone.wavlm.encoder.layers.0.layer_norm.bias"] == 0.25
    assert scales["backbone.wavlm.feature_extractor.conv_layers.6.conv.weight"] == 0.125
    assert scales["backbone.wavlm.encoder.pos_conv_embed.conv.bias"] == 0.125
    for top in ("backbone.projector.weight", "backbone.tdnn.0.kernel.weight", "loss_fn.weight"):
        assert scales[top] == 1.0


def test_the_norm_of_the_encoder_is_at_the_top_only_where_it_stands_behind_the_layers():
    name = "backbone.wavlm.encoder.layer_norm.weight"
    _, scales = scales_of("wavlm-base", TINY_WAVLM)
    assert scales[name] == 0.125
    _, scales = scales_of("wavlm-base", {**TINY_WAVLM, "do_stable_layer_norm": True})
    assert scales[name] == 1.0
    assert scales["backbone.wavlm.encoder.pos_conv_embed.conv.bias"] == 0.125
    assert scales["backbone.wavlm.encoder.layers.0.layer_norm.bias"] == 0.25
    assert scales["backbone.wavlm.feature_projection.layer_norm.weight"] == 0.125


def test_the_layers_are_the_ssl_encoders_also_below_a_head_with_more_blocks():
    ecapa = {"name": "ecapa", "channels": [8, 8, 8, 8, 24], "attention_channels": 8}
    config = {**TINY_WAVLM, "head": ecapa, "layers": "weighted_sum"}
    _, scales = scales_of("wavlm-base", config)
    assert scales["backbone.wavlm.encoder.layers.0.layer_norm.bias"] == 0.25
    assert scales["backbone.wavlm.feature_projection.layer_norm.bias"] == 0.125
    assert scales["backbone.layer_weights"] == 1.0
    heads = {scale for name, scale in scales.items() if ".head." in name}
    assert heads == {1.0}


def test_ecapa_blocks_decay_and_not_the_blocks_inside_a_block():
    _, scales = scales_of("ecapa", TINY_ECAPA)
    assert scales["backbone.network.blocks.0.conv.conv.weight"] == 0.5**4
    inner = [name for name in scales if "blocks.3.res2net_block.blocks" in name]
    assert inner and {scales[name] for name in inner} == {0.5}
    assert scales["backbone.network.fc.conv.weight"] == 1.0


def test_lstm_layers_decay():
    _, scales = scales_of("dvector", {})
    weights = [scales[f"backbone.lstm.weight_hh_l{layer}"] for layer in range(3)]
    assert (*weights, scales["backbone.linear.weight"]) == (0.125, 0.25, 0.5, 1.0)


def test_an_encoder_without_layers_is_told():
    model = torch.nn.ModuleDict({"backbone": torch.nn.Linear(2, 2)})
    with pytest.raises(UserError, match="no numbered layers"):
        layer_scales(model, 0.5)


def test_rates_are_scaled_and_the_uppermost_trained_layer_has_the_full_one():
    model, scales = scales_of("ecapa", TINY_ECAPA)
    frozen = [p for name, p in model.named_parameters() if scales[name] == 1.0]
    for parameter in frozen:
        parameter.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        [{"params": trained[:9], "weight_decay": 0.1}, {"params": trained[9:]}], lr=2.0
    )
    scale_rates(optimizer, model, scales)
    assert [group["lr"] for group in optimizer.param_groups] == sorted(
        (group["lr"] for group in optimizer.param_groups), reverse=True
    )
    names = {id(p): name for name, p in model.named_parameters()}
    found = {
        names[id(p)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert len(found) == len(trained)
    assert found["backbone.network.blocks.0.conv.conv.weight"] == (2.0 * 0.5**3, 0.1)
    assert {
        rate for name, (rate, _) in found.items() if name.startswith("backbone.network.blocks.3")
    } == {2.0}
