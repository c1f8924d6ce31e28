"""Reads the ``.model`` checkpoints of voxceleb_trainer, which do not say what they hold.

Such a file is ``torch.save`` of all that was trained: the encoder below ``__S__.``, the loss below
``__L__.``; newer ones have it under ``model_state_dict`` beside the optimizer's state, that of
RawNet3 has the encoder alone under ``model``. The architecture is read off names and shapes; what
leaves no trace in them can be told with ``encoder_config``.

Source: ``SpeakerNet.ModelTrainer.saveParameters`` and ``loadParameters``.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.backbone import Backbone, PretrainedParts, complete_encoder_config
from speaker_encoder.modeling.weights import read_pickled_weights

logger = logging.getLogger(__name__)

Weights = dict[str, torch.Tensor]

SUFFIXES = (".model", ".pt")
_WHOLE_FILES = ("model.pt",)
"""Name of the file where RawNet3 is published."""

_LANDMARKS = {
    "rawnet3": "conv1.filterbank.low_hz_",
    "vggvox40": "netcnn.0.weight",
    "res2netse34": "layer1.0.convs.0.weight",
    "resnetse34v2": "attention.0.weight",
    "resnetse34l": "sap_linear.weight",
}
"""Family -> a weight that those below it in the table do not have."""


def find_checkpoint(place: Path) -> Path | None:
    """Gives the checkpoint that a path names, or the only one in a folder; None: there is none.

    Raises:
        UserError: a folder holds several.
    """
    if place.is_file():
        return place if place.suffix in SUFFIXES else None
    found = sorted(place.glob("*.model"))
    found = found or [place / name for name in _WHOLE_FILES if (place / name).is_file()]
    if len(found) > 1:
        raise UserError(
            f"{place} holds {len(found)} checkpoints: {', '.join(p.name for p in found[:3])}, ... "
            f"Name one of them: {found[-1]}"
        )
    return found[0] if found else None


def read_checkpoint(path: Path) -> Weights:
    """Gives the weights of the encoder with the names that its class gives them.

    Raises:
        UserError: the file is damaged, or holds more than plain tensors.
    """
    content = read_pickled_weights(path)
    for name in ("model_state_dict", "model"):
        inner = content.get(name)
        content = inner if isinstance(inner, dict) else content
    weights = {}
    for name, tensor in content.items():
        name = str(name).replace("module.", "")  # of several GPUs
        if isinstance(tensor, torch.Tensor) and not name.startswith("__L__."):
            is_float = tensor.is_floating_point()
            weights[name.removeprefix("__S__.")] = tensor.float() if is_float else tensor
    return weights


def kind_of(weights: Weights) -> str | None:
    """Gives the family that the weights are of, None where it is none of voxceleb_trainer's."""
    return next((kind for kind, landmark in _LANDMARKS.items() if landmark in weights), None)


class TrainerBackbone(Backbone):
    """An encoder of voxceleb_trainer.

    A subclass gives its arguments in ``defaults``, says what a checkpoint's shapes tell, and in
    ``traceless`` which arguments leave no trace in it and when to say them. Its modules are
    ``network``, with upstream's names inside, and what stands before it.
    """

    defaults: ClassVar[dict[str, Any]]
    head_parts: tuple[str, ...] = ("network.attention", "network.sap_linear.", "network.fc.")
    traceless: ClassVar[dict[str, str]] = {"log_input": "false if it was trained without"}

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        super().__init__()
        self.encoder_config = complete_encoder_config(
            self.encoder_kind, encoder_config, self.defaults
        )
        self.embedding_dim = self.encoder_config["n_out"]

    @classmethod
    def read_architecture(cls, weights: Weights) -> dict[str, Any]:
        """Gives the arguments that names and shapes tell; the rest are the defaults."""
        raise NotImplementedError

    @classmethod
    def own_names(cls, weights: Weights) -> Weights:
        """Gives the weights with the names of this class's ``state_dict()``."""
        return {f"network.{name}": tensor for name, tensor in weights.items()}

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Says if a checkpoint, or the only one in a folder, holds this encoder."""
        path = find_checkpoint(folder)
        return path is not None and kind_of(read_checkpoint(path)) == cls.encoder_kind

    @classmethod
    def load_pretrained(cls, folder: Path) -> PretrainedParts:
        """Reads a checkpoint as plain tensors.

        Raises:
            UserError: the file is damaged, holds code, or its weights do not tell the architecture.
        """
        return cls.load_pretrained_as(folder, {})

    @classmethod
    def load_pretrained_as(cls, folder: Path, encoder_config: dict[str, Any]) -> PretrainedParts:
        """Reads a checkpoint; ``encoder_config`` tells what its weights do not."""
        path = find_checkpoint(folder)
        assert path is not None
        weights = read_checkpoint(path)
        architecture = _complete(cls, path, weights, encoder_config)
        if path.name not in _WHOLE_FILES:  # of a published one the defaults are known to be right
            _warn_of_traceless(cls, path, architecture, encoder_config)
        with torch.random.fork_rng(devices=[]):
            own = cls(architecture).state_dict()
        read = cls.own_names(weights)
        for name, tensor in own.items():
            is_constant = not name.startswith("network.") or name.endswith(".num_batches_tracked")
            if is_constant:
                read.setdefault(name, tensor)
        return PretrainedParts(architecture, read)


def _complete(
    cls: type[TrainerBackbone], path: Path, weights: Weights, told: dict[str, Any]
) -> dict[str, Any]:
    """Gives the whole architecture of a checkpoint.

    Raises:
        UserError: a weight that tells it is missing, the user says what the weights contradict, or
            nobody says what they do not tell.
    """
    try:
        seen = cls.read_architecture(weights)
    except KeyError as error:
        raise UserError(
            f"The weights in {path} look like a {cls.encoder_kind}, but {error} is missing. Copy "
            "it again."
        ) from error
    for name, value in told.items():
        if name in seen and seen[name] not in (value, None):
            raise UserError(
                f"encoder_config says {name} {value!r}, but the weights in {path} are of "
                f"{name} {seen[name]!r}. Leave it out."
            )
    open_arguments = [name for name, value in seen.items() if value is None and name not in told]
    if open_arguments:
        example = f'encoder_config={{"{open_arguments[0]}": ...}}'
        raise UserError(
            f"The weights in {path} are those of a {cls.encoder_kind} but do not tell its "
            f"{', '.join(open_arguments)}. Tell it as it was trained: with encoder_config in a "
            "training's config; anywhere else with a folder that "
            f"SpeakerEncoder.from_name({str(path)!r}, {example}).save_pretrained(...) wrote."
        )
    known = {name: value for name, value in seen.items() if value is not None}
    return complete_encoder_config(cls.encoder_kind, {**known, **told}, cls.defaults)


def _warn_of_traceless(
    cls: type[TrainerBackbone], path: Path, architecture: dict[str, Any], told: dict[str, Any]
) -> None:
    """Says what was taken for granted; wrong embeddings would come without an error."""
    for name in cls.traceless.keys() - told.keys():
        logger.warning(
            "%s: %s taken as %s: say encoder_config.%s %s. Weights do not tell it.",
            path, name, json.dumps(architecture[name]), name, cls.traceless[name],
        )  # fmt: skip


def initialize(network: nn.Module) -> None:
    """Gives 2-D convolutions upstream's first weights: normal, scaled by their outputs."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def check_choice(encoder_config: dict[str, Any], encoder_kind: str, *known: str) -> None:
    """Checks ``encoder_type``, the pooling.

    Raises:
        UserError: it is not known.
    """
    found = encoder_config["encoder_type"]
    if found not in known:
        raise UserError(
            f"encoder_config of the {encoder_kind} encoder: encoder_type must be one of "
            f"{', '.join(known)}, found {found!r}."
        )
