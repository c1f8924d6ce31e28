"""The GE2E d-vector encoder: a small network over windows of 1.6 s, averaged.

Source: Wan et al. 2018, "Generalized end-to-end loss for speaker verification"; architecture,
features and windows as in Resemblyzer, whose installed package ships the weights. Two other
networks over the same windows are for training from random weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.functional import normalize, pad

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.backbone import Backbone, PretrainedParts, complete_encoder_config
from speaker_encoder.modeling.dvector_networks import NETWORKS, NUM_HEADS, to_symmetric_decibel
from speaker_encoder.modeling.mel import PowerMel, mel_filters_slaney
from speaker_encoder.modeling.registry import unknown_name
from speaker_encoder.modeling.weights import read_pickled_weights

WEIGHT_FILES = ("pretrained.pt", "encoder.pt")
WINDOW_SAMPLES, HOP_SAMPLES = 400, 160
PARTIAL_FRAMES = 160
PARTIAL_STEP = 77
"""Frames from window to window: 1.3 windows a second."""
MIN_COVERAGE = 0.75
LSTM = "lstm"

DEFAULTS: dict[str, Any] = {
    "network": LSTM,
    "num_mels": 40,
    "hidden_size": 256,
    "num_layers": 3,
    "embedding_size": 256,
}


def num_partials(num_samples: int) -> int:
    """Gives how many overlapping windows cover an utterance; the last needs 75 % of its samples.

    Source: ``resemblyzer.VoiceEncoder.compute_partial_slices`` with its defaults.
    """
    num_frames = -(-(num_samples + 1) // HOP_SAMPLES)
    count = len(range(0, max(1, num_frames - PARTIAL_FRAMES + PARTIAL_STEP + 1), PARTIAL_STEP))
    last_start = (count - 1) * PARTIAL_STEP * HOP_SAMPLES
    coverage = (num_samples - last_start) / (PARTIAL_FRAMES * HOP_SAMPLES)
    return count - 1 if coverage < MIN_COVERAGE and count > 1 else count


class DVectorBackbone(Backbone):
    """Mel power -> network over each window -> mean over the windows.

    The network ``lstm`` is Resemblyzer's: LSTM layers, then ReLU(linear), each window normalised.
    ``residual_lstm`` and ``transformer`` hear the mels in dB.

    Args:
        encoder_config: ``network``, ``num_mels``, ``hidden_size``, ``num_layers``,
            ``embedding_size``.

    Raises:
        UserError: an unknown argument or network.
    """

    encoder_kind: ClassVar[str] = "dvector"
    head_parts = ("linear.", "network.linear.")
    min_num_samples = WINDOW_SAMPLES

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        super().__init__()
        self.encoder_config = complete_encoder_config(self.encoder_kind, encoder_config, DEFAULTS)
        name, *sizes = (self.encoder_config[name] for name in DEFAULTS)
        num_mels, hidden_size, num_layers, self.embedding_dim = sizes
        self.mel = _mel(num_mels)
        self.network: nn.Module | None = None
        if name == LSTM:
            self.lstm = nn.LSTM(num_mels, hidden_size, num_layers, batch_first=True)
            self.linear = nn.Linear(hidden_size, self.embedding_dim)
        elif name in NETWORKS:
            _check_hidden_size(name, hidden_size)
            self.network = NETWORKS[name](*sizes)
        else:
            raise unknown_name("network of the dvector encoder", name, [LSTM, *NETWORKS])

    def forward(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Gives (B, D) float32 embeddings, which upstream L2-normalises itself."""
        batch_size, num_samples = input_values.shape
        if lengths is None:
            counts = [num_partials(num_samples)] * batch_size
        else:
            counts = [num_partials(length) for length in lengths.tolist()]
        last_frame = (max(counts) - 1) * PARTIAL_STEP + PARTIAL_FRAMES
        missing = last_frame * HOP_SAMPLES - num_samples
        mel = self.mel(pad(input_values, (0, max(0, missing))))  # (B, T', num_mels)
        windows = mel.unfold(1, PARTIAL_FRAMES, PARTIAL_STEP)[:, : max(counts)].transpose(2, 3)
        if lengths is None:
            partials = self._embed_windows(windows.flatten(0, 1))
            return normalize(partials.unflatten(0, (batch_size, -1)).mean(dim=1), dim=-1)
        is_used = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
        row, position = is_used.to(mel.device).nonzero(as_tuple=True)
        partials = self._embed_windows(windows[row, position])  # (sum(counts), D)
        total = partials.new_zeros(batch_size, self.embedding_dim).index_add(0, row, partials)
        return normalize(total, dim=-1)

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def _embed_windows(self, windows: torch.Tensor) -> torch.Tensor:
        """(N, 160, num_mels) -> (N, D), rows L2-normalised where Resemblyzer does so."""
        if self.network is not None:
            return self.network(to_symmetric_decibel(windows).to(self._dtype)).float()
        _, (hidden, _) = self.lstm(windows.to(self._dtype))
        return normalize(torch.relu(self.linear(hidden[-1])).float(), dim=-1)

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Says if ``folder`` holds the weights of Resemblyzer or of a clone of its trainer."""
        return any((folder / name).is_file() for name in WEIGHT_FILES)

    @classmethod
    def load_pretrained(cls, folder: Path) -> PretrainedParts:
        """Reads Resemblyzer's weight file as plain tensors.

        Raises:
            UserError: the file is damaged, holds code, or is another model.
        """
        path = next(folder / name for name in WEIGHT_FILES if (folder / name).is_file())
        state_dict = read_pickled_weights(path)
        state_dict = state_dict.get("model_state", state_dict)
        weights = {
            name: tensor
            for name, tensor in state_dict.items()
            if name.startswith(("lstm.", "linear."))
        }
        if "lstm.weight_ih_l0" not in weights or "linear.weight" not in weights:
            raise UserError(f"{path} holds no d-vector encoder (lstm.*, linear.*).")
        encoder_config = {
            "num_mels": weights["lstm.weight_ih_l0"].shape[1],
            "hidden_size": weights["linear.weight"].shape[1],
            "num_layers": sum(name.startswith("lstm.weight_ih_l") for name in weights),
            "embedding_size": weights["linear.weight"].shape[0],
        }
        mel = _mel(encoder_config["num_mels"])
        weights.update({f"mel.{name}": tensor for name, tensor in mel.state_dict().items()})
        return PretrainedParts(encoder_config, weights, source_license="apache-2.0")


def _check_hidden_size(name: str, hidden_size: int) -> None:
    """Checks that a Transformer can be made.

    Raises:
        UserError: it cannot.
    """
    if name == "transformer" and hidden_size % NUM_HEADS:
        raise UserError(
            f"encoder_config of the dvector encoder: hidden_size of a transformer must be a "
            f"multiple of its {NUM_HEADS} heads, found {hidden_size}."
        )


def _mel(num_mels: int) -> PowerMel:
    filters = mel_filters_slaney(num_mels, WINDOW_SAMPLES, DVectorBackbone.sampling_rate)
    return PowerMel(torch.hann_window(WINDOW_SAMPLES), filters, HOP_SAMPLES, WINDOW_SAMPLES)
