"""ECAPA for many utterances embeds as ECAPA does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from speaker_encoder import SpeakerEncoder
from speaker_encoder.modeling.ecapa_frozen import FrozenEcapa
from speaker_encoder.modeling.encoding import encode_batch, frozen_encoder
from speaker_encoder.training.lora import add_lora

SMALL = {
    "channels": [32, 32, 32, 32, 48],
    "attention_channels": 16,
    "se_channels": 16,
    "lin_neurons": 24,
}


def make_ecapa(**changes) -> SpeakerEncoder:
    """A small ECAPA none of whose batch norms does nothing."""
    torch.manual_seed(0)
    encoder = SpeakerEncoder.from_name("ecapa", False, {**SMALL, **changes}).eval()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return encoder


def difference(encoder: SpeakerEncoder, inputs: torch.Tensor, *masks: torch.Tensor) -> float:
    """Of both embeddings, of their size."""
    with torch.inference_mode():
        expected = encoder(inputs, *masks).embeddings
        found = frozen_encoder(encoder)(inputs, *masks).embeddings
    assert found.shape == expected.shape and found.isfinite().all()
    return float((found - expected).abs().max() / expected.abs().max())


@settings(max_examples=30, deadline=None)
@given(
    widths=st.tuples(*[st.sampled_from([16, 32, 48])] * 3),
    num_blocks=st.integers(1, 3),
    kernel_sizes=st.lists(st.sampled_from([1, 3, 5, 7]), min_size=5, max_size=5),
    dilations=st.lists(st.integers(1, 5), min_size=5, max_size=5),
    scale=st.sampled_from([2, 4, 8]),
    global_context=st.booleans(),
    more_frames=st.integers(0, 90),
)
def test_equals_upstream(
    widths, num_blocks, kernel_sizes, dilations, scale, global_context, more_frames
):
    channels = [widths[0], *[widths[1]] * num_blocks, widths[2]]
    encoder = make_ecapa(
        channels=channels,
        kernel_sizes=kernel_sizes[: len(channels)],
        dilations=[*dilations[: len(channels) - 1], 1],
        groups=[1] * len(channels),
        res2net_scale=scale,
        global_context=global_context,
    )
    if kernel_sizes[len(channels) - 1] > 1:
        assert not isinstance(encoder.backbone.frozen().network, FrozenEcapa)
        return
    num_samples = encoder.min_num_samples + 160 * more_frames
    assert isinstance(encoder.backbone.frozen().network, FrozenEcapa)
    assert difference(encoder, torch.randn(1, num_samples) / 10) < 1e-5


def test_batches_and_gradients_and_autocast_are_upstream_s():
    encoder = make_ecapa()
    frozen = frozen_encoder(encoder)
    inputs = torch.randn(2, 9000) / 10
    mask = torch.arange(9000) < torch.tensor([9000, 5000])[:, None]
    assert difference(encoder, inputs) == difference(encoder, inputs, mask) == 0
    frozen(inputs[:1]).embeddings.sum().backward()
    assert encoder.backbone.network.blocks[0].conv.conv.weight.grad.abs().sum() > 0
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(frozen(inputs[:1]).embeddings, encoder(inputs[:1]).embeddings)


@pytest.mark.parametrize(
    "change", ["training", "groups", "half", "adapter", "weight norm", "other family"]
)
def test_what_cannot_be_frozen_stays_as_it_is(change):
    encoder = make_ecapa(**({"groups": [1, 2, 1, 1, 1]} if change == "groups" else {}))
    if change == "training":
        encoder.train()
    elif change == "half":
        encoder.to(torch.bfloat16)
    elif change == "adapter":
        options = {"r": 2, "alpha": 4, "dropout": 0.0, "target": ["*.tdnn1.conv.conv"], "train": []}
        add_lora(encoder, options)
        encoder.eval()
    elif change == "weight norm":
        nn.utils.parametrizations.weight_norm(encoder.backbone.network.blocks[1].tdnn1.conv.conv)
    elif change == "other family":
        encoder = SpeakerEncoder.from_name("xvector", False, {"lin_neurons": 16}).eval()
    assert frozen_encoder(encoder).backbone is encoder.backbone


def test_threads_change_no_bit():
    encoder = frozen_encoder(make_ecapa(channels=[256, 256, 256, 256, 512]))
    waveform = torch.randn(30000).numpy() / 10
    num_threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            with torch.inference_mode():
                found.append(encode_batch(encoder, [waveform]))
    finally:
        torch.set_num_threads(num_threads)
    assert torch.equal(*found)


def test_the_encoder_stays_as_it_is(tmp_path):
    encoder = make_ecapa()
    waveform = torch.randn(9000).numpy() / 10
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with torch.inference_mode():
        expected = encode_batch(encoder, [waveform])
        first = encode_batch(frozen_encoder(encoder), [waveform])
        assert torch.equal(encode_batch(encoder, [waveform]), expected)
    assert encoder.state_dict().keys() == before.keys()
    assert not any(isinstance(module, FrozenEcapa) for module in encoder.modules())
    encoder.save_pretrained(tmp_path)
    for parameter in encoder.parameters():  # one that is frozen later has the weights of then
        parameter.data *= 0.9
    with torch.inference_mode():
        expected = encode_batch(encoder, [waveform])
        found = encode_batch(frozen_encoder(encoder), [waveform])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (found - first).abs().max() > 1e-3
