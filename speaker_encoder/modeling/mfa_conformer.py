"""MFA-Conformer: conformer blocks whose outputs are all pooled together, from scratch.

Source: Zhang et al. 2022, "MFA-Conformer: Multi-scale Feature Aggregation Conformer for Automatic
Speaker Verification"; log-mel, pooling and projection as in the recipe of ESPnet.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.backbone import Backbone, PretrainedParts, complete_encoder_config
from speaker_encoder.modeling.conformer import ConformerBlock, relative_positions
from speaker_encoder.modeling.espnet_parts import ContextStatisticsPooling, MeanNormalizedLogMel
from speaker_encoder.modeling.masked import frames_after
from speaker_encoder.modeling.mel import is_valid_frame
from speaker_encoder.modeling.torchaudio_mel import HOP_SAMPLES

DEFAULTS: dict[str, Any] = {
    "input_size": 80,
    "output_size": 256,
    "attention_heads": 4,
    "linear_units": 2048,
    "num_blocks": 6,
    "cnn_module_kernel": 15,
    "dropout_rate": 0.1,
    "positional_dropout_rate": 0.1,
    "attention_dropout_rate": 0.0,
    "embedding_dim": 192,
}
"""Arguments with ESPnet's names, and the values of the paper's encoder."""

SUBSAMPLING_KERNEL, SUBSAMPLING_STRIDE = 3, 2


class MfaConformerBackbone(Backbone):
    """Log-mel -> half the frames -> conformer blocks -> all of them side by side -> pooling.

    Args:
        encoder_config: ``input_size`` mels, ``output_size`` features of a frame, ``num_blocks``
            blocks with ``attention_heads``, ``linear_units`` and ``cnn_module_kernel``, three
            dropout rates, ``embedding_dim``.

    Raises:
        UserError: an unknown argument, or values that do not fit each other.
    """

    encoder_kind: ClassVar[str] = "mfa_conformer"
    head_parts = ("pooling.", "batch_norm.", "linear_out.")
    min_num_samples = 4 * HOP_SAMPLES
    """Five frames, of which the subsampling makes two; a deviation needs two."""

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        super().__init__()
        config = complete_encoder_config(self.encoder_kind, encoder_config, DEFAULTS)
        _check_architecture(config)
        self.encoder_config = config
        self.embedding_dim = config["embedding_dim"]
        self.size: int = config["output_size"]
        self.log_mel = MeanNormalizedLogMel(config["input_size"])
        self.subsampling = nn.Conv2d(1, self.size, SUBSAMPLING_KERNEL, SUBSAMPLING_STRIDE)
        num_bands = frames_after(config["input_size"], SUBSAMPLING_KERNEL, SUBSAMPLING_STRIDE)
        self.linear_in = nn.Linear(self.size * num_bands, self.size)
        self.dropout = nn.Dropout(config["positional_dropout_rate"])
        self.blocks = nn.ModuleList(
            ConformerBlock(
                self.size,
                config["attention_heads"],
                config["linear_units"],
                config["cnn_module_kernel"],
                config["dropout_rate"],
                config["attention_dropout_rate"],
            )
            for _ in range(config["num_blocks"])
        )
        self.layer_norm = nn.LayerNorm(self.size * config["num_blocks"])
        self.pooling = ContextStatisticsPooling(self.size * config["num_blocks"])
        self.batch_norm = nn.BatchNorm1d(2 * self.size * config["num_blocks"])
        self.linear_out = nn.Linear(2 * self.size * config["num_blocks"], self.embedding_dim)

    def forward(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Gives (B, D) raw embeddings.

        In training mode batch norm takes its statistics from all frames, also from those behind
        an utterance's end: train on crops of one length.
        """
        mel = self.log_mel(input_values, lengths).to(self.linear_out.weight.dtype)
        image = torch.relu(self.subsampling(mel.transpose(1, 2)[:, None]))  # (B, C, T', F')
        num_frames = frames_after(
            self.log_mel.num_frames(lengths), SUBSAMPLING_KERNEL, SUBSAMPLING_STRIDE
        )
        x = self.linear_in(image.transpose(1, 2).flatten(2)) * math.sqrt(self.size)
        x = self.dropout(x)  # (B, T', C)
        positions = self.dropout(relative_positions(x.shape[1], self.size, x.device))
        is_own = None if num_frames is None else is_valid_frame(num_frames, x.shape[1])
        outputs = []
        for block in self.blocks:
            x = block(x, positions, num_frames, is_own)
            outputs.append(x)
        frames = self.layer_norm(torch.cat(outputs, dim=2)).transpose(1, 2)
        pooled = self.batch_norm(self.pooling(frames, num_frames))
        embeddings: torch.Tensor = self.linear_out(pooled)
        return embeddings

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Says False: nobody publishes weights of it in a layout that is known here."""
        return False

    @classmethod
    def load_pretrained(cls, folder: Path) -> PretrainedParts:
        """Is never called, for ``recognises`` says False."""
        raise NotImplementedError


def _check_architecture(encoder_config: dict[str, Any]) -> None:
    """Checks that the sizes fit each other.

    Raises:
        UserError: they do not.
    """
    size, num_heads = encoder_config["output_size"], encoder_config["attention_heads"]
    if size % 2 or num_heads < 1 or size % num_heads:
        raise UserError(
            "encoder_config of the mfa_conformer encoder: output_size must be even and a multiple "
            f"of attention_heads, found {size} and {num_heads}."
        )
    if encoder_config["cnn_module_kernel"] % 2 == 0:
        raise UserError(
            "encoder_config of the mfa_conformer encoder: cnn_module_kernel must be odd, found "
            f"{encoder_config['cnn_module_kernel']}."
        )
