"""What the residual networks with squeeze-and-excitation share; names as in voxceleb_trainer.

Everywhere ``x`` is (B, C, F, T') and ``num_frames`` (B,) or None, as in ``masked``; what changes
the number of frames gives it back beside the result.

Source: He et al. 2016, "Deep residual learning for image recognition"; Hu et al. 2018,
"Squeeze-and-excitation networks"; ``models/ResNetBlocks.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.masked import (
    PaddedConv2d,
    mean_over_time,
    softmax_over_time,
    weighted_mean,
    weighted_statistics,
)
from speaker_encoder.modeling.torchaudio_mel import (
    MIN_NUM_SAMPLES,
    WINDOW_SAMPLES,
    NormalizedMel,
)
from speaker_encoder.modeling.voxceleb_trainer import TrainerBackbone, Weights, check_choice

Frames = torch.Tensor | None
MIN_VARIANCE = 1e-5
REDUCTION = 8


class SqueezeExcitation(nn.Module):
    """Scales each channel by what the means of all channels say."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // REDUCTION),
            nn.ReLU(),
            nn.Linear(channels // REDUCTION, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor, num_frames: Frames) -> torch.Tensor:
        """Gives ``x`` scaled."""
        mean = mean_over_time(x.mean(dim=2), num_frames)[..., 0]  # (B, C)
        scale: torch.Tensor = self.fc(mean)[..., None, None]
        return x * scale


def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """Gives what brings a block's input to the shape of its output, None where it has it."""
    if stride == 1 and in_channels == out_channels:
        return None
    convolution = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))


class SEBasicBlock(nn.Module):
    """Two 3 x 3 convolutions, squeeze-and-excitation, and the input added."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = PaddedConv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = PaddedConv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.se = SqueezeExcitation(channels)
        self.downsample = shortcut(in_channels, channels, stride)

    def forward(self, x: torch.Tensor, num_frames: Frames) -> tuple[torch.Tensor, Frames]:
        """Gives the block's output and its frames."""
        num_after = self.conv1.frames_after(num_frames)
        out = self.bn1(torch.relu(self.conv1(x, num_frames)))
        out = self.se(self.bn2(self.conv2(out, num_after)), num_after)
        residual = x if self.downsample is None else self.downsample(x)
        return torch.relu(out + residual), num_after


class Stage(nn.Sequential):
    """Blocks one behind the other."""

    def forward(self, x: torch.Tensor, num_frames: Frames) -> tuple[torch.Tensor, Frames]:  # type: ignore[override]
        """Gives the last block's output and its frames."""
        for block in self:
            x, num_frames = block(x, num_frames)
        return x, num_frames


def make_stages(
    make_block: Callable[[int, int, int, bool], nn.Module],
    expansion: int,
    num_filters: Sequence[int],
    layers: Sequence[int],
    strides: Sequence[int],
) -> list[Stage]:
    """Gives the four stages.

    Args:
        make_block: Takes input channels, channels, stride and whether it is a stage's first.
        expansion: Output channels of a block by its channels.
        num_filters: Channels of each stage.
        layers: Blocks of each stage.
        strides: Of each stage's first block.
    """
    stages, in_channels = [], num_filters[0]
    for channels, num_blocks, stride in zip(num_filters, layers, strides, strict=True):
        blocks = []
        for position in range(num_blocks):
            is_first = position == 0
            blocks.append(make_block(in_channels, channels, stride if is_first else 1, is_first))
            in_channels = channels * expansion
        stages.append(Stage(*blocks))
    return stages


class ChannelAttention(nn.Sequential):
    """Weights over time for each channel of (B, C, T'), from a small network."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv1d(in_channels, hidden, 1),
            nn.ReLU(),
            nn.BatchNorm1d(hidden),
            nn.Conv1d(hidden, out_channels, 1),
        )

    def forward(self, x: torch.Tensor, num_frames: Frames) -> torch.Tensor:  # type: ignore[override]
        """Gives (B, C', T') weights that sum to 1 over the own frames."""
        return softmax_over_time(super().forward(x), num_frames)


def pool_over_time(x: torch.Tensor, weights: torch.Tensor, encoder_type: str) -> torch.Tensor:
    """Gives (B, C) weighted means of (B, C, T'), with ASP (B, 2 C), the deviations behind them."""
    if encoder_type == "SAP":
        return weighted_mean(x, weights)
    return weighted_statistics(x, weights, MIN_VARIANCE)


class SEResNetBackbone(TrainerBackbone):
    """Normalised mel spectrogram -> residual network -> attentive pooling -> linear."""

    has_pre_emphasis = False
    mel_name = "torchfb"
    min_num_samples = MIN_NUM_SAMPLES

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        super().__init__(encoder_config)
        check_choice(self.encoder_config, self.encoder_kind, "SAP", "ASP")
        self._check_sizes()
        self.mel = NormalizedMel(
            self.encoder_config["n_mels"],
            torch.hamming_window(WINDOW_SAMPLES),
            has_pre_emphasis=self.has_pre_emphasis,
            log_input=self.encoder_config["log_input"],
        )
        self.network = self.make_network()

    def make_network(self) -> nn.Module:
        """Gives what stands behind the spectrogram."""
        raise NotImplementedError

    def forward(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Gives (B, D) raw embeddings.

        In training mode batch norm takes its statistics from all frames, also from those behind an
        utterance's end: train on crops of one length.
        """
        mel = self.mel(input_values, lengths)[:, None]  # (B, 1, F, T')
        mel = mel.to(next(self.network.parameters()).dtype)
        embeddings: torch.Tensor = self.network(mel, self.mel.num_frames(lengths))
        return embeddings

    def _check_sizes(self) -> None:
        num_filters, layers = self.encoder_config["num_filters"], self.encoder_config["layers"]
        lists = (num_filters, layers)
        if any(
            len(sizes) != 4 or not all(type(n) is int and n > 0 for n in sizes) for sizes in lists
        ):
            raise UserError(
                f"encoder_config of the {self.encoder_kind} encoder: num_filters and layers must "
                f"be 4 numbers each, one a stage, found {num_filters} and {layers}."
            )
        if min(num_filters) < REDUCTION:
            raise UserError(
                f"encoder_config of the {self.encoder_kind} encoder: num_filters must be at least "
                f"{REDUCTION} each, found {num_filters}."
            )

    @classmethod
    def read_architecture(cls, weights: Weights) -> dict[str, Any]:
        """Gives what the shapes tell of stages, bands and output."""
        blocks = [
            {name.split(".")[1] for name in weights if name.startswith(f"layer{stage}.")}
            for stage in range(1, 5)
        ]
        architecture = {
            "n_out": weights["fc.weight"].shape[0],
            "layers": [len(names) for names in blocks],
        }
        filters = weights.get(f"{cls.mel_name}.mel_scale.fb")
        if filters is not None:
            architecture["n_mels"] = filters.shape[1]
        return architecture

    @classmethod
    def own_names(cls, weights: Weights) -> Weights:
        """Gives the weights with the names of this class's ``state_dict()``."""
        return rename_mel(weights, cls.mel_name)


def rename_mel(weights: Weights, mel_name: str) -> Weights:
    """Puts torchaudio's window and filters where ``NormalizedMel`` has them."""
    renamed = {
        f"{mel_name}.spectrogram.window": "mel.power.window",
        f"{mel_name}.mel_scale.fb": "mel.filters",
    }
    return {
        renamed.get(name, f"network.{name}"): tensor
        for name, tensor in weights.items()
        if name in renamed or not name.startswith("torchfb.")
    }
