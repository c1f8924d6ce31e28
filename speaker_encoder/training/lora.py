"""Low-rank adapters (LoRA) of an encoder, through `peft`, and the plain encoder with them."""

from __future__ import annotations

import copy
import fnmatch
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from speaker_encoder.errors import UserError
from speaker_encoder.training.freezing import matching_parameters, nearest_names

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder

_ADAPTABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding)

_logger = logging.getLogger(__name__)


def add_lora(model: SpeakerEncoder, options: dict[str, Any]) -> None:
    """Freezes the encoder and gives the target modules adapters, which learn.

    Args:
        model: the encoder.
        options: `r`, `alpha`, `dropout`, `target`, `train`, as the config's `lora`.

    Raises:
        UserError: peft is not installed, or a pattern matches nothing.

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
        target_modules=[name.removeprefix("backbone.") for name in targets],
        bias="none",
    )
    inject_adapter_in_model(lora, model.backbone)
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


def _target_modules(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Gives the names of the modules that the patterns match, whole names or their ends.

    Raises:
        UserError: a pattern matches no module that can have an adapter.
    """
    known = [
        name
        for name, module in model.named_modules()
        if name.startswith("backbone.") and type(module) in _ADAPTABLE
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
                f"lora: no linear or convolutional module of this encoder is like {pattern!r}. "
                f"Some that are near: {', '.join(nearest_names(pattern, known))}. Write them, or "
                "patterns of them, into lora's option target."
            )
        chosen |= found
    return [name for name in known if name in chosen]
