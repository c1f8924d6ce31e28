"""Fast ResNet-34: a quarter of ResNet-34's channels, early strides, self-attentive pooling.

Source: Chung et al. 2020, "In defence of metric learning for speaker recognition";
``models/ResNetSE34L.py`` of voxceleb_trainer.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from speaker_encoder.modeling.masked import PaddedConv2d, softmax_over_time
from speaker_encoder.modeling.resnetse_parts import (
    Frames,
    SEBasicBlock,
    SEResNetBackbone,
    make_stages,
    pool_over_time,
)
from speaker_encoder.modeling.voxceleb_trainer import Weights, initialize


class FastResNet(nn.Module):
    """7 x 7 stem -> four stages -> mean over frequency -> attentive pooling -> linear.

    Args:
        encoder_config: ``encoder_type``, ``n_out``, ``num_filters`` and ``layers``.
    """

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        super().__init__()
        num_filters = encoder_config["num_filters"]
        self.encoder_type = encoder_config["encoder_type"]
        self.conv1 = PaddedConv2d(1, num_filters[0], 7, stride=(2, 1), padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(num_filters[0])
        self.layer1, self.layer2, self.layer3, self.layer4 = make_stages(
            lambda in_channels, channels, stride, _: SEBasicBlock(in_channels, channels, stride),
            SEBasicBlock.expansion,
            num_filters,
            encoder_config["layers"],
            (1, 2, 2, 1),
        )
        width = num_filters[3]
        self.sap_linear = nn.Linear(width, width)
        self.attention = nn.Parameter(nn.init.xavier_normal_(torch.empty(width, 1)))
        num_statistics = 2 if self.encoder_type == "ASP" else 1
        self.fc = nn.Linear(width * num_statistics, encoder_config["n_out"])
        initialize(self)

    def forward(self, mel: torch.Tensor, num_frames: Frames) -> torch.Tensor:
        """Gives (B, D) of (B, 1, F, T')."""
        x = torch.relu(self.bn1(self.conv1(mel, num_frames)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x, num_frames = stage(x, num_frames)
        x = x.mean(dim=2)  # (B, C, T')
        hidden = torch.tanh(self.sap_linear(x.transpose(1, 2)))
        weights = softmax_over_time((hidden @ self.attention).transpose(1, 2), num_frames)
        pooled: torch.Tensor = self.fc(pool_over_time(x, weights, self.encoder_type))
        return pooled


class ResNetSE34LBackbone(SEResNetBackbone):
    """Fast ResNet-34.

    Args:
        encoder_config: ``encoder_type`` SAP or ASP, ``n_out``, ``n_mels``, ``log_input``,
            ``num_filters`` and ``layers`` of the four stages.

    Raises:
        UserError: an unknown argument, or a value that does not fit.
    """

    encoder_kind: ClassVar[str] = "resnetse34l"
    defaults: ClassVar[dict[str, Any]] = {
        "encoder_type": "SAP",
        "n_out": 512,
        "n_mels": 40,
        "log_input": True,
        "num_filters": [16, 32, 64, 128],
        "layers": [3, 4, 6, 3],
    }

    def make_network(self) -> nn.Module:
        """Gives what stands behind the spectrogram."""
        return FastResNet(self.encoder_config)

    @classmethod
    def read_architecture(cls, weights: Weights) -> dict[str, Any]:
        """Gives what the shapes tell."""
        num_filters = [weights[f"layer{n}.0.conv1.weight"].shape[0] for n in range(1, 5)]
        has_deviations = weights["fc.weight"].shape[1] == 2 * num_filters[3]
        return {
            **super().read_architecture(weights),
            "num_filters": num_filters,
            "encoder_type": "ASP" if has_deviations else "SAP",
        }
