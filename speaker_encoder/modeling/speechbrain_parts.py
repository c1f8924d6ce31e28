"""What SpeechBrain's speaker encoders share: their features, mirrored ends and model folders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from speaker_encoder.modeling.backbone import Backbone, PretrainedParts
from speaker_encoder.modeling.mel import PowerMel, SentenceNormalizedLogMel, mel_filters_htk
from speaker_encoder.modeling.weights import read_pickled_weights

SAMPLING_RATE = 16000
FEATURE_DEFAULTS: dict[str, Any] = {
    "n_fft": 400,
    "win_length": 25.0,
    "hop_length": 10.0,
    "f_min": 0.0,
    "f_max": 8000.0,
}
"""Arguments of SpeechBrain's ``Fbank``; ``win_length`` and ``hop_length`` are milliseconds."""

_num_frames: ContextVar[torch.Tensor | None] = ContextVar("num_frames", default=None)


def speechbrain_log_mel(num_mels: int, encoder_config: dict[str, Any]) -> SentenceNormalizedLogMel:
    """Builds the features that SpeechBrain's ``Fbank`` would give.

    Args:
        num_mels: Mels of a frame.
        encoder_config: Holds the keys of ``FEATURE_DEFAULTS``.
    """
    window, hop = (
        round(SAMPLING_RATE / 1000 * encoder_config[name]) for name in ("win_length", "hop_length")
    )
    n_fft = encoder_config["n_fft"]
    filters = mel_filters_htk(
        num_mels, n_fft, SAMPLING_RATE, encoder_config["f_min"], encoder_config["f_max"]
    )
    return SentenceNormalizedLogMel(PowerMel(torch.hamming_window(window), filters, hop, n_fft))


def mirror_own_ends(network: nn.Module) -> None:
    """Makes SpeechBrain's convolutions over time mirror each utterance's own end.

    They pad by reflection at the end of the batch; inside ``own_ends`` each utterance sees its own
    end reflected, as it would alone.
    """
    from speechbrain.nnet.CNN import Conv1d

    for module in network.modules():
        if isinstance(module, Conv1d) and module.kernel_size > 1:
            module.register_forward_pre_hook(_mirror_own_end)


@contextmanager
def own_ends(num_frames: torch.Tensor) -> Iterator[None]:
    """Says where the utterances of the batch end; ``num_frames`` is (B,)."""
    token = _num_frames.set(num_frames)
    try:
        yield
    finally:
        _num_frames.reset(token)


def most_mirrored(kernel_sizes: list[int], dilations: list[int]) -> int:
    """Gives how many frames the widest convolution mirrors."""
    return max((k - 1) * dilation // 2 for k, dilation in zip(kernel_sizes, dilations, strict=True))


def _mirror_own_end(convolution: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
    """Writes the mirror image of each utterance's last frames behind its end.

    ``x[n + j] = x[n - 2 - j]`` for n frames.
    """
    num_frames = _num_frames.get()
    if num_frames is None:
        return None
    (frames,) = inputs  # (B, C, T'), or (B, T', C) where upstream transposes them itself
    if not convolution.skip_transpose:
        frames = frames.transpose(1, 2)
    padding = (convolution.kernel_size - 1) * convolution.dilation // 2
    offset = torch.arange(padding, device=frames.device)
    shape = (-1, frames.shape[1], -1)
    source = (num_frames[:, None] - 2 - offset)[:, None].expand(shape)
    target = (num_frames[:, None] + offset)[:, None].expand(shape)
    mirrored = frames.scatter(2, target, frames.gather(2, source))
    return (mirrored if convolution.skip_transpose else mirrored.transpose(1, 2),)


def load_speechbrain_folder(
    folder: Path, encoder_kind: str, network_defaults: dict[str, Any]
) -> PretrainedParts:
    """Reads a SpeechBrain folder: its YAML as plain data, the weights beside it.

    Args:
        folder: Holds ``hyperparams.yaml`` and the weights.
        encoder_kind: The family that it must be of.
        network_defaults: Arguments of upstream's class.

    Raises:
        UserError: the YAML holds more than a known network, or a file is damaged.
    """
    from speaker_encoder.modeling.speechbrain_networks import NETWORKS
    from speaker_encoder.modeling.speechbrain_yaml import read_hyperparams

    hyperparams = read_hyperparams(folder / "hyperparams.yaml", encoder_kind, network_defaults)
    encoder_config = {**network_defaults, **FEATURE_DEFAULTS, **hyperparams.encoder_config}
    weights = read_pickled_weights(folder / hyperparams.weights_name)
    state_dict = {f"network.{name}": tensor for name, tensor in weights.items()}
    num_mels = encoder_config[NETWORKS[encoder_kind].num_mels_argument]
    constants = speechbrain_log_mel(num_mels, encoder_config).state_dict()
    state_dict.update({f"log_mel.{name}": tensor for name, tensor in constants.items()})
    return PretrainedParts(encoder_config, state_dict)


class SpeechBrainBackbone(Backbone):
    """One of SpeechBrain's embedding networks, as ``network``, behind our own log-mel.

    A subclass says ``encoder_kind``, a key of ``speechbrain_networks.NETWORKS``, and
    ``network_defaults``, the arguments of upstream's class.
    """

    network_defaults: ClassVar[dict[str, Any]]
    network: Any

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Says if ``folder`` is a SpeechBrain model folder of this family."""
        from speaker_encoder.modeling.speechbrain_networks import family_of

        return family_of(folder) == cls.encoder_kind

    @classmethod
    def load_pretrained(cls, folder: Path) -> PretrainedParts:
        """Reads a SpeechBrain folder: its YAML as plain data, the weights beside it.

        Raises:
            UserError: the YAML holds more than a known network, or a file is damaged.
        """
        return load_speechbrain_folder(folder, cls.encoder_kind, cls.network_defaults)

    def _as_input(self, features: torch.Tensor) -> torch.Tensor:
        return features.to(next(self.network.parameters()).dtype)
