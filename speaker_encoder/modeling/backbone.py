"""What every family of speaker encoders gives: the interface of one backbone file."""

from __future__ import annotations

import copy
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from speaker_encoder.errors import UserError

_MAY_BE_ZERO = frozenset(
    {
        *("mask_time_min_masks", "mask_feature_min_masks"),
        *("left_max_position_embeddings", "right_max_position_embeddings"),
    }
)
"""Whole numbers of an architecture that mean something at zero; all others are sizes and counts."""


@dataclass(frozen=True)
class PretrainedParts:
    """What a folder in an upstream library's layout holds, as plain data.

    Attributes:
        encoder_config: Arguments of the backbone, plain JSON data.
        state_dict: Weights with the names of the backbone's own ``state_dict()``.
        untrained_prefixes: Parameters that the folder does not have and that start at random; a
            model with any of them has an untrained head.
        feature_settings: Fields of ``SpeakerEncoderConfig`` that say how a waveform is prepared,
            ``do_normalize`` for one.
        source_license: SPDX name of the licence of the weights, where it is known.
    """

    encoder_config: dict[str, Any]
    state_dict: dict[str, torch.Tensor]
    untrained_prefixes: tuple[str, ...] = ()
    feature_settings: dict[str, Any] = field(default_factory=dict)
    source_license: str | None = None


class Backbone(nn.Module):
    """A speaker encoder: waveforms in, one raw embedding of each utterance out.

    A subclass is one file and one line in ``registry.BACKBONES``. Its constructor takes
    ``encoder_config``, completes it with defaults into ``self.encoder_config`` (plain JSON data),
    builds the modules with random weights and sets ``embedding_dim`` and ``min_num_samples``.
    ``head_parts`` says how the names of the parameters begin that make the embedding from the
    frame features: the pooling and all behind it.
    All constants are persistent buffers: transformers builds a model on the meta device.
    """

    encoder_kind: ClassVar[str]
    has_heads: ClassVar[bool] = False  # to choose from, with replace_head
    head_parts: tuple[str, ...]
    encoder_config: dict[str, Any]
    embedding_dim: int
    min_num_samples: int
    sampling_rate: int = 16000

    def forward(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Embeds a padded batch; an utterance's row does not depend on its batch mates.

        Args:
            input_values: (B, T) float32 waveforms, already normalised where the config's
                ``do_normalize`` says so, zero behind each utterance's end.
            lengths: (B,) int64, on the device of ``input_values``: the true number of samples of
                each utterance, at least ``min_num_samples``. None: every row is T samples long
                (training), and nothing is masked.

        Returns:
            (B, D) float32 raw embeddings, as the upstream library gives them.
        """
        raise NotImplementedError

    def frozen(self) -> Backbone:
        """Gives what embeds the same for as long as no weight changes, faster where it can be.

        In eval mode, and to be called again when a weight has changed.
        """
        return self

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Says if ``folder`` holds a model of this family in the upstream library's layout."""
        raise NotImplementedError

    @classmethod
    def load_pretrained(cls, folder: Path) -> PretrainedParts:
        """Reads a folder in the upstream library's layout; executes nothing of it.

        Raises:
            UserError: a file is missing, damaged or holds what this family does not know.
        """
        raise NotImplementedError

    @classmethod
    def load_pretrained_as(cls, folder: Path, encoder_config: dict[str, Any]) -> PretrainedParts:
        """Reads as ``load_pretrained``; ``encoder_config`` tells what the folder does not.

        Raises:
            UserError: the folder tells everything, or what ``load_pretrained`` raises.
        """
        raise pretrained_has_its_own(folder.name)

    @classmethod
    def default_feature_settings(cls, encoder_config: dict[str, Any]) -> dict[str, Any]:
        """Gives ``feature_settings`` of a model of this family with random weights."""
        return {}

    def get_input_embeddings(self) -> None:
        """Gives None: speech comes in without a table of tokens, which FSDP looks for."""

    def freeze(
        self, *, train_only_head: bool = False, freeze_feature_encoder: bool = False
    ) -> None:
        """Chooses what is trained; called with both False it makes everything trainable.

        Raises:
            UserError: the family has no such part.
        """
        if train_only_head or freeze_feature_encoder:
            wanted = "train_only_head" if train_only_head else "freeze_feature_encoder"
            raise UserError(
                f"{wanted} has no meaning for the {self.encoder_kind} encoder. Leave it out."
            )
        for parameter in self.parameters():
            parameter.requires_grad_(True)

    def replace_head(self, head: str | dict[str, Any] | None, layers: str | int | None) -> bool:
        """Gives the encoder another head, or other layers below it.

        Returns:
            Whether anything was replaced.

        Raises:
            UserError: the family has no heads to choose from.
        """
        raise without_heads(self.encoder_kind)

    @property
    def head_needs_training(self) -> bool:
        """Whether a new head must be trained before an embedding means something."""
        return True

    def enlarge_head(self, embedding_dim: int = 1024) -> None:
        """Gives the encoder a new, untrained head with more dimensions.

        Raises:
            UserError: the family's head cannot be enlarged.
        """
        raise UserError(
            f"enlarge_head has no meaning for the {self.encoder_kind} encoder: its embedding stays "
            f"{self.embedding_dim}-dimensional. Leave it out, or use a WavLM."
        )


def pretrained_has_its_own(name: str) -> UserError:
    """Gives the error for an ``encoder_config`` beside weights that bring theirs."""
    return UserError(
        "encoder_config is the architecture of an encoder with random weights; "
        f"{name!r} is pretrained and brings its own. Leave encoder_config out, or set "
        "pretrained to false."
    )


def without_heads(encoder_kind: str) -> UserError:
    """Gives the error for a head that is asked for where there is none to choose."""
    return UserError(
        f"head and layers have no meaning for the {encoder_kind} encoder: they are for the "
        "self-supervised encoders of transformers, such as 'wavlm-large'. Leave them out."
    )


def complete_encoder_config(
    encoder_kind: str, encoder_config: dict[str, Any], defaults: dict[str, Any]
) -> dict[str, Any]:
    """Fills an ``encoder_config`` up with its family's defaults, as ``complete_options``."""
    return complete_options(
        f"encoder_config of the {encoder_kind} encoder", encoder_config, defaults
    )


def complete_options(what: str, given: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Fills options up with their defaults.

    Args:
        what: Whose options they are, for an error.
        given: Some of the options.
        defaults: All of them.

    Returns:
        A new dict with the keys of ``defaults``, in their order.

    Raises:
        UserError: a key that is not in ``defaults``, a value of another type, or a whole number
            below 1.
    """
    for key, value in given.items():
        if key not in defaults:
            nearest = difflib.get_close_matches(key, defaults, n=1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            raise UserError(
                f"Unknown key {key!r} in {what}.{hint} Known: {', '.join(sorted(defaults))}."
            )
        wanted = type(defaults[key])
        is_number = wanted is float and type(value) is int
        if type(value) is not wanted and not is_number:
            raise UserError(f"Key {key!r} in {what} must be {wanted.__name__}, found {value!r}.")
        _refuse_small(f"Key {key!r} in {what}", value, defaults[key], int(key not in _MAY_BE_ZERO))
    return copy.deepcopy({**defaults, **given})


def _refuse_small(what: str, value: Any, default: Any, least: int) -> None:
    """Checks a whole number, or a list of them.

    Raises:
        UserError: one is below ``least``, or is none.
    """
    is_list = isinstance(default, list)
    if type(default[0] if is_list else default) is not int:
        return
    if any(type(number) is not int or number < least for number in (value if is_list else [value])):
        each = "whole numbers of " if is_list else ""
        raise UserError(f"{what} must be {each}at least {least}, found {value!r}.")
