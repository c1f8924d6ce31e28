"""VGG-M-40: the convolutional network of VoxCeleb over 40 mel bands.

Source: Chung et al. 2020, "In defence of metric learning for speaker recognition";
``models/VGGVox.py`` of voxceleb_trainer.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from speaker_encoder.modeling.masked import (
    PaddedConv2d,
    frames_after,
    maximum_over_time,
    mean_over_time,
    softmax_over_time,
    weighted_mean,
)
from speaker_encoder.modeling.resnetse_parts import Frames, rename_mel
from speaker_encoder.modeling.torchaudio_mel import HOP_SAMPLES, WINDOW_SAMPLES, NormalizedMel
from speaker_encoder.modeling.voxceleb_trainer import TrainerBackbone, Weights, check_choice

NUM_MELS = 40
WIDTH = 512


class Convolutions(nn.Sequential):
    """Convolutions, norms and poolings over (B, 1, 40, T'), of which one frequency is left."""

    def __init__(self) -> None:
        super().__init__(
            *_block(1, 96, (5, 7), stride=(1, 2), padding=(2, 2)),
            nn.MaxPool2d((1, 3), stride=(1, 2)),
            *_block(96, 256, (5, 5), stride=(2, 2), padding=(1, 1)),
            nn.MaxPool2d((3, 3), stride=(2, 2)),
            *_block(256, 384, (3, 3), padding=(1, 1)),
            *_block(384, 256, (3, 3), padding=(1, 1)),
            *_block(256, 256, (3, 3), padding=(1, 1)),
            nn.MaxPool2d((3, 3), stride=(2, 2)),
            *_block(256, WIDTH, (4, 1)),
        )

    def forward(self, x: torch.Tensor, num_frames: Frames) -> tuple[torch.Tensor, Frames]:  # type: ignore[override]
        """Gives (B, 512, T'') and its frames."""
        for layer in self:
            x = layer(x, num_frames) if isinstance(layer, PaddedConv2d) else layer(x)
            num_frames = _frames_behind(layer, num_frames)
        return x.squeeze(2), num_frames

    def fewest_frames(self) -> int:
        """Gives the frames of the shortest input of which a frame is left."""
        num_frames = 1
        while _frames_behind_all(self, num_frames) < 1:
            num_frames += 1
        return num_frames


def _block(
    in_channels: int, channels: int, kernel: tuple[int, int], **options: Any
) -> list[nn.Module]:
    convolution = PaddedConv2d(in_channels, channels, kernel, **options)
    return [convolution, nn.BatchNorm2d(channels), nn.ReLU()]


def _frames_behind(layer: Any, num_frames: Any) -> Any:
    if isinstance(layer, PaddedConv2d):
        return layer.frames_after(num_frames)
    if isinstance(layer, nn.MaxPool2d):
        kernel: Any = layer.kernel_size
        stride: Any = layer.stride
        return frames_after(num_frames, kernel[1], stride[1])
    return num_frames


def _frames_behind_all(layers: nn.Sequential, num_frames: int) -> int:
    for layer in layers:
        num_frames = _frames_behind(layer, num_frames)
    return num_frames


class VggVox(nn.Module):
    """Convolutions -> pooling over time -> linear.

    Args:
        encoder_config: ``encoder_type`` and ``n_out``.
    """

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        super().__init__()
        self.encoder_type = encoder_config["encoder_type"]
        self.netcnn = Convolutions()
        if self.encoder_type == "SAP":
            self.sap_linear = nn.Linear(WIDTH, WIDTH)
            self.attention = nn.Parameter(nn.init.xavier_normal_(torch.empty(WIDTH, 1)))
        self.fc = nn.Linear(WIDTH, encoder_config["n_out"])

    def forward(self, mel: torch.Tensor, num_frames: Frames) -> torch.Tensor:
        """Gives (B, D) of (B, 1, 40, T')."""
        x, num_frames = self.netcnn(mel, num_frames)
        embeddings: torch.Tensor = self.fc(self._pool(x, num_frames))
        return embeddings

    def _pool(self, x: torch.Tensor, num_frames: Frames) -> torch.Tensor:
        if self.encoder_type == "MAX":
            return maximum_over_time(x, num_frames)
        if self.encoder_type == "TAP":
            return mean_over_time(x, num_frames)[..., 0]
        hidden = torch.tanh(self.sap_linear(x.transpose(1, 2)))
        weights = softmax_over_time((hidden @ self.attention).transpose(1, 2), num_frames)
        return weighted_mean(x, weights)


class VggVox40Backbone(TrainerBackbone):
    """VGG-M-40.

    Args:
        encoder_config: ``encoder_type`` SAP, TAP or MAX, ``n_out``, ``log_input``.

    Raises:
        UserError: an unknown argument, or a value that does not fit.
    """

    encoder_kind: ClassVar[str] = "vggvox40"
    defaults: ClassVar[dict[str, Any]] = {"encoder_type": "SAP", "n_out": 512, "log_input": True}

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        super().__init__(encoder_config)
        check_choice(self.encoder_config, self.encoder_kind, "SAP", "TAP", "MAX")
        self.mel = NormalizedMel(
            NUM_MELS,
            torch.hann_window(WINDOW_SAMPLES),
            has_pre_emphasis=False,
            log_input=self.encoder_config["log_input"],
        )
        self.network = VggVox(self.encoder_config)
        self.min_num_samples = (self.network.netcnn.fewest_frames() - 1) * HOP_SAMPLES

    def forward(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Gives (B, D) raw embeddings; train on crops of one length, for batch norm's sake."""
        mel = self.mel(input_values, lengths)[:, None]  # (B, 1, 40, T')
        mel = mel.to(next(self.network.parameters()).dtype)
        embeddings: torch.Tensor = self.network(mel, self.mel.num_frames(lengths))
        return embeddings

    @classmethod
    def read_architecture(cls, weights: Weights) -> dict[str, Any]:
        """Gives what the shapes tell; TAP and MAX have the same weights."""
        return {
            "n_out": weights["fc.weight"].shape[0],
            "encoder_type": "SAP" if "sap_linear.weight" in weights else None,
        }

    @classmethod
    def own_names(cls, weights: Weights) -> Weights:
        """Gives the weights with the names of this class's ``state_dict()``."""
        return rename_mel(weights, "torchfb")
