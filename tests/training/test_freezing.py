"""What `freeze` names is not trained, and keeps the statistics of its batch norm."""

import pytest
import torch
from conftest import TINY_ECAPA, TINY_WAVLM

from speaker_encoder import SpeakerEncoder
from speaker_encoder.errors import UserError
from speaker_encoder.training.freezing import freeze_parameters


def encoder(name="ecapa", encoder_config=TINY_ECAPA):
    return SpeakerEncoder.from_name(name, pretrained=False, encoder_config=encoder_config)


def frozen(model):
    return {name for name, p in model.named_parameters() if not p.requires_grad}


def test_patterns_name_parameters_or_whole_modules():
    model = encoder("wavlm-base", TINY_WAVLM)
    freeze_parameters(model, ["backbone.wavlm.encoder.layers.0", "*.final_layer_norm.bias"])
    names = frozen(model)
    assert "backbone.wavlm.encoder.layers.0.attention.k_proj.weight" in names
    assert "backbone.wavlm.encoder.layers.1.final_layer_norm.bias" in names
    left = {name for name in names if ".layers.0." not in name}
    assert left == {"backbone.wavlm.encoder.layers.1.final_layer_norm.bias"}
    model.train()  # SpecAugment of transformers asks for longer crops than these
    model.backbone.wavlm.config.apply_spec_augment = False
    model(torch.randn(2, 16000)).embeddings.sum().backward()
    for name, parameter in model.named_parameters():
        assert name not in names or parameter.grad is None


def test_a_pattern_of_nothing_names_what_is_near():
    with pytest.raises(UserError) as caught:
        freeze_parameters(encoder(), ["backbone.network.block.0.*"])
    assert "'backbone.network.block.0.*'" in str(caught.value)
    assert "backbone.network.blocks.0.conv.conv.weight" in str(caught.value)


def test_statistics_stay_where_all_weights_are_frozen_and_go_on_elsewhere():
    model = encoder()
    freeze_parameters(model, ["backbone.network.blocks.1.*"])
    before = {name: tensor.clone() for name, tensor in model.named_buffers()}
    model.train()
    model(torch.randn(4, 16000))
    changed = {
        name
        for name, tensor in model.named_buffers()
        if "running_mean" in name and not torch.equal(tensor, before[name])
    }
    assert changed and not any("network.blocks.1." in name for name in changed)
    assert any(".blocks.2." in name for name in changed)


@pytest.mark.parametrize("patterns", [["backbone"], ["backbone.network.*", "*.bias"]])
def test_an_encoder_with_nothing_left_to_train_is_refused(patterns):
    model = encoder()
    model.attach_loss(torch.nn.Linear(2, 2))
    with pytest.raises(UserError, match=r"leaves none of the encoder's \d+ parameters to train"):
        freeze_parameters(model, patterns)


def test_what_was_frozen_before_counts():
    model = encoder("wavlm-base", TINY_WAVLM)
    model.freeze(train_only_head=True)
    with pytest.raises(UserError, match="set train_only_head"):
        freeze_parameters(
            model, ["backbone.tdnn", "backbone.projector", "backbone.feature_extractor"]
        )
