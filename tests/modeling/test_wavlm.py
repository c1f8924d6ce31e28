"""The WavLM backbone gives upstream's embeddings, and the same ones in a padded batch."""

import functools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize
from wavlm_models import (
    LAYER,
    NO_DROPOUT,
    TINY,
    VARIANTS,
    make_backbone,
    make_upstream,
    make_waveform,
    pad_batch,
)

from speaker_encoder import UserError
from speaker_encoder.modeling.ssl_parts import draw_spans, masked_group_norm, pool_statistics
from speaker_encoder.modeling.wavlm import WavLMBackbone

every_variant = pytest.mark.parametrize("variant", sorted(VARIANTS))
MIN_NUM_SAMPLES = 5200


@functools.lru_cache
def backbone_of(variant: str) -> WavLMBackbone:
    return make_backbone(make_upstream(variant))


def embed(backbone, waveforms):
    input_values, lengths = pad_batch(waveforms)
    with torch.inference_mode():
        return normalize(backbone(input_values, lengths), dim=-1)


def embed_alone(backbone, waveforms):
    with torch.inference_mode():
        rows = [backbone(torch.from_numpy(waveform)[None]) for waveform in waveforms]
    return normalize(torch.cat(rows), dim=-1)


@every_variant
def test_equals_upstream_on_one_utterance(variant):
    upstream = make_upstream(variant)
    backbone = make_backbone(upstream)
    for num_samples in (MIN_NUM_SAMPLES, 16000, 50001):
        input_values = torch.from_numpy(make_waveform(num_samples))[None]
        with torch.inference_mode():
            expected = upstream(input_values).embeddings
            found = backbone(input_values)
        assert (found - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))
        assert (normalize(found) - normalize(expected)).abs().max() <= 1e-5


@every_variant
def test_gradients_equal_upstream(variant):
    upstream = make_upstream(variant, **NO_DROPOUT).train()
    backbone = make_backbone(upstream).train()
    crops = torch.stack([torch.from_numpy(make_waveform(9000, seed)) for seed in range(3)])
    direction = torch.randn(3, TINY["xvector_output_dim"])
    for model in (upstream, backbone):
        embeddings = model(crops)
        embeddings = getattr(embeddings, "embeddings", embeddings)
        (normalize(embeddings, dim=-1) * direction).sum().backward()
    expected = dict(upstream.named_parameters())
    for name, parameter in backbone.named_parameters():
        gradient = expected[name].grad
        gradient = torch.zeros_like(parameter) if gradient is None else gradient
        torch.testing.assert_close(
            parameter.grad, gradient, atol=1e-5 * float(1 + gradient.abs().max()), rtol=1e-4
        )


@every_variant
def test_batch_equals_single_from_shortest_to_20_seconds(variant):
    backbone = backbone_of(variant)
    lengths = [6400, 320_000, MIN_NUM_SAMPLES, 16000, 47777]
    waveforms = [make_waveform(length) for length in lengths]
    alone = embed_alone(backbone, waveforms)
    assert (embed(backbone, waveforms) - alone).abs().max() <= 1e-5
    assert (alone[0] - alone[1]).abs().max() > 1e-2  # embeddings say something


@pytest.mark.parametrize("variant", ["base-sv", "large"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(
    lengths=st.lists(st.integers(MIN_NUM_SAMPLES, 40_000), min_size=2, max_size=4),
    seed=st.integers(0, 1000),
)
def test_batch_equals_single_for_any_lengths(variant, lengths, seed):
    backbone = backbone_of(variant)
    waveforms = [make_waveform(length, seed) for length in lengths]
    together = embed(backbone, waveforms)
    assert (together - embed_alone(backbone, waveforms)).abs().max() <= 1e-5


@pytest.mark.parametrize("variant", ["base-sv", "large-sv"])
def test_gradients_of_a_padded_batch_are_the_sum_of_those_alone(variant):
    backbone = make_backbone(make_upstream(variant, **NO_DROPOUT)).train()
    waveforms = [make_waveform(length) for length in (MIN_NUM_SAMPLES, 9001, 20000)]
    direction = torch.randn(3, TINY["xvector_output_dim"])

    def gradients(outputs):
        backbone.zero_grad()
        (normalize(outputs, dim=-1) * direction).sum().backward()
        return {name: one.grad.clone() for name, one in backbone.named_parameters()}

    rows = [backbone(torch.from_numpy(waveform)[None]) for waveform in waveforms]
    expected = gradients(torch.cat(rows))
    found = gradients(backbone(*pad_batch(waveforms)))
    for name, gradient in expected.items():
        atol = 1e-5 * float(1 + gradient.abs().max())
        torch.testing.assert_close(found[name], gradient, atol=atol, rtol=1e-4)


def test_what_lies_behind_an_end_does_not_matter_beyond_the_contract():
    backbone = backbone_of("base")
    input_values, lengths = pad_batch([make_waveform(8000), make_waveform(30000)])
    with torch.inference_mode():
        expected = backbone(input_values, lengths)
        input_values = torch.nn.functional.pad(input_values, (0, 7777))
        found = backbone(input_values, lengths)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 5200),  # 15 frames of context, 2 to pool: (16 - 1) * 320 + 400 samples
        ({"tdnn_dilation": [1, 1, 1, 1, 1]}, (2 + 4 + 2 + 2 - 1) * 320 + 400),
        ({"tdnn_dim": [32, 48], "tdnn_kernel": [3, 1], "tdnn_dilation": [1, 1]}, 3 * 320 + 400),
    ],
)
def test_shortest_utterance_follows_from_the_kernels(changes, expected):
    backbone = WavLMBackbone({**TINY, **LAYER, **changes}).eval()
    assert backbone.min_num_samples == expected
    with torch.inference_mode():
        assert torch.isfinite(backbone(torch.randn(1, expected))).all()
        # One sample less leaves a single frame: no deviation.
        with pytest.warns(UserWarning, match="degrees of freedom"):
            assert not torch.isfinite(backbone(torch.randn(1, expected - 1))).all()


def test_num_frames_of_numbers_and_tensors():
    backbone = backbone_of("base")
    lengths = torch.tensor([400, 719, 720, 16000])
    assert backbone.num_frames(lengths).tolist() == [1, 1, 2, 49]
    assert [backbone.num_frames(int(length)) for length in lengths] == [1, 1, 2, 49]


def test_masked_group_norm_equals_torch_on_each_utterance():
    norm = torch.nn.GroupNorm(6, 6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    frames, num_frames = torch.randn(3, 6, 50) + 2.0, torch.tensor([50, 7, 2])
    found = masked_group_norm(norm, frames, num_frames)
    for row, length in enumerate(num_frames.tolist()):
        expected = norm(frames[row : row + 1, :, :length])[0]
        torch.testing.assert_close(found[row, :, :length], expected, atol=1e-5, rtol=1e-5)


def test_pooled_statistics_by_hand():
    frames = torch.tensor([[[1.0], [3.0], [100.0]], [[2.0], [2.0], [2.0]]])
    found = pool_statistics(frames, torch.tensor([2, 3]))
    # (1 + 3) / 2 and sqrt(((1 - 2)^2 + (3 - 2)^2) / (2 - 1))
    torch.testing.assert_close(found, torch.tensor([[2.0, 2.0**0.5], [2.0, 0.0]]))
    full = pool_statistics(frames, None)
    torch.testing.assert_close(full, pool_statistics(frames, torch.tensor([3, 3])))


@pytest.mark.parametrize("num_frames", [None, torch.tensor([4, 3])])
def test_pooling_of_constant_frames_has_a_finite_gradient(num_frames):
    frames = torch.zeros(2, 4, 3, requires_grad=True)
    pool_statistics(frames, num_frames).sum().backward()
    assert torch.isfinite(frames.grad).all()


def test_spans_mask_as_upstream_does():
    import numpy as np
    from transformers.models.wavlm.modeling_wavlm import _compute_mask_indices

    np.random.seed(0)
    torch.manual_seed(0)
    lengths, size = [100, 60, 100, 30], 100
    attention_mask = torch.arange(size) < torch.tensor(lengths)[:, None]
    arguments = {"mask_prob": 0.3, "mask_length": 10, "min_masks": 2}
    theirs = sum(
        _compute_mask_indices((4, size), attention_mask=attention_mask, **arguments).astype(float)
        for _ in range(500)
    )
    before = np.random.get_state()[1].copy()
    ours = sum(draw_spans(lengths, size, 0.3, 10, 2).float() for _ in range(500)).numpy()
    assert (np.random.get_state()[1] == before).all()  # torch's generator only
    assert ours[1, 60:].sum() == 0
    assert np.abs(ours - theirs).max() / 500 < 0.12  # chance of each frame to be masked
    np.testing.assert_allclose(ours.sum(1), theirs.sum(1), rtol=0.03)


def test_no_span_where_there_is_no_room():
    assert draw_spans([5, 3], 5, 0.5, 10, 2).sum() == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hiden_size": 32}, r"'hiden_size'.*Did you mean 'hidden_size'"),
        ({"hidden_size": "32"}, "'hidden_size'.*must be int"),
        ({"tdnn_dim": [32, 32]}, "tdnn_dim, tdnn_kernel, tdnn_dilation must have one value"),
        ({"conv_dim": []}, "conv_dim, conv_kernel, conv_stride must have one value"),
        ({"num_attention_heads": 5}, "cannot be built: .*divisible"),
        ({"feat_extract_norm": "batch"}, "cannot be built: .*batch"),
        ({"hidden_act": "gelus"}, "cannot be built: .*gelus"),
        ({"add_adapter": True}, "adapter"),
    ],
)
def test_impossible_architecture_is_an_error(changes, message):
    with pytest.raises(UserError, match=message):
        WavLMBackbone({**TINY, **changes})


def test_arguments_for_other_heads_are_accepted():
    from transformers import WavLMConfig

    fields = {name: getattr(WavLMConfig(**TINY), name) for name in WavLMConfig.__annotations__}
    backbone = WavLMBackbone(fields)
    assert backbone.encoder_config == WavLMBackbone(TINY).encoder_config
