"""Tiny encoders with random weights that say they were trained."""

import torch

from speaker_encoder import SpeakerEncoder

TINY_ECAPA = {"channels": [16, 16, 16, 16, 48], "attention_channels": 8, "lin_neurons": 24}


def make_tiny(seed: int, **changes) -> SpeakerEncoder:
    torch.manual_seed(seed)
    encoder = SpeakerEncoder.from_name(
        "ecapa", pretrained=False, encoder_config={**TINY_ECAPA, **changes}
    )
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    encoder.config.untrained_head = False
    return encoder
