"""The x-vector: SpeechBrain's own network behind our own log-mel, exact in a padded batch.

Source: Snyder et al. 2018, "X-Vectors: Robust DNN Embeddings for Speaker Recognition";
``speechbrain.lobes.models.Xvector``.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.functional import pad

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.backbone import complete_encoder_config
from speaker_encoder.modeling.mel import is_valid_frame
from speaker_encoder.modeling.speechbrain_parts import (
    FEATURE_DEFAULTS,
    SpeechBrainBackbone,
    mirror_own_ends,
    most_mirrored,
    own_ends,
    speechbrain_log_mel,
)

NETWORK_DEFAULTS: dict[str, Any] = {
    "in_channels": 24,
    "tdnn_blocks": 5,
    "tdnn_channels": [512, 512, 512, 512, 1500],
    "tdnn_kernel_sizes": [5, 3, 3, 1, 1],
    "tdnn_dilations": [1, 2, 3, 1, 1],
    "lin_neurons": 512,
}
"""Arguments of SpeechBrain's ``Xvector``; the values of its ``spkrec-xvect-voxceleb``."""


class XVectorBackbone(SpeechBrainBackbone):
    """Log-mel -> dilated convolutions -> mean and deviation over time -> linear.

    Args:
        encoder_config: Arguments of ``Xvector`` and ``Fbank``, with SpeechBrain's names.

    Raises:
        UserError: an unknown argument, or values that do not fit each other.
    """

    encoder_kind: ClassVar[str] = "xvector"
    network_defaults: ClassVar[dict[str, Any]] = NETWORK_DEFAULTS

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        super().__init__()
        defaults = {**NETWORK_DEFAULTS, **FEATURE_DEFAULTS}
        self.encoder_config = complete_encoder_config(self.encoder_kind, encoder_config, defaults)
        _check_architecture(self.encoder_config)
        self.embedding_dim = self.encoder_config["lin_neurons"]
        self.log_mel = speechbrain_log_mel(self.encoder_config["in_channels"], self.encoder_config)
        self.network = _network(self.encoder_config)
        self.head_parts = (f"network.blocks.{len(self.network.blocks) - 1}.",)
        self.max_padding = most_mirrored(
            self.encoder_config["tdnn_kernel_sizes"], self.encoder_config["tdnn_dilations"]
        )
        # A mirrored end needs one frame more than it mirrors, a deviation needs two frames.
        hop = self.log_mel.power_mel.hop
        self.min_num_samples = max(self.max_padding * hop, hop, self.encoder_config["n_fft"])

    def forward(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Gives (B, D) raw embeddings.

        In training mode batch norm takes its statistics from all frames, also from those behind
        an utterance's end: train on crops of one length.
        """
        *layers, pooling, linear = self.network.blocks
        if lengths is None:
            frames = self._as_input(self.log_mel(input_values, None))
            for layer in layers:
                frames = layer(frames)
            return linear(_statistics(frames, None, pooling.eps))
        num_frames = lengths // self.log_mel.power_mel.hop + 1
        features = self.log_mel(input_values, num_frames)
        # Room for the mirrored end of the longest utterance too.
        frames = self._as_input(pad(features, (0, 0, 0, self.max_padding)))
        with own_ends(num_frames):
            for layer in layers:
                frames = layer(frames)
        return linear(_statistics(frames, num_frames, pooling.eps))


def _check_architecture(encoder_config: dict[str, Any]) -> None:
    """Checks that the lists fit each other.

    Raises:
        UserError: they do not.
    """
    wanted = encoder_config["tdnn_blocks"]
    for name in ("tdnn_channels", "tdnn_kernel_sizes", "tdnn_dilations"):
        if len(encoder_config[name]) != wanted or wanted < 1:
            raise UserError(
                f"encoder_config of the xvector encoder: {name} must have as many values as "
                f"tdnn_blocks says ({wanted}), found {encoder_config[name]}."
            )
    if any(size % 2 == 0 for size in encoder_config["tdnn_kernel_sizes"]):
        raise UserError(
            "encoder_config of the xvector encoder: tdnn_kernel_sizes must be odd, found "
            f"{encoder_config['tdnn_kernel_sizes']}."
        )


def _network(encoder_config: dict[str, Any]) -> Any:
    """Builds SpeechBrain's module; its convolutions then mirror each utterance's own end."""
    from speechbrain.lobes.models.Xvector import Xvector

    from speaker_encoder.modeling.ecapa_parts import make_redirects_inert

    make_redirects_inert()
    network: nn.Module = Xvector(**{name: encoder_config[name] for name in NETWORK_DEFAULTS})
    mirror_own_ends(network)
    return network


def _statistics(frames: torch.Tensor, num_frames: torch.Tensor | None, eps: float) -> torch.Tensor:
    """Gives (B, 2 C): the mean and the unbiased standard deviation of (B, T', C) frames.

    Upstream adds random noise between ``eps`` and ``9 eps`` to the mean, so that its embedding of
    one utterance is never twice the same; here its expected value is added.

    Source: ``speechbrain.nnet.pooling.StatisticsPooling``.
    """
    if num_frames is None:
        deviation, mean = torch.std_mean(frames, dim=1)
    else:
        count = num_frames[:, None].to(frames.dtype)
        behind = ~is_valid_frame(num_frames, frames.shape[1])[..., None]
        mean = frames.masked_fill(behind, 0.0).sum(dim=1) / count
        centred = (frames - mean[:, None]).masked_fill(behind, 0.0)
        deviation = (centred.square().sum(dim=1) / (count - 1)).sqrt()
    return torch.cat([mean + 5 * eps, deviation + eps], dim=1)
