"""Res2Net in H/ASP's frame: blocks whose parts of the channels see ever wider surroundings.

Nobody can have run upstream's: its pooling takes the blocks' output for a quarter as wide as it is,
and its ASP doubles the squares instead of weighting them. Here both are as they are meant.

Source: Gao et al. 2019, "Res2Net: a new multi-scale backbone architecture";
``models/Res2NetSE50.py`` and ``models/Res2NetBlocks.py`` in the history of voxceleb_trainer.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.masked import PaddedConv2d, clear_padding
from speaker_encoder.modeling.resnetse34v2 import FREQUENCY_STRIDE, HalfResNet, check_num_mels
from speaker_encoder.modeling.resnetse_parts import (
    Frames,
    SEResNetBackbone,
    SqueezeExcitation,
    shortcut,
)
from speaker_encoder.modeling.voxceleb_trainer import Weights


class SEBottle2neck(nn.Module):
    """1 x 1 -> 3 x 3 convolutions in ``scale`` parts, each fed with the one before -> 1 x 1.

    In the first block of a stage no part is fed with another, and the last is averaged.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        *,
        is_first: bool,
        base_width: int,
        scale: int,
    ) -> None:
        super().__init__()
        self.width = channels * base_width // 64
        self.is_first = is_first
        self.stride = stride
        self.conv1 = nn.Conv2d(in_channels, self.width * scale, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(self.width * scale)
        self.convs = nn.ModuleList(
            PaddedConv2d(self.width, self.width, 3, stride, padding=1, bias=False)
            for _ in range(scale - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm2d(self.width) for _ in range(scale - 1))
        out_channels = channels * self.expansion
        self.conv3 = nn.Conv2d(self.width * scale, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.se = SqueezeExcitation(out_channels)
        self.downsample = shortcut(in_channels, out_channels, stride)

    def forward(self, x: torch.Tensor, num_frames: Frames) -> tuple[torch.Tensor, Frames]:
        """Gives the block's output and its frames."""
        *parts, last = torch.relu(self.bn1(self.conv1(x))).split(self.width, dim=1)
        num_after = num_frames
        outputs: list[torch.Tensor] = []
        convolution: Any
        for part, convolution, norm in zip(parts, self.convs, self.bns, strict=True):
            is_fed = bool(outputs) and not self.is_first
            part = part + outputs[-1] if is_fed else part
            outputs.append(torch.relu(norm(convolution(part, num_frames))))
            num_after = convolution.frames_after(num_frames)
        if self.is_first:
            last = avg_pool2d(clear_padding(last, num_frames), 3, self.stride, padding=1)
        out = self.bn3(self.conv3(torch.cat([*outputs, last], dim=1)))
        residual = x if self.downsample is None else self.downsample(x)
        return torch.relu(self.se(out, num_after) + residual), num_after


class Res2NetSE34Backbone(SEResNetBackbone):
    """Res2Net with squeeze-and-excitation.

    Args:
        encoder_config: ``encoder_type`` SAP or ASP, ``n_out``, ``n_mels``, ``log_input``,
            ``num_filters`` and ``layers`` of the four stages, ``base_width`` and ``scale`` of the
            blocks, ``attention_dim``.

    Raises:
        UserError: an unknown argument, or a value that does not fit.
    """

    encoder_kind: ClassVar[str] = "res2netse34"
    has_pre_emphasis = True
    mel_name = "torchfb.1"
    defaults: ClassVar[dict[str, Any]] = {
        "encoder_type": "SAP",
        "n_out": 512,
        "n_mels": 40,
        "log_input": True,
        "num_filters": [32, 64, 128, 256],
        "layers": [3, 4, 6, 3],
        "base_width": 26,
        "scale": 4,
        "attention_dim": 128,
    }

    def make_network(self) -> nn.Module:
        """Gives what stands behind the spectrogram."""
        config = self.encoder_config
        check_num_mels(config, self.encoder_kind)
        base_width, scale = config["base_width"], config["scale"]
        if scale < 2 or min(config["num_filters"]) * base_width < 64:
            raise UserError(
                f"encoder_config of the {self.encoder_kind} encoder: scale must be at least 2 and "
                f"num_filters * base_width at least 64, found {scale} and "
                f"{config['num_filters']} * {base_width}."
            )
        return HalfResNet(
            config,
            lambda in_channels, channels, stride, is_first: SEBottle2neck(
                in_channels, channels, stride, is_first=is_first, base_width=base_width, scale=scale
            ),
            SEBottle2neck.expansion,
            config["attention_dim"],
        )

    @classmethod
    def read_architecture(cls, weights: Weights) -> dict[str, Any]:
        """Gives what the shapes tell."""
        expansion = SEBottle2neck.expansion
        filters = [weights[f"layer{n}.0.conv3.weight"].shape[0] // expansion for n in range(1, 5)]
        hidden, width = weights["attention.0.weight"].shape[:2]
        parts = weights["layer4.0.convs.0.weight"].shape[0]
        return {
            **super().read_architecture(weights),
            "num_filters": filters,
            "n_mels": FREQUENCY_STRIDE * width // (filters[3] * expansion),
            "encoder_type": "ASP" if weights["fc.weight"].shape[1] == 2 * width else "SAP",
            "scale": weights["layer4.0.conv1.weight"].shape[0] // parts,
            # The least that gives these parts: they are rounded down.
            "base_width": -(-64 * parts // filters[3]),
            "attention_dim": hidden,
        }
