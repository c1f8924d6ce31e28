"""Checkpoints in the layout of voxceleb_trainer with weights that do not change from run to run.

``voxceleb_trainer_keys.json`` has the names and shapes of the original classes' ``state_dict()``.
"""

import json
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch

from speaker_encoder.modeling.rawnet3 import SincFilters
from speaker_encoder.modeling.torchaudio_mel import mel_filters_torchaudio

KEYS = Path(__file__).parent / "voxceleb_trainer_keys.json"
Weights = dict[str, torch.Tensor]


@cache
def original_shapes(kind: str) -> dict[str, list[int]]:
    """Gives name -> shape of one of the original classes."""
    return json.loads(KEYS.read_text())[kind]


def make_weights(kind: str, changed: dict[str, list[int] | None]) -> Weights:
    """Gives the encoder's weights; ``changed`` are other shapes, None: the original lacks it."""
    shapes = {**original_shapes(kind), **changed}
    sinc = SincFilters(256, 16000).state_dict()
    constants = {
        "low_hz_": sinc["low_hz"],
        "band_hz_": sinc["band_hz"],
        "window_": sinc["window"],
        "n_": sinc["phase"],
        "window": (torch.hann_window if kind == "vggvox40" else torch.hamming_window)(400),
        "flipped_filter": torch.tensor([[[-0.97, 1.0]]]),
    }
    weights = {}
    for name, shape in shapes.items():
        leaf = name.rsplit(".", 1)[-1]
        if shape is None:
            continue
        if leaf == "fb":
            weights[name] = mel_filters_torchaudio(shape[1], 512, 16000)
        elif leaf in constants:
            weights[name] = constants[leaf]
        else:
            weights[name] = _random(name, leaf, shape)
        assert list(weights[name].shape) == shape, name
    return weights


def _random(name: str, leaf: str, shape: list[int]) -> torch.Tensor:
    if leaf == "num_batches_tracked":
        return torch.tensor(7)
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if leaf == "running_var":
        values = 0.5 + np.abs(values)
    elif leaf in ("running_mean", "bias"):
        values *= 0.1
    elif len(shape) == 1:
        values = 1 + 0.2 * values
    else:
        values *= np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(values).float()


def write_checkpoint(path: Path, weights: Weights) -> Path:
    """Writes what ``saveParameters`` wrote in 2020: the encoder and the loss, bare."""
    loss = {"__L__.w": torch.tensor(10.0), "__L__.b": torch.tensor(-5.0)}
    torch.save({f"__S__.{name}": tensor for name, tensor in weights.items()} | loss, path)
    return path
