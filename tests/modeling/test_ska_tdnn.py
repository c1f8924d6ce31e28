"""SKA-TDNN: the authors' sizes, and its selection of kernels against the paper's formula.

With the weights of the authors' own code (msh9184/ska-tdnn, "CCSP" pooling) in both, embeddings of
waveforms differed by 2e-7 at most; that code is not a part of this project.
"""

import pytest
import torch
from torch import nn

from speaker_encoder import SpeakerEncoder, UserError
from speaker_encoder.modeling.ska_parts import KernelAttention, MultiScaleBlock, SelectiveConv2d
from speaker_encoder.modeling.ska_tdnn import SkaTdnnBackbone


def test_sizes_are_those_of_the_authors():
    with torch.device("meta"):
        backbone = SkaTdnnBackbone({})
    sizes = {name: sum(p.numel() for p in m.parameters()) for name, m in backbone.named_children()}
    assert sizes["frt_block1"] == sizes["frt_block2"] == 2_582_512
    assert sizes["layer1"] == sizes["layer2"] == sizes["layer3"] == 3_761_056
    assert sizes["pooling"] == 788_352
    assert sum(sizes.values()) == 35_812_864
    assert backbone.embedding_dim == 192


def _select(attention: KernelAttention, outputs, mean):
    """Selective Kernel Networks, eq. 3-6: the mean (width,) of one utterance -> (2, width)."""
    hidden = torch.relu(attention.fc(mean))
    scores = torch.stack([linear(hidden) for linear in attention.fcs])
    return torch.exp(scores) / torch.exp(scores).sum(dim=0)


@pytest.mark.parametrize("chooses_by_band", [True, False])
def test_selection_over_bands_and_channels(chooses_by_band):
    torch.manual_seed(0)
    block = SelectiveConv2d(4, 6, chooses_by_band=chooses_by_band).eval()
    x = torch.randn(1, 4, 6, 9)
    outputs = [
        branch.bn(torch.relu(nn.Conv2d.forward(branch.conv, x)))[0] for branch in block.convs
    ]
    total = outputs[0] + outputs[1]  # (C, F, T)
    mean = total.mean(dim=(0, 2)) if chooses_by_band else total.mean(dim=(1, 2))
    weights = _select(block, outputs, mean)
    shape = (1, 6, 1) if chooses_by_band else (4, 1, 1)
    expected = sum(a.reshape(shape) * part for a, part in zip(weights, outputs, strict=True))
    torch.testing.assert_close(block(x, None)[0], expected)
    assert (weights[0] - weights[1]).abs().max() > 1e-3


def test_each_group_of_channels_hears_the_one_before():
    torch.manual_seed(0)
    block = MultiScaleBlock(8, dilation=2, scale=4).eval()
    x = torch.randn(1, 8, 20)
    split = block.bn1(torch.relu(block.conv1(x))).split(2, dim=1)
    parts, before = [], None
    for group, branches in zip(split[:3], block.skconvs, strict=True):
        heard = group if before is None else group + before
        outputs = [b.bn(torch.relu(nn.Conv1d.forward(b.conv, heard)))[0] for b in branches]
        weights = _select(block.skse, outputs, (outputs[0] + outputs[1]).mean(dim=1))
        before = sum(a[:, None] * part for a, part in zip(weights, outputs, strict=True))[None]
        parts.append(before)
    hidden = block.bn3(torch.relu(block.conv3(torch.cat([*parts, split[3]], dim=1))))
    gate = block.se.se(hidden.mean(dim=2, keepdim=True))
    torch.testing.assert_close(block(x, None), hidden * gate + x)
    dilations = {b.conv.dilation for branches in block.skconvs for b in branches}
    assert dilations == {(2,)}


@pytest.mark.parametrize(
    ("encoder_config", "message"),
    [
        ({"input_size": 81}, "multiple of 4"),
        ({"ndim": 1000, "model_scale": 7}, "one of model_scale"),
        ({"model_scale": 1}, "at least 2"),
    ],
)
def test_impossible_architecture(encoder_config, message):
    with pytest.raises(UserError, match=message):
        SkaTdnnBackbone(encoder_config)


def test_no_weights_are_published():
    with pytest.raises(UserError, match="No weights are published for 'ska_tdnn'"):
        SpeakerEncoder.from_pretrained("ska_tdnn")
