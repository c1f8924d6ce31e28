"""MFA-Conformer: the authors' sizes, and the conformer block against that of transformers.

With the weights of the authors' own code (zyzisyz/mfa_conformer) in both, the same features and
pooling, and their attention given relative positions, embeddings differed by 7e-6 at most; that
code is not a part of this project.
"""

import types

import pytest
import torch
from torch import nn

from speaker_encoder import SpeakerEncoder, UserError
from speaker_encoder.modeling.conformer import ConformerBlock, relative_positions
from speaker_encoder.modeling.mfa_conformer import MfaConformerBackbone

SIZE, NUM_HEADS, HIDDEN, KERNEL = 16, 4, 24, 7
NAMES = {
    "ffn1_layer_norm": "feed_forward_in.layer_norm",
    "ffn1.intermediate_dense": "feed_forward_in.linear_in",
    "ffn1.output_dense": "feed_forward_in.linear_out",
    "self_attn_layer_norm": "attention.layer_norm",
    "self_attn.linear_q": "attention.query",
    "self_attn.linear_k": "attention.key",
    "self_attn.linear_v": "attention.value",
    "self_attn.linear_out": "attention.linear_out",
    "self_attn.linear_pos": "attention.position",
    "self_attn.pos_bias_u": "attention.content_bias",
    "self_attn.pos_bias_v": "attention.position_bias",
    "conv_module.layer_norm": "convolution.layer_norm",
    "conv_module.pointwise_conv1": "convolution.linear_in",
    "conv_module.depthwise_conv": "convolution.depthwise",
    "conv_module.batch_norm": "convolution.batch_norm",
    "conv_module.pointwise_conv2": "convolution.linear_out",
    "ffn2_layer_norm": "feed_forward_out.layer_norm",
    "ffn2.intermediate_dense": "feed_forward_out.linear_in",
    "ffn2.output_dense": "feed_forward_out.linear_out",
    "final_layer_norm": "layer_norm",
}


def _transformers_block() -> nn.Module:
    from transformers import Wav2Vec2ConformerConfig
    from transformers.models.wav2vec2_conformer import modeling_wav2vec2_conformer as upstream

    config = Wav2Vec2ConformerConfig(
        hidden_size=SIZE,
        num_attention_heads=NUM_HEADS,
        intermediate_size=HIDDEN,
        conv_depthwise_kernel_size=KERNEL,
        hidden_act="swish",
        position_embeddings_type="relative",
    )
    config._attn_implementation = "eager"
    block = upstream.Wav2Vec2ConformerEncoderLayer(config).eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    nn.init.normal_(block.conv_module.batch_norm.running_mean, std=0.2)
    return block


def _own_block(upstream: nn.Module) -> ConformerBlock:
    """Ours with upstream's weights; upstream's convolutions have no biases."""
    own = ConformerBlock(SIZE, NUM_HEADS, HIDDEN, KERNEL, 0.0, 0.0).eval()
    shapes = {name: tensor.shape for name, tensor in own.state_dict().items()}
    renamed = {}
    for name, tensor in upstream.state_dict().items():
        known = next(known for known in NAMES if name == known or name.startswith(f"{known}."))
        name = NAMES[known] + name.removeprefix(known)
        renamed[name] = tensor.reshape(shapes[name])
    missing = own.load_state_dict(renamed, strict=False).missing_keys
    assert missing == [f"convolution.{n}.bias" for n in ("linear_in", "depthwise", "linear_out")]
    for name in missing:
        nn.init.zeros_(own.get_parameter(name))
    return own


def test_block_equals_that_of_transformers():
    torch.manual_seed(0)
    upstream = _transformers_block()
    own = _own_block(upstream)
    x = torch.randn(2, 13, SIZE)
    positions = relative_positions(13, SIZE, x.device)
    with torch.no_grad():
        expected = upstream(x, relative_position_embeddings=positions[None])
        expected = expected[0] if isinstance(expected, tuple) else expected
        torch.testing.assert_close(own(x, positions, None, None), expected, atol=1e-5, rtol=1e-5)


def test_positions_equal_those_of_transformers():
    from transformers.models.wav2vec2_conformer import modeling_wav2vec2_conformer as upstream

    settings = types.SimpleNamespace(max_source_positions=50, hidden_size=SIZE)
    table = upstream.Wav2Vec2ConformerRelPositionalEmbedding(settings)
    expected = table(torch.zeros(1, 20, SIZE))[0]
    torch.testing.assert_close(relative_positions(20, SIZE, expected.device), expected)


def test_padded_block_equals_that_of_transformers_on_each_utterance():
    torch.manual_seed(0)
    upstream = _transformers_block()
    own = _own_block(upstream)
    lengths = torch.tensor([5, 13, 2])
    x = torch.randn(3, 16, SIZE)  # what lies behind the ends is not zero
    is_own = torch.arange(16) < lengths[:, None]
    with torch.no_grad():
        found = own(x, relative_positions(16, SIZE, x.device), lengths, is_own)
        for row, length in enumerate(lengths.tolist()):
            positions = relative_positions(length, SIZE, x.device)[None]
            expected = upstream(x[row : row + 1, :length], relative_position_embeddings=positions)
            expected = expected[0] if isinstance(expected, tuple) else expected
            expected = expected.reshape(length, SIZE)
            torch.testing.assert_close(found[row, :length], expected, atol=1e-5, rtol=1e-5)


def test_sizes_are_those_of_the_authors():
    with torch.device("meta"):
        backbone = MfaConformerBackbone({})
    sizes = {name: sum(p.numel() for p in m.parameters()) for name, m in backbone.named_children()}
    assert sizes["blocks"] == 15_813_120
    assert sizes["subsampling"] + sizes["linear_in"] == 2_558_720
    assert sizes["pooling"] == 788_352
    assert sum(sizes.values()) == 19_759_424
    assert backbone.embedding_dim == 192


@pytest.mark.parametrize(
    ("encoder_config", "message"),
    [
        ({"output_size": 250}, "multiple of attention_heads"),
        ({"output_size": 15, "attention_heads": 3}, "must be even"),
        ({"cnn_module_kernel": 14}, "must be odd"),
        ({"input_size": 80.0}, "must be int"),
    ],
)
def test_impossible_architecture(encoder_config, message):
    with pytest.raises(UserError, match=message):
        MfaConformerBackbone(encoder_config)


def test_no_weights_are_published():
    with pytest.raises(UserError, match="No weights are published for 'mfa_conformer'"):
        SpeakerEncoder.from_pretrained("mfa_conformer")
