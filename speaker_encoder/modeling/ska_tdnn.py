"""SKA-TDNN: an ECAPA-TDNN whose convolutions choose their kernel sizes, from scratch.

Source: Mun et al. 2022, "Frequency and Multi-Scale Selective Kernel Attention for Speaker
Verification"; the recipe ``train_SKA_mel`` of ESPnet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.backbone import Backbone, PretrainedParts, complete_encoder_config
from speaker_encoder.modeling.espnet_parts import ContextStatisticsPooling, MeanNormalizedLogMel
from speaker_encoder.modeling.masked import PaddedConv1d, PaddedConv2d
from speaker_encoder.modeling.ska_parts import FrontBlock, MultiScaleBlock
from speaker_encoder.modeling.torchaudio_mel import HOP_SAMPLES

DEFAULTS: dict[str, Any] = {
    "input_size": 80,
    "ska_dim": 128,
    "ndim": 1024,
    "model_scale": 8,
    "output_size": 1536,
    "embedding_dim": 192,
}
"""Arguments of ESPnet's encoder and projector, and their values in its recipe."""


class SkaTdnnBackbone(Backbone):
    """Log-mel -> 2-D blocks (fcwSKA) -> 1-D blocks (msSKA) -> attentive statistics -> linear.

    Args:
        encoder_config: ``input_size`` mels, ``ska_dim`` channels of the 2-D blocks, ``ndim`` of the
            1-D blocks, ``model_scale`` groups of channels in these, ``output_size`` before the
            pooling, ``embedding_dim``.

    Raises:
        UserError: an unknown argument, or values that do not fit each other.
    """

    encoder_kind: ClassVar[str] = "ska_tdnn"
    head_parts = ("pooling.", "bn5.", "fc6.", "bn6.")
    min_num_samples = 2 * HOP_SAMPLES
    """Three frames, of which the front makes two; a deviation needs two."""

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        super().__init__()
        self.encoder_config = complete_encoder_config(self.encoder_kind, encoder_config, DEFAULTS)
        num_mels, ska_dim, ndim, scale, output_size, self.embedding_dim = (
            self.encoder_config[name] for name in DEFAULTS
        )
        if num_mels % 4 or ndim % scale or scale < 2:
            raise UserError(
                "encoder_config of the ska_tdnn encoder: input_size must be a multiple of 4 and "
                f"ndim one of model_scale, which is at least 2; found {num_mels}, {ndim}, {scale}."
            )
        self.log_mel = MeanNormalizedLogMel(num_mels)
        self.frt_conv1 = PaddedConv2d(1, ska_dim, 3, stride=(2, 1), padding=1)
        self.frt_bn1 = nn.BatchNorm2d(ska_dim)
        self.frt_block1 = FrontBlock(ska_dim, num_mels // 2)
        self.frt_block2 = FrontBlock(ska_dim, num_mels // 2)
        self.frt_conv2 = PaddedConv2d(ska_dim, ska_dim, 3, stride=2, padding=1)
        self.frt_bn2 = nn.BatchNorm2d(ska_dim)
        self.conv1 = PaddedConv1d(ska_dim * num_mels // 4, ndim, 5, padding=2)
        self.bn1 = nn.BatchNorm1d(ndim)
        self.layer1, self.layer2, self.layer3 = (
            MultiScaleBlock(ndim, dilation, scale) for dilation in (2, 3, 4)
        )
        self.layer4 = nn.Conv1d(3 * ndim, output_size, 1)
        self.pooling = ContextStatisticsPooling(output_size)
        self.bn5 = nn.BatchNorm1d(2 * output_size)
        self.fc6 = nn.Linear(2 * output_size, self.embedding_dim)
        self.bn6 = nn.BatchNorm1d(self.embedding_dim)

    def forward(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Gives (B, D) raw embeddings.

        In training mode batch norm takes its statistics from all frames, also from those behind
        an utterance's end: train on crops of one length.
        """
        mel = self.log_mel(input_values, lengths).to(self.fc6.weight.dtype)[:, None]
        num_frames = self.log_mel.num_frames(lengths)
        image = self.frt_bn1(torch.relu(self.frt_conv1(mel, num_frames)))  # (B, C, F / 2, T')
        image = self.frt_block2(self.frt_block1(image, num_frames), num_frames)
        image = self.frt_bn2(torch.relu(self.frt_conv2(image, num_frames)))
        num_frames = self.frt_conv2.frames_after(num_frames)
        x = self.bn1(torch.relu(self.conv1(image.flatten(1, 2), num_frames)))  # (B, ndim, T' / 2)
        x1 = self.layer1(x, num_frames)
        x2 = self.layer2(x + x1, num_frames)
        x3 = self.layer3(x + x1 + x2, num_frames)
        x = torch.relu(self.layer4(torch.cat([x1, x2, x3], dim=1)))
        pooled = self.pooling(x, num_frames)
        embeddings: torch.Tensor = self.bn6(self.fc6(self.bn5(pooled)))
        return embeddings

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Says False: nobody publishes weights of it in a layout that is known here."""
        return False

    @classmethod
    def load_pretrained(cls, folder: Path) -> PretrainedParts:
        """Is never called, for ``recognises`` says False."""
        raise NotImplementedError
