"""Tiny WavLMs of transformers' own classes, with the real layout of kernels and strides."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_wavlm import TINY_WAVLM
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

from speaker_encoder.modeling.wavlm import WavLMBackbone

TINY: dict[str, Any] = {
    **TINY_WAVLM,
    "num_hidden_layers": 3,
    "tdnn_dim": [32, 32, 32, 32, 48],
}
GROUP = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
VARIANTS = {
    "base": GROUP,
    "base-sv": {**GROUP, "use_weighted_layer_sum": True},
    "large": LAYER,
    "large-sv": {**LAYER, "use_weighted_layer_sum": True},
    "group-stable": {**GROUP, "do_stable_layer_norm": True},
    "layer-unstable": {**LAYER, "do_stable_layer_norm": False, "num_conv_pos_embeddings": 19},
}
NO_DROPOUT = {
    "hidden_dropout": 0.0,
    "activation_dropout": 0.0,
    "attention_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.0,
    "apply_spec_augment": False,
}


def make_upstream(variant: str, **changes: Any) -> WavLMForXVector:
    """Gives transformers' model in eval mode, no parameter at a value that hides errors."""
    torch.manual_seed(5)
    model = WavLMForXVector(WavLMConfig(**{**TINY, **VARIANTS[variant], **changes})).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or parameter.ndim < 2 or "gru_rel_pos_const" in name:
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def make_backbone(upstream: WavLMForXVector) -> WavLMBackbone:
    """Gives our backbone with the same weights, in eval mode."""
    keys = (*TINY, *VARIANTS["large-sv"], *NO_DROPOUT, "mask_time_prob", "mask_feature_prob")
    config = upstream.config.to_dict()
    backbone = WavLMBackbone(
        {key: config[key] for key in (*keys, "num_conv_pos_embeddings") if key in config}
    )
    own = backbone.state_dict()
    weights = upstream.state_dict()
    assert set(weights) - set(own) == {"classifier.weight", "classifier.bias", "objective.weight"}
    backbone.load_state_dict({name: weights[name] for name in own})
    return backbone.eval()


def make_waveform(num_samples: int, seed: int = 0) -> np.ndarray:
    """Gives (num_samples,) float32 coloured noise; level and offset differ from one to another."""
    generator = np.random.default_rng((seed, num_samples))
    noise = generator.standard_normal(num_samples + 4)
    coloured = np.convolve(noise, [1.0, 0.9, 0.5, 0.2, 0.1], mode="valid")
    level = generator.uniform(0.01, 0.2) * (0.1 + np.abs(np.sin(np.arange(num_samples) / 2500)))
    return (level * coloured + generator.uniform(-0.05, 0.05)).astype(np.float32)


def pad_batch(waveforms: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Gives (B, T) waveforms, zero behind each end, and (B,) lengths."""
    rows = [torch.from_numpy(waveform) for waveform in waveforms]
    lengths = torch.tensor([len(row) for row in rows])
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths


def write_folder(upstream: torch.nn.Module, folder: Path, do_normalize: bool = False) -> Path:
    """Writes config.json, preprocessor_config.json and pytorch_model.bin, as the Hub has them."""
    upstream.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    weights = {}
    for name, tensor in upstream.state_dict().items():
        name = name.replace("parametrizations.weight.original0", "weight_g")
        weights[name.replace("parametrizations.weight.original1", "weight_v")] = tensor
    torch.save(weights, folder / "pytorch_model.bin")
    Wav2Vec2FeatureExtractor(do_normalize=do_normalize, return_attention_mask=True).save_pretrained(
        folder
    )
    return folder
