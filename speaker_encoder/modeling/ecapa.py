"""ECAPA-TDNN: SpeechBrain's own module behind our own log-mel, exact in a padded batch.

Source: Desplanques et al. 2020, "ECAPA-TDNN: Emphasized Channel Attention, Propagation and
Aggregation in TDNN Based Speaker Verification"; ``speechbrain.lobes.models.ECAPA_TDNN``.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.functional import pad

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.backbone import complete_encoder_config
from speaker_encoder.modeling.speechbrain_parts import (
    FEATURE_DEFAULTS,
    SpeechBrainBackbone,
    mirror_own_ends,
    most_mirrored,
    own_ends,
    speechbrain_log_mel,
)

NETWORK_DEFAULTS: dict[str, Any] = {
    "input_size": 80,
    "channels": [1024, 1024, 1024, 1024, 3072],
    "kernel_sizes": [5, 3, 3, 3, 1],
    "dilations": [1, 2, 3, 4, 1],
    "attention_channels": 128,
    "lin_neurons": 192,
    "res2net_scale": 8,
    "se_channels": 128,
    "global_context": True,
    "groups": [1, 1, 1, 1, 1],
    "dropout": 0.0,
}
"""Arguments of SpeechBrain's ``ECAPA_TDNN``; the values of its ``spkrec-ecapa-voxceleb``."""


class EcapaBackbone(SpeechBrainBackbone):
    """Log-mel -> SpeechBrain's ``ECAPA_TDNN``.

    Args:
        encoder_config: Arguments of ``ECAPA_TDNN`` and ``Fbank``, with SpeechBrain's names.

    Raises:
        UserError: an unknown argument, or values that do not fit each other.
    """

    encoder_kind: ClassVar[str] = "ecapa"
    head_parts = ("network.asp.", "network.asp_bn.", "network.fc.")
    network_defaults: ClassVar[dict[str, Any]] = NETWORK_DEFAULTS

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        super().__init__()
        defaults = {**NETWORK_DEFAULTS, **FEATURE_DEFAULTS}
        self.encoder_config = complete_encoder_config(self.encoder_kind, encoder_config, defaults)
        check_architecture(self.encoder_config)
        self.embedding_dim = self.encoder_config["lin_neurons"]
        self.log_mel = speechbrain_log_mel(self.encoder_config["input_size"], self.encoder_config)
        self.network = build_network(self.encoder_config)
        self.max_padding = most_mirrored(
            self.encoder_config["kernel_sizes"], self.encoder_config["dilations"]
        )
        # A mirrored end needs one frame more than it mirrors.
        self.min_num_samples = max(self.max_padding * self._hop, self.encoder_config["n_fft"])

    @property
    def _hop(self) -> int:
        return self.log_mel.power_mel.hop

    def forward(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Gives (B, D) raw embeddings.

        In training mode batch norm takes its statistics from all frames, also from those behind
        an utterance's end: train on crops of one length.
        """
        if lengths is None:
            return self.network(self._as_input(self.log_mel(input_values, None))).squeeze(1)
        num_frames = lengths // self._hop + 1
        features = self.log_mel(input_values, num_frames)
        # Room for the mirrored end of the longest utterance too.
        features = self._as_input(pad(features, (0, 0, 0, self.max_padding)))
        # SpeechBrain takes lengths as fractions of T'; half a frame less survives the rounding.
        fractions = (num_frames - 0.5) / features.shape[1]
        with own_ends(num_frames):
            return self.network(features, fractions).squeeze(1)

    def frozen(self) -> EcapaBackbone:
        """Gives what embeds the same for as long as no weight changes, faster on a CPU."""
        from speaker_encoder.modeling.ecapa_frozen import FrozenEcapa, can_be_frozen

        is_usual = {self.encoder_config["kernel_sizes"][-1], *self.encoder_config["groups"]} == {1}
        if self.training or not is_usual or not can_be_frozen(self.network):
            return self
        twin = copy.copy(self)
        twin._modules = {**self._modules, "network": FrozenEcapa(self.network)}
        return twin


def check_architecture(encoder_config: dict[str, Any]) -> None:
    """Checks that the lists fit each other.

    Raises:
        UserError: they do not.
    """
    channels = encoder_config["channels"]
    for name in ("kernel_sizes", "dilations", "groups"):
        if len(encoder_config[name]) != len(channels):
            raise UserError(
                f"encoder_config of the ecapa encoder: {name} must have as many values as channels "
                f"({len(channels)}), found {encoder_config[name]}."
            )
    scale = encoder_config["res2net_scale"]
    if len(channels) < 3 or any(width < 1 or width % scale for width in channels[:-1]):
        raise UserError(
            "encoder_config of the ecapa encoder: channels must be at least 3 numbers, all but the "
            f"last a multiple of res2net_scale ({scale}), found {channels}."
        )
    if any(size % 2 == 0 for size in encoder_config["kernel_sizes"]):
        raise UserError(
            "encoder_config of the ecapa encoder: kernel_sizes must be odd, found "
            f"{encoder_config['kernel_sizes']}."
        )


def build_network(encoder_config: dict[str, Any]) -> nn.Module:
    """Builds SpeechBrain's module; its convolutions then mirror each utterance's own end."""
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    from speaker_encoder.modeling.ecapa_parts import (
        SharedContextPooling,
        make_redirects_inert,
        squeeze_in_own_dtype,
    )

    make_redirects_inert()
    network = ECAPA_TDNN(**{name: encoder_config[name] for name in NETWORK_DEFAULTS})
    mirror_own_ends(network)
    squeeze_in_own_dtype(network)
    network.asp = SharedContextPooling(network.asp)
    return network
