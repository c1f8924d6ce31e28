"""Training the WavLM backbone: what is frozen, what is random, what every step must reach."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from transformers import WavLMConfig
from wavlm_models import (
    NO_DROPOUT,
    TINY,
    VARIANTS,
    make_backbone,
    make_upstream,
    make_waveform,
    pad_batch,
)

from speaker_encoder import SpeakerEncoder, SpeakerEncoderConfig
from speaker_encoder.modeling import ssl_backbone
from speaker_encoder.modeling.wavlm import WavLMBackbone

every_variant = pytest.mark.parametrize("variant", sorted(VARIANTS))
HEAD = ("projector.", "tdnn.", "feature_extractor.", "layer_weights")


def make_training_backbone(variant, **changes):
    torch.manual_seed(1)
    return WavLMBackbone({**TINY, **VARIANTS[variant], **changes}).train()


def make_crops(num_samples=8000, num_utterances=4):
    rows = [make_waveform(num_samples, seed) for seed in range(num_utterances)]
    return torch.from_numpy(np.stack(rows))


def backward(backbone, crops):
    """Gives the loss of two speakers with two utterances each, after its backward."""
    embeddings = normalize(backbone(crops), dim=-1)
    cosines = embeddings @ embeddings.T
    loss = cosines[:2, 2:].mean() - cosines[0, 1] - cosines[2, 3]
    loss.backward()
    return float(loss.detach())


@every_variant
def test_steps_of_training_lower_the_loss_and_reach_every_parameter(variant):
    backbone = make_training_backbone(variant, **NO_DROPOUT)
    before = {name: one.detach().clone() for name, one in backbone.named_parameters()}
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=1e-3, weight_decay=0.0)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        losses.append(backward(backbone, make_crops()))
        assert all(torch.isfinite(one.grad).all() for one in backbone.parameters())
        optimizer.step()
    assert losses[-1] < losses[0]
    untouched = {
        name for name, one in backbone.named_parameters() if torch.equal(one, before[name])
    }
    # SpecAugment is off; upstream's sum of layers leaves the last norm out.
    allowed = {"wavlm.masked_spec_embed"}
    if variant == "large-sv":
        allowed |= {f"wavlm.encoder.layer_norm.{name}" for name in ("weight", "bias")}
    # A bias of all keys cancels in the softmax; its gradient is rounding, moved by Adam or not.
    allowed |= {name for name in before if name.endswith("k_proj.bias")}
    assert untouched <= allowed


@every_variant
@pytest.mark.parametrize(
    "changes",
    [
        {"layerdrop": 0.9},
        {"apply_spec_augment": False},
        {"mask_time_prob": 0.0, "mask_feature_prob": 0.1},
        {"mask_time_prob": 0.0001, "mask_time_min_masks": 0},
    ],
)
def test_every_parameter_has_a_gradient_in_every_step(variant, changes):
    backbone = make_training_backbone(variant, **changes)
    for seed in range(3):
        torch.manual_seed(seed)
        backbone.zero_grad()
        backward(backbone, make_crops())
        assert all(one.grad is not None for one in backbone.parameters())


@pytest.fixture
def process_group(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def _three_steps(backbone):
    parallel = torch.nn.parallel.DistributedDataParallel(backbone)
    for seed in range(3):
        torch.manual_seed(seed)
        backward(parallel, make_crops())


def test_data_parallel_needs_no_search_for_unused_parameters(process_group, monkeypatch):
    changes = {"layerdrop": 0.9, "apply_spec_augment": False}
    _three_steps(make_training_backbone("large-sv", **changes))
    monkeypatch.setattr(
        ssl_backbone, "keep_in_graph", lambda hidden_states, parameters: hidden_states
    )
    with pytest.raises(RuntimeError, match="finished reduction"):
        _three_steps(make_training_backbone("large-sv", **changes))


def test_dropped_layers_are_left_out():
    backbone = make_training_backbone("base", **{**NO_DROPOUT, "layerdrop": 1.0})
    only_first = make_training_backbone("base", **{**NO_DROPOUT, "num_hidden_layers": 1})
    weights = backbone.state_dict()
    only_first.load_state_dict({name: weights[name] for name in only_first.state_dict()})
    crops = make_crops()
    torch.testing.assert_close(backbone(crops), only_first(crops))
    assert not torch.allclose(backbone.eval()(crops), only_first(crops), atol=1e-3)


@pytest.mark.parametrize("variant", ["base", "large"])
def test_training_mode_without_dropout_equals_eval(variant):
    backbone = make_backbone(make_upstream(variant, **NO_DROPOUT))
    batch = pad_batch([make_waveform(8000), make_waveform(15000)])
    with torch.inference_mode():
        expected = backbone(*batch)
        torch.testing.assert_close(backbone.train()(*batch), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_dropout": 0.2},
        {"activation_dropout": 0.2},
        {"attention_dropout": 0.2},
        {"feat_proj_dropout": 0.2},
        {"layerdrop": 0.5},
        {"apply_spec_augment": True, "mask_time_prob": 0.3},
        {"apply_spec_augment": True, "mask_time_prob": 0.0, "mask_feature_prob": 0.3},
    ],
)
def test_randomness_of_training_is_torchs_and_eval_has_none(changes):
    backbone = make_training_backbone("base", **{**NO_DROPOUT, **changes})
    batch = pad_batch([make_waveform(16000), make_waveform(9000)])
    numpy_state = np.random.get_state()[1].copy()
    drawn = []
    for seed in (1, 1, 2, 3, 4):
        torch.manual_seed(seed)
        drawn.append(backbone(*batch))
    assert torch.equal(drawn[0], drawn[1])
    assert any(not torch.allclose(drawn[0], other) for other in drawn[2:])
    assert (np.random.get_state()[1] == numpy_state).all()
    backbone.eval()
    assert torch.equal(backbone(*batch), backbone(*batch))


def test_spec_augment_masks_only_true_frames_with_the_learnt_vector():
    backbone = make_training_backbone("base", **{**NO_DROPOUT, "apply_spec_augment": True})
    torch.manual_seed(0)
    frames, num_frames = torch.randn(2, 60, TINY["hidden_size"]), torch.tensor([60, 25])
    masked = backbone._spec_augment(frames, num_frames)
    is_masked = (masked != frames).any(-1)
    assert is_masked[0].sum() >= 10
    assert not is_masked[1, 25:].any()
    expected = backbone.wavlm.masked_spec_embed.expand(int(is_masked.sum()), -1)
    assert torch.equal(masked[is_masked], expected)


def test_gradient_checkpointing_gives_the_same_gradients():
    config = SpeakerEncoderConfig(encoder_kind="wavlm", encoder_config={**TINY, "layerdrop": 0.3})
    torch.manual_seed(0)
    encoder = SpeakerEncoder(config).train()
    gradients = []
    for kwargs in (None, {"use_reentrant": False}, {"use_reentrant": True}):
        if kwargs is not None:
            encoder.activation_checkpointing_enable(kwargs)
            layers = encoder.backbone.wavlm.encoder.layers
            assert all(layer.gradient_checkpointing for layer in layers)
        encoder.zero_grad()
        torch.manual_seed(7)
        encoder(make_crops()).embeddings.square().sum().backward()
        gradients.append({name: one.grad.clone() for name, one in encoder.named_parameters()})
    for other in gradients[1:]:
        for name, gradient in gradients[0].items():
            atol = 1e-5 * float(1 + gradient.abs().max())
            torch.testing.assert_close(other[name], gradient, atol=atol, rtol=1e-4)


@pytest.mark.parametrize("variant", ["base-sv", "large"])
def test_freeze_chooses_what_is_trained(variant):
    backbone = make_training_backbone(variant)

    def trainable():
        return {name for name, one in backbone.named_parameters() if one.requires_grad}

    everything = trainable()
    backbone.freeze(train_only_head=True, freeze_feature_encoder=False)
    assert trainable() == {name for name in everything if name.startswith(HEAD)}
    backbone.freeze(train_only_head=False, freeze_feature_encoder=True)
    convolutions = "wavlm.feature_extractor."
    assert everything - trainable() == {n for n in everything if n.startswith(convolutions)}
    backbone.freeze(train_only_head=False, freeze_feature_encoder=False)
    assert trainable() == everything


def test_frozen_parts_do_not_move_and_the_rest_learns():
    backbone = make_training_backbone("base-sv", layerdrop=0.5)
    backbone.freeze(train_only_head=True)
    before = {name: one.detach().clone() for name, one in backbone.named_parameters()}
    optimizer = torch.optim.Adam([one for one in backbone.parameters() if one.requires_grad])
    backward(backbone, make_crops())
    optimizer.step()
    for name, one in backbone.named_parameters():
        assert torch.equal(one, before[name]) != name.startswith(HEAD), name


def test_half_precision_weights_give_finite_embeddings():
    backbone = make_backbone(make_upstream("base-sv")).to(torch.bfloat16)
    batch = pad_batch([make_waveform(16000), make_waveform(9000)])
    with torch.inference_mode():
        assert torch.isfinite(backbone(*batch)).all()


def test_defaults_are_those_of_upstream():
    backbone = WavLMBackbone({**TINY, "conv_dim": [8] * 7})
    assert backbone.wavlm.config.layerdrop == WavLMConfig().layerdrop == 0.1
    assert backbone.encoder_config["mask_time_prob"] == 0.05
