"""One or more tiny encoders of every family; the tests of ``test_every_encoder.py`` run on each."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TinyEncoder:
    """A small architecture with random weights.

    Attributes:
        encoder_kind: A key of ``registry.BACKBONES``.
        encoder_config: Its architecture, small enough that a test takes a moment.
        without_gradient: Patterns (``fnmatch``) of parameters that training on crops does not
            reach, each with its reason beside it.
    """

    encoder_kind: str
    encoder_config: dict[str, Any] = field(default_factory=dict)
    without_gradient: tuple[str, ...] = ()


_TINY_STAGES = {"num_filters": [24, 32, 40, 48], "layers": [1, 2, 1, 1]}
_TINY_WIDENED_STAGES = {"num_filters": [8, 8, 12, 16], "layers": [1, 2, 1, 1]}

_TINY_TRANSFORMER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "layerdrop": 0.0,
}
_TINY_WAVEFORM = {
    **_TINY_TRANSFORMER,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
_TINY_ECAPA_HEAD = {
    "name": "ecapa",
    "channels": [16, 16, 16, 16, 48],
    "attention_channels": 8,
    "se_channels": 8,
    "lin_neurons": 24,
}

TINY: dict[str, TinyEncoder] = {
    "ecapa": TinyEncoder(
        "ecapa",
        {
            "channels": [64, 64, 64, 64, 192],
            "attention_channels": 32,
            "se_channels": 32,
            "lin_neurons": 48,
        },
    ),
    "xvector": TinyEncoder("xvector", {"tdnn_channels": [24, 24, 24, 24, 40], "lin_neurons": 32}),
    "resnet": TinyEncoder(
        "resnet",
        {
            "input_size": 24,
            "channels": [8, 8, 16, 16],
            "block_sizes": [2, 1, 2, 1],
            "lin_neurons": 32,
        },
    ),
    "mfa_conformer": TinyEncoder(
        "mfa_conformer",
        {
            "input_size": 20,
            "output_size": 16,
            "attention_heads": 2,
            "linear_units": 32,
            "num_blocks": 2,
            "cnn_module_kernel": 7,
            "embedding_dim": 24,
        },
    ),
    "ska_tdnn": TinyEncoder(
        "ska_tdnn",
        {
            "input_size": 16,
            "ska_dim": 8,
            "ndim": 16,
            "model_scale": 4,
            "output_size": 24,
            "embedding_dim": 24,
        },
    ),
    "dvector": TinyEncoder("dvector", {"hidden_size": 32, "num_layers": 2, "embedding_size": 24}),
    "dvector-residual": TinyEncoder(
        "dvector",
        {
            "network": "residual_lstm",
            "num_mels": 20,
            "hidden_size": 24,
            "num_layers": 3,
            "embedding_size": 16,
        },
    ),
    "dvector-transformer": TinyEncoder(
        "dvector",
        {
            "network": "transformer",
            "num_mels": 20,
            "hidden_size": 16,
            "num_layers": 2,
            "embedding_size": 16,
        },
    ),
    "wavlm": TinyEncoder(
        "wavlm",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "conv_dim": [16] * 7,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
            "tdnn_dim": [24, 24, 24, 24, 40],
            "xvector_output_dim": 24,
        },
    ),
    "wavlm-ecapa": TinyEncoder(
        "wavlm", {**_TINY_WAVEFORM, "head": _TINY_ECAPA_HEAD, "layers": "weighted_sum"}
    ),
    "wav2vec2": TinyEncoder(
        "wav2vec2",
        {
            **_TINY_WAVEFORM,
            "tdnn_dim": [24, 24, 24, 24, 40],
            "xvector_output_dim": 24,
            "layers": "weighted_sum",
        },
    ),
    "hubert": TinyEncoder(
        "hubert",
        {
            **_TINY_WAVEFORM,
            "head": {"name": "mhfa", "num_heads": 4, "compression_dim": 8, "embedding_dim": 24},
        },
    ),
    "unispeech-sat": TinyEncoder(
        "unispeech-sat", {**_TINY_WAVEFORM, "head": _TINY_ECAPA_HEAD, "layers": 1}
    ),
    "data2vec-audio": TinyEncoder(
        "data2vec-audio",
        {
            **_TINY_WAVEFORM,
            "num_conv_pos_embeddings": 2,
            "conv_pos_kernel_size": 5,
            "head": {"name": "attentive_statistics", "embedding_dim": 24},
        },
    ),
    "wav2vec2-bert": TinyEncoder(
        "wav2vec2-bert", {**_TINY_TRANSFORMER, "head": "mean", "layers": "weighted_sum"}
    ),
    "whisper": TinyEncoder(
        "whisper",
        {
            "d_model": 32,
            "encoder_layers": 2,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "max_source_positions": 100,  # 2 s; longer ones go in pieces
            "head": {"name": "attentive_statistics", "embedding_dim": 24},
            "layers": "weighted_sum",
        },
    ),
    "resnetse34l": TinyEncoder("resnetse34l", {"n_out": 24, **_TINY_STAGES}),
    "resnetse34l-asp": TinyEncoder(
        "resnetse34l", {"n_out": 24, "encoder_type": "ASP", "log_input": False, **_TINY_STAGES}
    ),
    "resnetse34v2": TinyEncoder("resnetse34v2", {"n_out": 24, **_TINY_STAGES}),
    "resnetse34v2-sap": TinyEncoder(
        "resnetse34v2", {"n_out": 24, "encoder_type": "SAP", "n_mels": 24, **_TINY_STAGES}
    ),
    "vggvox40": TinyEncoder("vggvox40", {"n_out": 24}),
    "vggvox40-tap": TinyEncoder("vggvox40", {"n_out": 24, "encoder_type": "TAP"}),
    "vggvox40-max": TinyEncoder("vggvox40", {"n_out": 24, "encoder_type": "MAX"}),
    "res2netse34": TinyEncoder(
        "res2netse34", {"n_out": 24, "attention_dim": 16, **_TINY_WIDENED_STAGES}
    ),
    "res2netse34-asp": TinyEncoder(
        "res2netse34", {"n_out": 24, "encoder_type": "ASP", "scale": 3, **_TINY_WIDENED_STAGES}
    ),
    "rawnet3": TinyEncoder("rawnet3", {"n_out": 24, "channels": 32}),
    "rawnet3-asp": TinyEncoder(
        "rawnet3", {"n_out": 24, "channels": 16, "model_scale": 4, "encoder_type": "ASP"}
    ),
}
"""Name of a case -> the encoder; a name that is also a family's is the plain case of it."""
