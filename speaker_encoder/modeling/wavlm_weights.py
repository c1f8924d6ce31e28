"""Reads a WavLM folder of transformers: its configuration and weights, as plain data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import WavLMConfig, WavLMForXVector

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.backbone import PretrainedParts, complete_encoder_config
from speaker_encoder.modeling.weights import read_pickled_weights

SAMPLING_RATE = 16000
HEAD_PREFIXES = ("projector.", "tdnn.", "feature_extractor.", "layer_weights")
"""The x-vector head, as ``WavLMForXVector`` and our backbone name it."""

KEYS_WITHOUT_EFFECT = frozenset(
    {
        *("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "final_dropout"),
        *("ctc_loss_reduction", "ctc_zero_infinity", "num_ctc_classes", "classifier_proj_size"),
        *("num_codevectors_per_group", "num_codevector_groups", "num_negatives"),
        *("codevector_dim", "proj_codevector_dim"),
        *("contrastive_logits_temperature", "diversity_loss_weight"),
        *("add_adapter", "adapter_kernel_size", "adapter_stride", "num_adapter_layers"),
        *("output_hidden_size", "num_feat_extract_layers"),
    }
)
"""Arguments of ``WavLMConfig`` for other heads; accepted, and left out of the completed config."""

KEYS = tuple(name for name in WavLMConfig.__annotations__ if name not in KEYS_WITHOUT_EFFECT)
"""Arguments of ``WavLMConfig`` that an x-vector encoder reads."""


def complete_wavlm_config(encoder_config: dict[str, Any]) -> dict[str, Any]:
    """Fills arguments of ``WavLMConfig`` up with its defaults.

    Returns:
        Plain JSON data with the keys of ``KEYS`` and ``mask_feature_min_masks``, which
        transformers' model reads and its v5 config lacks.

    Raises:
        UserError: an unknown key, a wrong type, or parts that are not built here.
    """
    if encoder_config.get("add_adapter"):
        raise UserError(
            "This WavLM has an adapter behind its transformer (add_adapter), which a speaker "
            "encoder does not have. Take a WavLM without one."
        )
    defaults = WavLMConfig()
    known = {name: _plain(getattr(defaults, name)) for name in KEYS}
    known["mask_feature_min_masks"] = 0
    given = {
        name: _plain(value)
        for name, value in encoder_config.items()
        if name not in KEYS_WITHOUT_EFFECT
    }
    completed = complete_encoder_config("wavlm", given, known)
    _check_lists(completed)
    return completed


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _check_lists(config: dict[str, Any]) -> None:
    """Checks that the lists of a block have one value for each layer.

    Raises:
        UserError: they do not.
    """
    for block in (
        ("conv_dim", "conv_kernel", "conv_stride"),
        ("tdnn_dim", "tdnn_kernel", "tdnn_dilation"),
    ):
        if len({len(config[name]) for name in block}) > 1 or not config[block[0]]:
            found = ", ".join(f"{name} {config[name]}" for name in block)
            raise UserError(
                "encoder_config of the wavlm encoder: "
                f"{', '.join(block)} must have one value for each layer, found {found}."
            )


def build_upstream(encoder_config: dict[str, Any]) -> WavLMForXVector:
    """Builds transformers' model with random weights, initialised as transformers does it.

    Raises:
        UserError: values that do not fit each other.
    """
    from huggingface_hub.errors import StrictDataclassError

    try:
        return WavLMForXVector(WavLMConfig(**encoder_config))
    except (ValueError, KeyError, RuntimeError, StrictDataclassError) as error:
        raise UserError(
            f"encoder_config of the wavlm encoder cannot be built: {error}. Change it as the text "
            "says; the names are those of transformers' WavLMConfig."
        ) from error


def is_wavlm_folder(folder: Path) -> bool:
    """Says if a folder's ``config.json`` is that of a WavLM."""
    path = folder / "config.json"
    return path.is_file() and _read_json(path).get("model_type") == WavLMConfig.model_type


def feature_settings(encoder_config: dict[str, Any], folder: Path | None = None) -> dict[str, Any]:
    """Gives how a waveform is prepared.

    Args:
        encoder_config: Completed arguments.
        folder: Where ``preprocessor_config.json`` may lie. Without one: the published models with
            layer norm in their convolutions take normalised waveforms, those with group norm not.

    Raises:
        UserError: the file is damaged, or for another sampling rate.
    """
    path = None if folder is None else folder / "preprocessor_config.json"
    if path is None or not path.is_file():
        return {"do_normalize": encoder_config["feat_extract_norm"] == "layer"}
    settings = _read_json(path)
    sampling_rate = settings.get("sampling_rate", SAMPLING_RATE)
    if sampling_rate != SAMPLING_RATE:
        raise UserError(
            f"{path} is for {sampling_rate} Hz; a WavLM speaker encoder takes {SAMPLING_RATE} Hz. "
            f"Take a model for {SAMPLING_RATE} Hz."
        )
    # Upstream's default where the key is left out.
    return {"do_normalize": bool(settings.get("do_normalize", True))}


def read_wavlm_folder(folder: Path) -> PretrainedParts:
    """Reads a folder that transformers wrote, for ``WavLMForXVector`` or a WavLM without that head.

    Returns:
        Plain data; without a trained x-vector head its names are in ``untrained_prefixes``.

    Raises:
        UserError: a file is missing or damaged.
    """
    published = _read_json(folder / "config.json")
    wanted = {*KEYS, "add_adapter", "mask_feature_min_masks"}
    # Any other key of a config.json belongs to transformers, as upstream's loader treats it.
    encoder_config = complete_wavlm_config(
        {name: value for name, value in published.items() if name in wanted}
    )
    weights = {_new_spelling(name): value for name, value in read_weights(folder).items()}
    has_head = "tdnn.0.kernel.weight" in weights and "feature_extractor.weight" in weights
    prefix = "wavlm." if any(name.startswith("wavlm.") for name in weights) else ""
    if not encoder_config["use_weighted_layer_sum"]:
        weights.pop("layer_weights", None)
    state_dict = {}
    for name, tensor in weights.items():
        if has_head and name.startswith(HEAD_PREFIXES) and not name.startswith("wavlm."):
            state_dict[name] = tensor.float()
        elif name.startswith(prefix or ("feature_", "encoder.", "masked_spec_embed")):
            state_dict[f"wavlm.{name.removeprefix(prefix)}"] = tensor.float()
    _fit_mask_embedding(state_dict, encoder_config)
    return PretrainedParts(
        encoder_config=encoder_config,
        state_dict=state_dict,
        untrained_prefixes=() if has_head else HEAD_PREFIXES,
        feature_settings=feature_settings(encoder_config, folder),
    )


def _new_spelling(name: str) -> str:
    """Gives a weight-normed parameter the name that torch's parametrizations give it."""
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        if name.endswith(f".{old}"):
            return f"{name.removesuffix(old)}parametrizations.weight.{new}"
    return name


def _fit_mask_embedding(state_dict: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    """Adds or drops SpecAugment's vector, which a model has only when it masks in training.

    One that the folder lacks is drawn as upstream draws it; no embedding depends on it.
    """
    name = "wavlm.masked_spec_embed"
    if config["mask_time_prob"] > 0 or config["mask_feature_prob"] > 0:
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
