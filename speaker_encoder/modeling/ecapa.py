"""ECAPA-TDNN: SpeechBrain's own module behind our own log-mel, exact in a padded batch.

Source: Desplanques et al. 2020, "ECAPA-TDNN: Emphasized Channel Attention, Propagation and
Aggregation in TDNN Based Speaker Verification"; ``speechbrain.lobes.models.ECAPA_TDNN``.
"""

from __future__ import annotations

from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.functional import pad

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.backbone import Backbone, PretrainedParts, complete_encoder_config
from speaker_encoder.modeling.mel import PowerMel, SentenceNormalizedLogMel, mel_filters_htk
from speaker_encoder.modeling.weights import read_pickled_weights

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

FEATURE_DEFAULTS: dict[str, Any] = {
    "n_fft": 400,
    "win_length": 25.0,
    "hop_length": 10.0,
    "f_min": 0.0,
    "f_max": 8000.0,
}
"""Arguments of SpeechBrain's ``Fbank``; ``win_length`` and ``hop_length`` are milliseconds."""

_num_frames: ContextVar[torch.Tensor | None] = ContextVar("num_frames", default=None)


class EcapaBackbone(Backbone):
    """Log-mel -> SpeechBrain's ``ECAPA_TDNN``.

    Args:
        encoder_config: Arguments of ``ECAPA_TDNN`` and ``Fbank``, with SpeechBrain's names.

    Raises:
        UserError: an unknown argument, or values that do not fit each other.
    """

    encoder_kind: ClassVar[str] = "ecapa"

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        super().__init__()
        defaults = {**NETWORK_DEFAULTS, **FEATURE_DEFAULTS}
        self.encoder_config = complete_encoder_config(self.encoder_kind, encoder_config, defaults)
        _check_architecture(self.encoder_config)
        self.embedding_dim = self.encoder_config["lin_neurons"]
        self.log_mel = _log_mel(self.encoder_config)
        self.network = _network(self.encoder_config)
        self.max_padding = max(
            (kernel - 1) * dilation // 2
            for kernel, dilation in zip(
                self.encoder_config["kernel_sizes"], self.encoder_config["dilations"], strict=True
            )
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
        token = _num_frames.set(num_frames)
        try:
            return self.network(features, fractions).squeeze(1)
        finally:
            _num_frames.reset(token)

    def _as_input(self, features: torch.Tensor) -> torch.Tensor:
        return features.to(next(self.network.parameters()).dtype)

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Says if ``folder`` is a SpeechBrain model folder."""
        return (folder / "hyperparams.yaml").is_file()

    @classmethod
    def load_pretrained(cls, folder: Path) -> PretrainedParts:
        """Reads a SpeechBrain folder: its YAML as plain data, the weights beside it.

        Raises:
            UserError: the YAML holds more than a known ECAPA-TDNN, or a file is damaged.
        """
        from speaker_encoder.modeling.speechbrain_yaml import read_hyperparams

        hyperparams = read_hyperparams(folder / "hyperparams.yaml")
        encoder_config = {**NETWORK_DEFAULTS, **FEATURE_DEFAULTS, **hyperparams.encoder_config}
        weights = read_pickled_weights(folder / hyperparams.weights_name)
        state_dict = {f"network.{name}": tensor for name, tensor in weights.items()}
        constants = _log_mel(encoder_config).state_dict()
        state_dict.update({f"log_mel.{name}": tensor for name, tensor in constants.items()})
        return PretrainedParts(encoder_config, state_dict)


def _check_architecture(encoder_config: dict[str, Any]) -> None:
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


def _log_mel(encoder_config: dict[str, Any]) -> SentenceNormalizedLogMel:
    """Builds the features that SpeechBrain's ``Fbank`` would give."""
    sampling_rate = EcapaBackbone.sampling_rate
    window, hop = (
        round(sampling_rate / 1000 * encoder_config[name]) for name in ("win_length", "hop_length")
    )
    n_fft = encoder_config["n_fft"]
    filters = mel_filters_htk(
        encoder_config["input_size"],
        n_fft,
        sampling_rate,
        encoder_config["f_min"],
        encoder_config["f_max"],
    )
    return SentenceNormalizedLogMel(PowerMel(torch.hamming_window(window), filters, hop, n_fft))


def _network(encoder_config: dict[str, Any]) -> nn.Module:
    """Builds SpeechBrain's module; its convolutions then mirror each utterance's own end."""
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
    from speechbrain.nnet.CNN import Conv1d

    from speaker_encoder.modeling.ecapa_parts import SharedContextPooling, make_redirects_inert

    make_redirects_inert()
    network = ECAPA_TDNN(**{name: encoder_config[name] for name in NETWORK_DEFAULTS})
    for module in network.modules():
        if isinstance(module, Conv1d) and module.kernel_size > 1:
            module.register_forward_pre_hook(_mirror_own_end)
    network.asp = SharedContextPooling(network.asp)
    return network


def _mirror_own_end(convolution: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
    """Writes the mirror image of each utterance's last frames behind its end.

    SpeechBrain's convolutions pad by reflection at the end of the batch; here each utterance sees
    its own end reflected, as it would alone: ``x[n + j] = x[n - 2 - j]`` for n frames.
    """
    num_frames = _num_frames.get()
    if num_frames is None:
        return None
    (frames,) = inputs  # (B, C, T')
    padding = (convolution.kernel_size - 1) * convolution.dilation // 2
    offset = torch.arange(padding, device=frames.device)
    shape = (-1, frames.shape[1], -1)
    source = (num_frames[:, None] - 2 - offset)[:, None].expand(shape)
    target = (num_frames[:, None] + offset)[:, None].expand(shape)
    return (frames.scatter(2, target, frames.gather(2, source)),)
