"""Loads an ``encoder.pt`` of the exporter's predecessor: weights without a word on what they are.

Such a file is ``torch.save`` of a dict whose ``model_state`` holds SpeechBrain's ECAPA-TDNN or
transformers' WavLMForXVector somewhere below a prefix, beside the loss's two scalars. The
architecture is read off the shapes of the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.loading import random_config
from speaker_encoder.modeling.registry import NAMES
from speaker_encoder.modeling.weights import read_pickled_weights

if TYPE_CHECKING:
    from speaker_encoder.modeling.encoder import SpeakerEncoder

Weights = dict[str, torch.Tensor]

_LANDMARKS = {
    "ecapa": "blocks.0.conv.conv.weight",
    "wavlm": "wavlm.feature_projection.projection.weight",
}
"""Family -> a weight that only this family has, with the name it has in its own library."""


def load_original(path: str | Path, model_name: str) -> SpeakerEncoder:
    """Gives the encoder in a checkpoint of the original system.

    Args:
        path: The ``.pt`` or ``.bak`` file.
        model_name: What the user says it is: ``ecapa`` or a WavLM of ``NAMES``.

    Returns:
        The encoder in eval mode.

    Raises:
        UserError: the file is no such checkpoint, or holds another architecture than
            ``model_name``.
    """
    from speaker_encoder.modeling.encoder import SpeakerEncoder

    path = Path(path)
    content = read_pickled_weights(path)
    state = content.get("model_state")
    if not isinstance(state, dict):
        raise UserError(
            f"{path} is no checkpoint of the original system: wanted a dict with 'model_state', "
            f"found {', '.join(map(str, list(content)[:5])) or 'an empty dict'}."
        )
    found = [kind for kind, mark in _LANDMARKS.items() if any(k.endswith(mark) for k in state)]
    if not found:
        raise UserError(
            f"The weights in {path} are neither SpeechBrain's ECAPA-TDNN nor transformers' WavLM; "
            f"the first is {next(iter(state), None)!r}."
        )
    encoder_kind, weights = found[0], _strip_prefix(state, _LANDMARKS[found[0]])
    _check_family(path, model_name, encoder_kind)
    architecture = (_ecapa_config if encoder_kind == "ecapa" else _wavlm_config)(weights)
    _check_size(path, model_name, architecture)
    config = random_config(model_name, architecture)
    config.untrained_head = False
    config.base_model_name = model_name
    model = SpeakerEncoder(config)
    _fill(model, encoder_kind, weights, path)
    return model.eval()


def _strip_prefix(state: Weights, landmark: str) -> Weights:
    """Gives the weights below the encoder's prefix, with their names in their own library."""
    prefix = next(name for name in state if name.endswith(landmark)).removesuffix(landmark)
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }


def _check_family(path: Path, model_name: str, encoder_kind: str) -> None:
    wanted = NAMES[model_name].encoder_kind if model_name in NAMES else None
    if wanted != encoder_kind:
        raise UserError(
            f"--model_name {model_name!r} is of the family {wanted or 'unknown'!r}, but the "
            f"checkpoint {path} holds an encoder of the family {encoder_kind!r}. Give the model "
            f"name that it was trained with: one of "
            f"{', '.join(n for n, e in NAMES.items() if e.encoder_kind == encoder_kind)}."
        )


def _check_size(path: Path, model_name: str, architecture: dict[str, Any]) -> None:
    own = random_config(model_name, {}).encoder_config
    sizes = [
        f"{name} {architecture[name]} instead of {own.get(name, default)}"
        for name, default in (("hidden_size", 768), ("num_hidden_layers", 12))
        if name in architecture and architecture[name] != own.get(name, default)
    ]
    if sizes:
        raise UserError(
            f"The checkpoint {path} is no {model_name!r}: its weights have {', '.join(sizes)}. "
            "Give the model name that it was trained with."
        )


def _ecapa_config(weights: Weights) -> dict[str, Any]:
    """Reads SpeechBrain's arguments off the shapes."""
    first = weights[_LANDMARKS["ecapa"]]  # (C, F, K)
    num_blocks = 1 + sum(name.endswith(".tdnn1.conv.conv.weight") for name in weights)
    channels, kernels = [first.shape[0]], [first.shape[2]]
    for block in range(1, num_blocks):
        channels.append(weights[f"blocks.{block}.tdnn1.conv.conv.weight"].shape[0])
        res2net = weights[f"blocks.{block}.res2net_block.blocks.0.conv.conv.weight"]
        kernels.append(res2net.shape[2])
    mfa = weights["mfa.conv.conv.weight"]
    return {
        "input_size": first.shape[1],
        "channels": [*channels, mfa.shape[0]],
        "kernel_sizes": [*kernels, mfa.shape[2]],
        "attention_channels": weights["asp.tdnn.conv.conv.weight"].shape[0],
        "se_channels": weights["blocks.1.se_block.conv1.conv.weight"].shape[0],
        "lin_neurons": weights["fc.conv.weight"].shape[0],
    }


def _wavlm_config(weights: Weights) -> dict[str, Any]:
    """Reads transformers' arguments off the shapes."""
    num_layers = 1 + max(
        int(name.split(".")[3]) for name in weights if name.startswith("wavlm.encoder.layers.")
    )
    num_convolutions = 1 + max(
        int(name.split(".")[3])
        for name in weights
        if name.startswith("wavlm.feature_extractor.conv_layers.")
    )
    convolutions = [
        weights[f"wavlm.feature_extractor.conv_layers.{n}.conv.weight"]
        for n in range(num_convolutions)
    ]
    position = next(
        value
        for name, value in weights.items()
        if name.startswith("wavlm.encoder.pos_conv_embed.conv.")
        and name.endswith(("original1", "weight_v"))
    )  # (C, C / groups, K)
    has_layer_norm = "wavlm.feature_extractor.conv_layers.1.layer_norm.weight" in weights
    num_tdnn = sum(name.startswith("tdnn.") and name.endswith("kernel.weight") for name in weights)
    layer = "wavlm.encoder.layers.0"
    return {
        "hidden_size": position.shape[0],
        "num_hidden_layers": num_layers,
        "num_attention_heads": weights[f"{layer}.attention.rel_attn_embed.weight"].shape[1],
        "intermediate_size": weights[f"{layer}.feed_forward.intermediate_dense.weight"].shape[0],
        "conv_dim": [weight.shape[0] for weight in convolutions],
        "num_conv_pos_embeddings": position.shape[2],
        "num_conv_pos_embedding_groups": position.shape[0] // position.shape[1],
        "feat_extract_norm": "layer" if has_layer_norm else "group",
        "do_stable_layer_norm": has_layer_norm,
        "conv_bias": "wavlm.feature_extractor.conv_layers.0.conv.bias" in weights,
        "use_weighted_layer_sum": "layer_weights" in weights,
        "tdnn_dim": [weights[f"tdnn.{n}.kernel.weight"].shape[0] for n in range(num_tdnn)],
        "xvector_output_dim": weights["feature_extractor.weight"].shape[0],
    }


def _fill(model: SpeakerEncoder, encoder_kind: str, weights: Weights, path: Path) -> None:
    """Copies the weights into the model; all of the model's must be there.

    Raises:
        UserError: some are missing or have another shape.
    """
    own = model.backbone.state_dict()
    if encoder_kind == "ecapa":
        read = {f"network.{name}": value for name, value in weights.items()}
        read.update({name: value for name, value in own.items() if name.startswith("log_mel.")})
    else:
        read = {_new_spelling(name): value.float() for name, value in weights.items()}
        # A vector of SpecAugment, which no embedding depends on.
        name = "wavlm.masked_spec_embed"
        if name in own:
            read.setdefault(name, own[name])
    wrong = [name for name in own if name not in read or read[name].shape != own[name].shape]
    if wrong:
        raise UserError(
            f"The checkpoint {path} is incomplete or of an unknown architecture: "
            f"{', '.join(wrong[:3])} cannot be filled. Copy it again."
        )
    model.backbone.load_state_dict({name: read[name] for name in own})


def _new_spelling(name: str) -> str:
    """Gives a weight-normed parameter the name that torch's parametrizations give it."""
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        if name.endswith(f".{old}"):
            return f"{name.removesuffix(old)}parametrizations.weight.{new}"
    return name
