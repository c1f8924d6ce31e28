"""The pooling equals SpeechBrain's own class, forward and backward."""

from __future__ import annotations

import pytest
import torch

from speaker_encoder.modeling.ecapa_parts import AttentiveStatisticsPooling, SharedContextPooling


@pytest.mark.parametrize("has_lengths", [False, True])
@pytest.mark.parametrize("global_context", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_equals_upstream(global_context, has_lengths, training):
    torch.manual_seed(0)
    # More channels than are pooled at once, and not a multiple of that.
    upstream = AttentiveStatisticsPooling(300, 16, global_context=global_context).train(training)
    ours = SharedContextPooling(upstream)
    assert ours.state_dict().keys() == upstream.state_dict().keys()
    lengths = torch.tensor([1.0, 0.61]) if has_lengths else None
    x = torch.randn(2, 300, 41)
    x = x if lengths is None else x * (torch.arange(41) < (lengths * 41)[:, None, None])
    results = []
    for pooling in (upstream, ours):
        pooling.zero_grad()
        frames = x.clone().requires_grad_()
        pooled = pooling(frames, lengths)
        (pooled * torch.linspace(-1, 1, 600)[:, None]).sum().backward()
        gradients = [parameter.grad.clone() for parameter in pooling.parameters()]
        results.append((pooled.detach(), frames.grad.clone(), *gradients))
    for expected, found in zip(*results, strict=True):
        assert found.shape == expected.shape
        # What is added to all scores cancels in the softmax: its gradient is 0 but for rounding.
        assert (found - expected).abs().max() <= 2e-5 * expected.abs().max() + 1e-6
