"""Reads a folder of a speech encoder of transformers: its configuration and weights, as data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.backbone import PretrainedParts
from speaker_encoder.modeling.ssl_config import ADAPTERS, Upstream, complete_ssl_config
from speaker_encoder.modeling.weights import read_pickled_weights

SAMPLING_RATE = 16000
HEAD_PREFIXES = ("projector.", "tdnn.", "feature_extractor.", "layer_weights", "head.")
"""What lies above the upstream encoder; the x-vector head's names are those of transformers."""


def is_upstream_folder(upstream: Upstream, folder: Path) -> bool:
    """Says if a folder's ``config.json`` is that of the family."""
    path = folder / "config.json"
    model_type = _read_json(path).get("model_type") if path.is_file() else None
    return model_type is not None and model_type == upstream.config_class.model_type


def preprocessor_settings(folder: Path) -> dict[str, Any] | None:
    """Reads ``preprocessor_config.json``; None: there is none.

    Raises:
        UserError: the file is damaged, or for another sampling rate.
    """
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return None
    settings = _read_json(path)
    sampling_rate = settings.get("sampling_rate", SAMPLING_RATE)
    if sampling_rate != SAMPLING_RATE:
        raise UserError(
            f"{path} is for {sampling_rate} Hz; a speech encoder here takes {SAMPLING_RATE} Hz. "
            f"Take a model for {SAMPLING_RATE} Hz."
        )
    return settings


def read_upstream_folder(upstream: Upstream, folder: Path) -> PretrainedParts:
    """Reads a folder that transformers wrote, for ``<stem>ForXVector`` or another of its models.

    Returns:
        Plain data; without a trained x-vector head its names are in ``untrained_prefixes``.

    Raises:
        UserError: a file is missing or damaged.
    """
    published = _read_json(folder / "config.json")
    wanted = {*upstream.defaults(), *ADAPTERS}
    # Any other key of a config.json belongs to transformers, as upstream's loader treats it.
    encoder_config = complete_ssl_config(
        upstream, {name: value for name, value in published.items() if name in wanted}
    )
    weights = {_new_spelling(name): value for name, value in read_weights(folder).items()}
    has_head = "tdnn.0.kernel.weight" in weights and "feature_extractor.weight" in weights
    own = f"{upstream.prefix}."
    prefix = own if any(name.startswith(own) for name in weights) else ""
    if not encoder_config["use_weighted_layer_sum"]:
        weights.pop("layer_weights", None)
    state_dict = {}
    for name, tensor in weights.items():
        if has_head and name.startswith(HEAD_PREFIXES) and not name.startswith(own):
            state_dict[name] = tensor.float()
        elif name.startswith(prefix or ("feature_", "encoder.", "masked_spec_embed")):
            state_dict[f"{own}{name.removeprefix(prefix)}"] = tensor.float()
    _fit_mask_embedding(f"{own}masked_spec_embed", state_dict, encoder_config)
    return PretrainedParts(
        encoder_config=encoder_config,
        state_dict=state_dict,
        untrained_prefixes=() if has_head else HEAD_PREFIXES,
    )


def _new_spelling(name: str) -> str:
    """Gives a parameter the name that it has in today's modules.

    A weight-normed one is named by torch's parametrizations; a whole Whisper has its parts in
    ``model``.
    """
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        if name.endswith(f".{old}"):
            name = f"{name.removesuffix(old)}parametrizations.weight.{new}"
    return name.removeprefix("model.")


def _fit_mask_embedding(
    name: str, state_dict: dict[str, torch.Tensor], config: dict[str, Any]
) -> None:
    """Adds or drops SpecAugment's vector, which a model has only when it masks in training.

    One that the folder lacks is drawn as upstream draws it; no embedding depends on it.
    """
    if config.get("mask_time_prob", 0) > 0 or config.get("mask_feature_prob", 0) > 0:
        generator = torch.Generator().manual_seed(0)
        state_dict.setdefault(name, torch.rand(config["hidden_size"], generator=generator))
    else:
        state_dict.pop(name, None)


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Reads ``model.safetensors`` or else ``pytorch_model.bin``, whole or in shards.

    Raises:
        UserError: there are none, or a file is damaged or holds more than tensors.
    """
    for stem, suffix in (("model", ".safetensors"), ("pytorch_model", ".bin")):
        paths = [folder / f"{stem}{suffix}"]
        index_path = folder / f"{stem}{suffix}.index.json"
        if not paths[0].is_file() and index_path.is_file():
            shards = _read_json(index_path).get("weight_map", {}).values()
            paths = [folder / Path(str(name)).name for name in sorted(set(shards))]
        if index_path.is_file() or paths[0].is_file():
            return {name: value for path in paths for name, value in _read_shard(path).items()}
    raise UserError(
        f"{folder} has no weights: neither model.safetensors nor pytorch_model.bin is there. Copy "
        "the folder again."
    )


def _read_shard(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == ".bin":
        return read_pickled_weights(path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}. Copy it again.") from error


def _read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        UserError: the file is absent or is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}. Copy it again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object. Copy it again.")
    return content
