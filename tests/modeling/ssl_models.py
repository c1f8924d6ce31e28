"""Tiny speech encoders of transformers' own classes, one and more of each family."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import (
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

TRANSFORMER: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    # Large enough that attention changes the embedding.
    "initializer_range": 0.2,
    "layerdrop": 0.0,
}
TDNN: dict[str, Any] = {"tdnn_dim": [32, 32, 32, 32, 48], "xvector_output_dim": 24}
CONVOLUTIONS: dict[str, Any] = {"conv_dim": [32] * 7, "num_conv_pos_embedding_groups": 4}
WAVEFORM = {**TRANSFORMER, **TDNN, **CONVOLUTIONS}
GROUP = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


@dataclass(frozen=True)
class Family:
    """A tiny model of transformers.

    Attributes:
        stem: Of its classes' names.
        config: Arguments of its config.
        prefix: Its name in a model with a head.
    """

    stem: str
    prefix: str
    config: dict[str, Any] = field(default_factory=dict)


FAMILIES = {
    "wav2vec2-base": Family("Wav2Vec2", "wav2vec2", {**WAVEFORM, **GROUP}),
    "wav2vec2-large": Family("Wav2Vec2", "wav2vec2", {**WAVEFORM, **LAYER}),
    "hubert-base": Family("Hubert", "hubert", {**TRANSFORMER, **CONVOLUTIONS, **GROUP}),
    "hubert-batch-norm": Family(
        "Hubert",
        "hubert",
        {**TRANSFORMER, **CONVOLUTIONS, **LAYER, "conv_pos_batch_norm": True},
    ),
    "unispeech-sat-base": Family("UniSpeechSat", "unispeech_sat", {**WAVEFORM, **GROUP}),
    "unispeech-sat-large": Family("UniSpeechSat", "unispeech_sat", {**WAVEFORM, **LAYER}),
    "data2vec-audio": Family("Data2VecAudio", "data2vec_audio", {**WAVEFORM}),
    "w2v-bert": Family(
        "Wav2Vec2Bert",
        "wav2vec2_bert",
        {**TRANSFORMER, **TDNN, "left_max_position_embeddings": 9, "num_hidden_layers": 2},
    ),
    "whisper": Family(
        "Whisper",
        "encoder",
        {
            "d_model": 32,
            "encoder_layers": 3,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_layers": 1,
            "decoder_ffn_dim": 32,
            "decoder_attention_heads": 2,
            "vocab_size": 60,
            **{f"{name}_token_id": 1 for name in ("pad", "bos", "eos", "decoder_start")},
            "init_std": 0.2,
            "max_source_positions": 75,  # 1.5 s
        },
    ),
    "wavlm": Family("WavLM", "wavlm", {**WAVEFORM, **LAYER}),
}


def model_class(family: Family, part: str) -> Any:
    """Gives a class of transformers: its "Model", "ForXVector", ..."""
    return getattr(transformers, f"{family.stem}{part}")


def make_upstream(name: str, part: str = "Model", **changes: Any) -> Any:
    """Gives transformers' model in eval mode, no parameter at a value that hides errors."""
    family = FAMILIES[name]
    torch.manual_seed(5)
    config = getattr(transformers, f"{family.stem}Config")(**{**family.config, **changes})
    model = model_class(family, part)(config).eval()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("bias") or parameter.ndim < 2:
            parameter.data += 0.2 * torch.randn_like(parameter)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model


def feature_extractor(name: str) -> Any:
    """Gives the extractor that belongs to the family in transformers."""
    if name == "w2v-bert":
        return SeamlessM4TFeatureExtractor()
    if name == "whisper":
        return WhisperFeatureExtractor()
    is_normalized = not name.startswith("unispeech-sat-base")
    return Wav2Vec2FeatureExtractor(do_normalize=is_normalized, return_attention_mask=True)


def write_folder(upstream: Any, name: str, folder: Path) -> Path:
    """Writes a folder as transformers saves one."""
    upstream.save_pretrained(folder)
    feature_extractor(name).save_pretrained(folder)
    return folder


def upstream_input(name: str, waveform: np.ndarray) -> torch.Tensor:
    """Gives what the family's extractor makes of one utterance, nothing padded."""
    extractor = feature_extractor(name)
    options: dict[str, Any] = {"sampling_rate": 16000, "return_tensors": "pt"}
    if name == "whisper":
        # Upstream's padding: zeros; only so much that the last own frame sees no mirrored end.
        length = len(waveform) // 160 * 160 + 480
        batch = extractor(waveform, padding="max_length", max_length=length, **options)
        return batch["input_features"][..., : len(waveform) // 160]
    batch = extractor(waveform, **options)
    return batch["input_features" if name == "w2v-bert" else "input_values"]


def upstream_encoder(upstream: Any, name: str, num_frames: int) -> Any:
    """Gives the encoder alone; Whisper's takes so many frames and no others."""
    encoder = getattr(upstream, FAMILIES[name].prefix, upstream)
    if name == "whisper":
        encoder = copy.deepcopy(encoder)
        table = encoder.embed_positions
        table.num_embeddings = encoder.config.max_source_positions = num_frames
        table.weight = torch.nn.Parameter(table.weight[:num_frames].detach())
    return encoder
