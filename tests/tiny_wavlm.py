"""The architecture of a tiny WavLM, with the real layout of kernels and strides."""

from typing import Any

TINY_WAVLM: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": [32] * 7,
    "num_conv_pos_embedding_groups": 4,
    "tdnn_dim": [24, 24, 24, 24, 40],
    "xvector_output_dim": 24,
    # Large enough that attention and position bias change the embedding.
    "initializer_range": 0.2,
}
