"""Encoders in every variant of a family: small ones with random weights, and the real d-vector."""

from typing import Any

import numpy as np
import torch
from tiny_wavlm import TINY_WAVLM

from speaker_encoder import SpeakerEncoder

_ECAPA = {"channels": [32, 32, 32, 32, 96], "attention_channels": 16, "se_channels": 16}
_LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ecapa": ("ecapa", {**_ECAPA, "lin_neurons": 24}),
    "ecapa-local": ("ecapa", {**_ECAPA, "global_context": False, "n_fft": 512}),
    "wavlm-base": ("wavlm-base-plus", TINY_WAVLM),
    "wavlm-base-sv": ("wavlm-base-plus", {**TINY_WAVLM, "use_weighted_layer_sum": True}),
    "wavlm-large": ("wavlm-large", {**TINY_WAVLM, **_LARGE, "num_conv_pos_embeddings": 19}),
    "dvector": ("dvector", {}),
}


def make_variant(variant: str) -> SpeakerEncoder:
    """Gives an encoder no parameter of which is at a value that hides errors."""
    name, encoder_config = VARIANTS[variant]
    if not encoder_config:
        return SpeakerEncoder.from_pretrained(name)
    torch.manual_seed(11)
    encoder = SpeakerEncoder.from_name(name, pretrained=False, encoder_config=encoder_config)
    for name, parameter in encoder.named_parameters():
        if name.endswith("bias") or parameter.ndim < 2 or "gru_rel_pos_const" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    encoder.config.untrained_head = False
    return encoder


def make_noise(num_samples: int, seed: int = 0) -> np.ndarray:
    """Gives (num_samples,) float32 coloured noise, its own level and offset."""
    generator = np.random.default_rng((seed, num_samples))
    noise = generator.standard_normal(num_samples + 4)
    coloured = np.convolve(noise, [1.0, 0.9, 0.5, 0.2, 0.1], mode="valid")
    level = generator.uniform(0.01, 0.2) * (0.1 + np.abs(np.sin(np.arange(num_samples) / 2500)))
    return (level * coloured + generator.uniform(-0.05, 0.05)).astype(np.float32)
