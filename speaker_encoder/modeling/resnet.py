"""SpeechBrain's ResNet with squeeze and excitation, exact in a padded batch.

Source: ``speechbrain.lobes.models.ResNet``, the network of ``spkrec-resnet-voxceleb``; He et al.
2016, "Identity Mappings in Deep Residual Networks".
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch.nn.functional import softmax

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.backbone import complete_encoder_config
from speaker_encoder.modeling.mel import is_valid_frame
from speaker_encoder.modeling.speechbrain_parts import (
    FEATURE_DEFAULTS,
    SpeechBrainBackbone,
    speechbrain_log_mel,
)

NETWORK_DEFAULTS: dict[str, Any] = {
    "input_size": 80,
    "channels": [128, 128, 256, 256],
    "block_sizes": [3, 4, 6, 3],
    "strides": [1, 2, 2, 2],
    "lin_neurons": 256,
}
"""Arguments of SpeechBrain's ``ResNet``; the values of its ``spkrec-resnet-voxceleb``."""


class ResNetBackbone(SpeechBrainBackbone):
    """Log-mel as an image -> residual blocks -> attentive statistics -> linear -> batch norm.

    Args:
        encoder_config: Arguments of ``ResNet`` and ``Fbank``, with SpeechBrain's names.

    Raises:
        UserError: an unknown argument, or lists of other than four stages.
    """

    encoder_kind: ClassVar[str] = "resnet"
    head_parts = tuple(
        f"network.{name}." for name in ("attention", "norm_stats", "fc_embed", "norm_embed")
    )
    network_defaults: ClassVar[dict[str, Any]] = NETWORK_DEFAULTS

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        super().__init__()
        defaults = {**NETWORK_DEFAULTS, **FEATURE_DEFAULTS}
        self.encoder_config = complete_encoder_config(self.encoder_kind, encoder_config, defaults)
        for name in ("channels", "block_sizes", "strides"):
            if len(self.encoder_config[name]) != 4:
                raise UserError(
                    f"encoder_config of the resnet encoder: {name} must have 4 values, one of each "
                    f"stage, found {self.encoder_config[name]}."
                )
        self.embedding_dim = self.encoder_config["lin_neurons"]
        self.log_mel = speechbrain_log_mel(self.encoder_config["input_size"], self.encoder_config)
        self.network = _network(self.encoder_config)
        self.min_num_samples = self.encoder_config["n_fft"]

    def forward(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Gives (B, D) raw embeddings.

        In training mode batch norm takes its statistics from all frames, also from those behind
        an utterance's end: train on crops of one length.
        """
        if lengths is None:
            return self.network(self._as_input(self.log_mel(input_values, None)))
        num_frames = lengths // self.log_mel.power_mel.hop + 1
        return self._embed(self._as_input(self.log_mel(input_values, num_frames)), num_frames)

    def _embed(self, features: torch.Tensor, num_frames: torch.Tensor) -> torch.Tensor:
        """Upstream's forward with what lies behind each utterance's end kept at zero."""
        network = self.network
        image = features[:, None]  # (B, 1, T', F)
        image = network.activation1(network.bn1(network.conv1(image)))
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            for block in stage:
                image, num_frames = _block(block, image, num_frames)
        frames = image.transpose(2, 3).flatten(1, 2)  # (B, C F, T')
        behind = ~is_valid_frame(num_frames, frames.shape[2])[:, None]
        scores = network.attention[:-1](frames).masked_fill(behind, -torch.inf)
        weights = softmax(scores, dim=2)
        mean = (frames * weights).sum(dim=2)
        variance = (frames.square() * weights).sum(dim=2) - mean.square()
        pooled = torch.cat([mean, variance.clamp(min=1e-5).sqrt()], dim=1)
        return network.norm_embed(network.fc_embed(network.norm_stats(pooled)))


def _network(encoder_config: dict[str, Any]) -> Any:
    """Builds SpeechBrain's module."""
    from speechbrain.lobes.models.ResNet import ResNet

    from speaker_encoder.modeling.ecapa_parts import make_redirects_inert

    make_redirects_inert()
    return ResNet(**{name: encoder_config[name] for name in NETWORK_DEFAULTS})


def _block(
    block: Any, image: torch.Tensor, num_frames: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One residual block on (B, C, T', F); gives its image and the frames of each utterance.

    A convolution sees zeros behind the end of an utterance, as it does alone.
    """
    hidden = _zero_behind(block.activation(block.bn1(image)), num_frames)
    hidden = block.conv1(hidden)
    num_frames = (num_frames - 1) // block.stride + 1
    hidden = _zero_behind(block.activation(block.bn2(hidden)), num_frames)
    hidden = block.conv3(block.activation(block.bn3(block.conv2(hidden))))
    if hasattr(block, "se"):
        count = num_frames[:, None] * hidden.shape[3]
        mean = _zero_behind(hidden, num_frames).sum(dim=(2, 3)) / count.to(hidden.dtype)
        hidden = hidden * block.se.fc(mean)[..., None, None]
    residual = image if block.downsample is None else block.downsample(image)
    return hidden + residual, num_frames


def _zero_behind(image: torch.Tensor, num_frames: torch.Tensor) -> torch.Tensor:
    """Gives (B, C, T', F) with zeros behind each utterance's last frame."""
    valid = is_valid_frame(num_frames, image.shape[2])
    return image.masked_fill(~valid[:, None, :, None], 0.0)
