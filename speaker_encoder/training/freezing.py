"""Which of an encoder's parameters are left as they are, by patterns of their names."""

from __future__ import annotations

import difflib
import fnmatch
import logging
from collections.abc import Iterable, Sequence

from torch import nn

from speaker_encoder.errors import UserError

_NUM_SHOWN = 5

_logger = logging.getLogger(__name__)


def matching_parameters(model: nn.Module, patterns: Sequence[str], key: str) -> list[str]:
    """Gives the names of the encoder's parameters that any of the patterns matches.

    Args:
        model: with the encoder as `backbone`.
        patterns: of parameters' or modules' whole names, `*` for anything:
            `backbone.encoder.layers.0.*`, `backbone.projector`, `*.bias`.
        key: of the config, for the message.

    Raises:
        UserError: a pattern matches nothing; the message names parameters that are like it.
    """
    names = [name for name, _ in model.named_parameters() if name.startswith("backbone.")]
    matched: set[str] = set()
    for pattern in patterns:
        found = {name for name in names if any(_matches(pattern, part) for part in _parts(name))}
        if not found:
            raise UserError(
                f"{key}: no parameter of this encoder is like {pattern!r}. Some that are near: "
                f"{', '.join(nearest_names(pattern, names))}."
            )
        matched |= found
    return [name for name in names if name in matched]


def freeze_parameters(model: nn.Module, patterns: Sequence[str]) -> None:
    """Takes the parameters that match out of the training.

    Batch norm whose weights are all frozen keeps its statistics too: `SpeakerEncoder.train`.

    Raises:
        UserError: a pattern matches nothing, or nothing of the encoder is left to train.
    """
    chosen = set(matching_parameters(model, patterns, "freeze"))
    for name, parameter in model.named_parameters():
        if name in chosen:
            parameter.requires_grad_(False)
    encoder = [(name, p) for name, p in model.named_parameters() if name.startswith("backbone.")]
    if not any(p.requires_grad for _, p in encoder):
        raise UserError(
            f"freeze: {', '.join(map(repr, patterns))} leaves none of the encoder's {len(encoder)} "
            "parameters to train. Name fewer of them in freeze, or set train_only_head and "
            "freeze_feature_encoder to false where they are true."
        )
    left = sum(p.numel() for p in model.parameters() if p.requires_grad)
    whole = sum(p.numel() for p in model.parameters())
    _logger.info("freeze: %d of the encoder's %d weights are trained", left, whole)


def _parts(name: str) -> list[str]:
    """Gives a parameter's name and those of the modules that it is in."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _matches(pattern: str, name: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern)


def nearest_names(pattern: str, names: Iterable[str]) -> list[str]:
    """Gives the names that are most like a pattern, whole or in their parts."""
    wanted = pattern.replace("*", "").strip(".")
    num_parts = wanted.count(".") + 1

    def likeness(name: str) -> float:
        parts = name.split(".")
        texts = [".".join(parts[i : i + num_parts]) for i in range(len(parts) - num_parts + 1)]
        return max(difflib.SequenceMatcher(None, wanted, text).ratio() for text in (name, *texts))

    return sorted(names, key=lambda name: -likeness(name))[:_NUM_SHOWN]
