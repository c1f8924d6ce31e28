"""The loss's own weights of a run's best model, for a stage that goes on with the same loss."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

from speaker_encoder.errors import UserError
from speaker_encoder.training.run_dir import LOSS_NAME
from speaker_encoder.training.run_files import sync

_logger = logging.getLogger(__name__)


def save_loss(loss: nn.Module, folder: Path, kind: object, speakers: Sequence[str]) -> None:
    """Writes a loss's weights, whole or not at all.

    Args:
        loss: whose.
        folder: of the file.
        kind: what the config's `loss` says, plain JSON data.
        speakers: the training speakers in the order of their labels.
    """
    from safetensors.torch import save_file

    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in loss.state_dict().items()}
    facts = json.dumps({"kind": kind, "speakers": list(speakers)})
    part = folder / f".{LOSS_NAME}.part"
    save_file(tensors, part, metadata={"facts": facts})
    sync(part)
    os.replace(part, folder / LOSS_NAME)


def carry_loss(loss: nn.Module, folder: Path, kind: object, speakers: Sequence[str]) -> bool:
    """Gives a new loss the weights that a run before has learned, where they fit.

    They fit where the loss is of the same kind, its options may differ, its weights have the same
    shapes, and the training speakers are the same.

    Args:
        loss: the new one.
        folder: of the run before.
        kind: what the config's `loss` says now.
        speakers: the training speakers now.

    Returns:
        Whether it was done.

    Raises:
        UserError: the file of the weights is damaged.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    path = folder / LOSS_NAME
    if not path.is_file() or not loss.state_dict():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
        tensors = load_file(path)
    except SafetensorError as error:
        raise UserError(
            f"The loss's weights {path} are damaged ({error}). Delete the file to start with new "
            "ones, or the folder of that stage and those after it to train it again."
        ) from error
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    reasons = {
        "it is another loss": _names(facts["kind"]) != _names(kind),
        "the training speakers are others": facts["speakers"] != list(speakers),
        "its weights have another shape": shapes
        != {name: tensor.shape for name, tensor in loss.state_dict().items()},
    }
    reason = next((reason for reason, is_true in reasons.items() if is_true), None)
    if reason is None:
        loss.load_state_dict(tensors)
        _logger.info("the loss goes on with the weights of the stage before")
    else:
        _logger.info("the loss's weights start anew: %s", reason)
    return reason is None


def _names(kind: object) -> list[str]:
    """Gives the names of a loss, or of the losses in a sum."""
    if isinstance(kind, dict):
        return [str(kind.get("name"))]
    return [name for one in kind for name in _names(one)] if isinstance(kind, list) else []
