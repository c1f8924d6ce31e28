"""Reads pickled weights as plain tensors; code in a pickle does not run."""

from __future__ import annotations

import pickle
import zipfile
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
    _refuse_compressed(path)
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
    if not _is_plain(weights):
        raise UserError(
            f"{path} is refused: it has a tensor that is sparse, or larger than the bytes that it "
            "was stored with. Take the file from its publisher again."
        )
    return weights


def _refuse_compressed(path: Path) -> None:
    """Checks that a file becomes no larger in memory: ``torch.save`` compresses nothing.

    Raises:
        UserError: it is compressed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            is_compressed = any(entry.compress_type for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # torch.load says what is wrong with it, and reads the older format
    if is_compressed:
        raise UserError(
            f"{path} is refused: it is compressed, as no file of torch.save is, and could fill the "
            "memory. Take the file from its publisher again."
        )


def _is_plain(value: Any) -> bool:
    """Says if every tensor in what was read has its own bytes on the CPU."""
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if not isinstance(value, torch.Tensor):
        return True
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()
