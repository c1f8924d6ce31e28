"""Low-rank adapters (LoRA) of an encoder, through `peft`, and the plain encoder with them."""

from __future__ import annotations

import copy
import fnmatch
import logging
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from speaker_encoder.errors import UserError
from speaker_encoder.training.freezing import matching_parameters, nearest_names

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder

_ADAPTABLE = (nn.Linear, nn.Conv1d, nn.Conv2d)

_TAKES_WEIGHTS = ("TDNNLayer", "SharedContextPooling", "ContextStatisticsPooling")
"""Modules that compute with the weights of those inside them, and would pass adapters by."""

_logger = logging.getLogger(__name__)


def add_lora(model: SpeakerEncoder, options: dict[str, Any]) -> None:
    """Freezes the encoder and gives the target modules adapters, which learn.

    Args:
        model: the encoder.
        options: `r`, `alpha`, `dropout`, `target`, `train`, as the config's `lora`.

    Raises:
        UserError: peft is not installed, a pattern matches nothing, or peft refuses a module.

    Source: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", eq. 3.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError(
            f"lora needs the package peft, which cannot be imported ({error}). Install it: "
            "pip install peft."
        ) from error
    targets = _target_modules(model, options["target"])
    trained = set(matching_parameters(model, options["train"], "lora.train"))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    lora = LoraConfig(
        r=options["r"],
        lora_alpha=options["alpha"],
        lora_dropout=options["dropout"],
        target_modules=_whole_names(name.removeprefix("backbone.") for name in targets),
        bias="none",
    )
    try:
        inject_adapter_in_model(lora, model.backbone)
    except ValueError as error:
        raise UserError(
            f"lora: peft refuses adapters with these options: {error}. The option target names "
            f"{', '.join(map(repr, options['target']))}."
        ) from error
    for name, parameter in model.named_parameters():
        if name in trained:  # peft freezes all but the adapters
            parameter.requires_grad_(True)
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    _logger.info("lora: adapters of %d modules, %d weights learn", len(targets), learning)
    if model.config.untrained_head and not trained:
        _logger.warning(
            "lora: the part of this encoder that makes the embedding has random weights and is "
            "not trained. Name it in lora's option train."
        )


def is_adapted(model: nn.Module) -> bool:
    """Has this model adapters."""
    return any(name.rpartition(".")[2] == "base_layer" for name, _ in model.named_modules())


def without_adapters(model: SpeakerEncoder) -> SpeakerEncoder:
    """Gives a copy of an adapted model as a plain encoder: the adapters are merged into it."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    plain = copy.deepcopy(model)
    for name, module in list(plain.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(plain.get_submodule(parent), child, module.get_base_layer())
    if hasattr(plain.backbone, "peft_config"):
        del plain.backbone.peft_config
    return plain


def _whole_names(names: Iterable[str]) -> str:
    """Gives the pattern of these names alone; peft would also look for each at names' ends."""
    return f"^(?:{'|'.join(map(re.escape, names))})$"


def _can_be_adapted(module: nn.Module) -> bool:
    """Can peft adapt it: not a grouped convolution, which it cannot merge, nor a dilated one.

    The adapter of a dilated convolution is not dilated: its frames are others in number.
    """
    if isinstance(module, (nn.Conv1d, nn.Conv2d)) and (
        module.groups > 1 or max(module.dilation) > 1
    ):
        return False
    return type(module) in _ADAPTABLE


def _target_modules(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Gives the names of the modules that the patterns match, whole names or their ends.

    Raises:
        UserError: there is no pattern, or one matches no module that can have an adapter.
    """
    if not patterns:
        raise UserError(
            "lora: its option target is empty. Name the modules that get adapters in it, or set "
            "lora to null."
        )
    unheard = {
        id(part)
        for module in model.modules()
        if type(module).__name__ in _TAKES_WEIGHTS
        for part in module.modules()
    }
    known = [
        name
        for name, module in model.named_modules()
        if name.startswith("backbone.") and _can_be_adapted(module) and id(module) not in unheard
    ]
    chosen: set[str] = set()
    for pattern in patterns:
        found = {
            name
            for name in known
            if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"*.{pattern}")
        }
        if not found:
            raise UserError(
                "lora: no linear or convolutional module of this encoder that can have an adapter "
                f"is like {pattern!r}. Some that are near: "
                f"{', '.join(nearest_names(pattern, known))}. Write them, or patterns of them, "
                "into lora's option target."
            )
        chosen |= found
    return [name for name in known if name in chosen]
