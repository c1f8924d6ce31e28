"""Refuses what a ``config.json`` must not hold: settings that run code, or that nobody knows."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.configuration import SpeakerEncoderConfig

EXECUTABLE_KEYS = frozenset(
    {
        "auto_map",
        "custom_pipelines",
        "quantization_config",
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_internal",
        "experts_implementation",
        "_experts_implementation",
        "use_kernels",
        "kernel_config",
    }
)
"""Settings of transformers that name code to be fetched or run, or another way to load."""
_OF_TRANSFORMERS = frozenset(
    {
        "model_type",
        "torch_dtype",
        "output_attentions",
        "tie_word_embeddings",
        "use_cache",
        "_name_or_path",
    }
)
"""Settings that transformers itself adds to what it saves, its Trainer among them."""


def refuse_unsafe_config(config: dict[str, Any], path: Path) -> None:
    """Checks a ``config.json`` before anything of it is used.

    Args:
        config: what it holds.
        path: of it, for the error.

    Raises:
        UserError: it holds a setting that could run code; or, one of our own, an unknown one.
    """
    executable = sorted(EXECUTABLE_KEYS.intersection(config))
    if executable:
        raise UserError(
            f"{path} is refused: it has the setting {executable[0]!r}, which makes a loader fetch "
            "or run code. A speaker encoder needs none. Nothing of it was loaded."
        )
    if config.get("model_type") != SpeakerEncoderConfig.model_type:
        return
    known = {field.name for field in dataclasses.fields(SpeakerEncoderConfig)} | _OF_TRANSFORMERS
    unknown = sorted(set(config) - known)
    if unknown:
        raise UserError(
            f"{path} is refused: it has the unknown setting {unknown[0]!r}. Nothing of it was "
            "loaded. A newer speaker-encoder may know it; update the package, or take the "
            "repository from another publisher."
        )


def refuse_outside_shards(folder: Path) -> None:
    """Checks that an index of weights names files of its own folder only.

    Raises:
        UserError: a name leads elsewhere, or the index is damaged.
    """
    path = folder / "model.safetensors.index.json"
    if not path.is_file():
        return
    try:
        names = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
        outside = sorted(name for name in names if Path(name).name != name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: {error}. Copy the folder again.") from error
    if outside:
        raise UserError(
            f"{path} is refused: it names the file {outside[0]!r}, which leads out of its folder. "
            "Nothing of it was loaded."
        )
