"""Reads pickled weights as plain tensors; code in a pickle does not run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from speaker_encoder.errors import UserError


def read_pickled_weights(path: Path) -> dict[str, Any]:
    """Gives what ``torch.save`` wrote, on the CPU.

    Raises:
        UserError: the file is absent, damaged, holds more than plain tensors, or no dict.
    """
    if not path.is_file():
        raise UserError(f"There is no {path}. The folder is incomplete: copy it again.")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is refused: it is damaged, or holds more than plain tensors, and loading it "
            "could run code that it brings. Take the file from its publisher again."
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read: {error}. Copy it again.") from error
    if not isinstance(weights, dict):
        raise UserError(f"{path} holds {type(weights).__name__}, not a dict of weights.")
    return weights
