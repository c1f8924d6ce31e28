"""H/ASP: ResNet-34 with half its channels, attentive pooling over channels and frequencies.

Source: Kwon et al. 2021, "The ins and outs of speaker recognition: lessons from VoxSRC 2020";
``models/ResNetSE34V2.py`` of voxceleb_trainer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import nn

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.masked import PaddedConv2d
from speaker_encoder.modeling.resnetse_parts import (
    ChannelAttention,
    Frames,
    SEBasicBlock,
    SEResNetBackbone,
    make_stages,
    pool_over_time,
)
from speaker_encoder.modeling.voxceleb_trainer import Weights, initialize

FREQUENCY_STRIDE = 8
"""Bands that the stages make one of."""


class HalfResNet(nn.Module):
    """3 x 3 stem -> four stages -> attentive pooling of each channel and frequency -> linear.

    Args:
        encoder_config: ``encoder_type``, ``n_out``, ``n_mels``, ``num_filters`` and ``layers``.
        make_block: Takes input channels, channels, stride and whether it is a stage's first.
        expansion: Output channels of a block by its channels.
        attention_dim: Hidden channels of the attention.
    """

    def __init__(
        self,
        encoder_config: dict[str, Any],
        make_block: Callable[[int, int, int, bool], nn.Module],
        expansion: int,
        attention_dim: int = 128,
    ) -> None:
        super().__init__()
        num_filters = encoder_config["num_filters"]
        self.encoder_type = encoder_config["encoder_type"]
        self.conv1 = PaddedConv2d(1, num_filters[0], 3, padding=1)
        self.bn1 = nn.BatchNorm2d(num_filters[0])
        self.layer1, self.layer2, self.layer3, self.layer4 = make_stages(
            make_block, expansion, num_filters, encoder_config["layers"], (1, 2, 2, 2)
        )
        width = num_filters[3] * expansion * (encoder_config["n_mels"] // FREQUENCY_STRIDE)
        self.attention = ChannelAttention(width, attention_dim, width)
        num_statistics = 2 if self.encoder_type == "ASP" else 1
        self.fc = nn.Linear(width * num_statistics, encoder_config["n_out"])
        initialize(self)

    def forward(self, mel: torch.Tensor, num_frames: Frames) -> torch.Tensor:
        """Gives (B, D) of (B, 1, F, T')."""
        x = self.bn1(torch.relu(self.conv1(mel, num_frames)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x, num_frames = stage(x, num_frames)
        x = x.flatten(1, 2)  # (B, C F, T')
        weights = self.attention(x, num_frames)
        pooled: torch.Tensor = self.fc(pool_over_time(x, weights, self.encoder_type))
        return pooled


class ResNetSE34V2Backbone(SEResNetBackbone):
    """H/ASP.

    Args:
        encoder_config: ``encoder_type`` SAP or ASP, ``n_out``, ``n_mels``, ``log_input``,
            ``num_filters`` and ``layers`` of the four stages.

    Raises:
        UserError: an unknown argument, or a value that does not fit.
    """

    encoder_kind: ClassVar[str] = "resnetse34v2"
    has_pre_emphasis = True
    mel_name = "torchfb.1"
    defaults: ClassVar[dict[str, Any]] = {
        "encoder_type": "ASP",
        "n_out": 512,
        "n_mels": 64,
        "log_input": True,
        "num_filters": [32, 64, 128, 256],
        "layers": [3, 4, 6, 3],
    }

    def make_network(self) -> nn.Module:
        """Gives what stands behind the spectrogram."""
        check_num_mels(self.encoder_config, self.encoder_kind)
        return HalfResNet(
            self.encoder_config,
            lambda in_channels, channels, stride, _: SEBasicBlock(in_channels, channels, stride),
            SEBasicBlock.expansion,
        )

    @classmethod
    def read_architecture(cls, weights: Weights) -> dict[str, Any]:
        """Gives what the shapes tell."""
        num_filters = [weights[f"layer{n}.0.conv1.weight"].shape[0] for n in range(1, 5)]
        width = weights["attention.0.weight"].shape[1]
        return {
            **super().read_architecture(weights),
            "num_filters": num_filters,
            "n_mels": FREQUENCY_STRIDE * width // num_filters[3],
            "encoder_type": "ASP" if weights["fc.weight"].shape[1] == 2 * width else "SAP",
        }


def check_num_mels(encoder_config: dict[str, Any], encoder_kind: str) -> None:
    """Checks that the bands survive the strides.

    Raises:
        UserError: they do not.
    """
    num_mels = encoder_config["n_mels"]
    if num_mels < FREQUENCY_STRIDE or num_mels % FREQUENCY_STRIDE:
        raise UserError(
            f"encoder_config of the {encoder_kind} encoder: n_mels must be a multiple of "
            f"{FREQUENCY_STRIDE}, found {num_mels}."
        )
