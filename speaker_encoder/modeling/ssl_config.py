"""The configuration of a speech encoder of transformers, with a head and a choice of layers."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.backbone import complete_encoder_config
from speaker_encoder.modeling.ssl_heads import XVECTOR, complete_head, num_mixes_of

WITHOUT_EFFECT = frozenset(
    {
        *("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "final_dropout"),
        *("ctc_loss_reduction", "ctc_zero_infinity", "num_ctc_classes", "classifier_proj_size"),
        *("num_codevectors_per_group", "num_codevector_groups", "num_negatives", "num_clusters"),
        *("codevector_dim", "proj_codevector_dim", "feat_quantizer_dropout", "adapter_act"),
        *("contrastive_logits_temperature", "diversity_loss_weight", "adapter_attn_dim"),
        *("add_adapter", "adapter_kernel_size", "adapter_stride", "num_adapter_layers"),
        *("output_hidden_size", "num_feat_extract_layers", "use_intermediate_ffn_before_adapter"),
    }
)
"""Arguments of transformers' configs for other heads; accepted, and left out of the completed."""

ADAPTERS = ("add_adapter", "adapter_attn_dim", "use_intermediate_ffn_before_adapter")
"""Arguments that add parts which are not built here."""

COMMON: dict[str, Any] = {
    "use_weighted_layer_sum": False,
    "tdnn_dim": [512, 512, 512, 512, 1500],
    "tdnn_kernel": [5, 3, 3, 1, 1],
    "tdnn_dilation": [1, 2, 3, 1, 1],
    "xvector_output_dim": 512,
}
"""What every family has here, also where the config of transformers' class lacks it."""

_OWN = ("head", "layers")
"""What a config of transformers does not have."""

SPEC_AUGMENT: dict[str, Any] = {"apply_spec_augment": True, "mask_feature_min_masks": 0}
"""What transformers' models read, and some of their v5 configs lack."""


@dataclass(frozen=True)
class Upstream:
    """What transformers calls the parts of one family.

    Attributes:
        encoder_kind: The family's name here.
        stem: Its classes are ``<stem>Config``, ``<stem>Model``, ``<stem>ForXVector``.
        prefix: The encoder's name in a model with a head.
        part: How the name of the class of the encoder alone ends.
        keys: Arguments of the config that the encoder reads; empty: all but ``WITHOUT_EFFECT``.
        own_names: Common name of an argument -> its name in this family.
    """

    encoder_kind: str
    stem: str
    prefix: str
    part: str = "Model"
    keys: tuple[str, ...] = ()
    own_names: dict[str, str] = field(default_factory=dict)

    @property
    def config_class(self) -> Any:
        """The config of transformers."""
        import transformers

        return getattr(transformers, f"{self.stem}Config")

    def name(self, common: str) -> str:
        """Gives the family's own name of an argument."""
        return self.own_names.get(common, common)

    def defaults(self) -> dict[str, Any]:
        """Gives the arguments that an encoder here has, with their defaults."""
        arguments = self.config_class.__annotations__
        keys = self.keys or [name for name in arguments if name not in WITHOUT_EFFECT]
        config = self.config_class()
        known = {name: _plain(getattr(config, name)) for name in keys}
        extra = COMMON if self.keys else {**COMMON, **SPEC_AUGMENT}
        return {**known, **{name: known.get(name, value) for name, value in extra.items()}}


def complete_ssl_config(upstream: Upstream, encoder_config: dict[str, Any]) -> dict[str, Any]:
    """Fills arguments of transformers' config up, and those of the head.

    Args:
        upstream: The family.
        encoder_config: Arguments of its config, ``head`` and ``layers``.

    Returns:
        Plain JSON data; ``head`` with all its options, ``layers`` "last", "weighted_sum" or the
        number of a layer, and ``use_weighted_layer_sum``, upstream's word for the second.

    Raises:
        UserError: an unknown key, a wrong type, or parts that are not built here.
    """
    kind = upstream.encoder_kind
    adapters = [name for name in ADAPTERS if encoder_config.get(name)]
    if adapters:
        raise UserError(
            f"This {kind} encoder has an adapter in or behind its transformer ({adapters[0]}), "
            "which a speaker encoder does not have. Take a model without one."
        )
    known = upstream.defaults()
    dropped = {*WITHOUT_EFFECT, *upstream.config_class.__annotations__} - {*known}
    given = {name: _plain(value) for name, value in encoder_config.items() if name not in dropped}
    head = complete_head(given.pop("head", XVECTOR))
    layers = given.pop("layers", None)
    completed = complete_encoder_config(kind, given, known)
    _check_lists(kind, completed)
    if layers is None:
        is_sum = completed["use_weighted_layer_sum"] or num_mixes_of(head) > 1
        layers = "weighted_sum" if is_sum else "last"
    _check_layers(layers, head, completed[upstream.name("num_hidden_layers")])
    if given.get("use_weighted_layer_sum", layers == "weighted_sum") != (layers == "weighted_sum"):
        raise UserError(
            f"layers is {layers!r} and use_weighted_layer_sum {given['use_weighted_layer_sum']}, "
            "which contradict each other. Leave use_weighted_layer_sum out."
        )
    return {
        **completed,
        "use_weighted_layer_sum": layers == "weighted_sum",
        "head": head,
        "layers": layers,
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _check_layers(layers: object, head: dict[str, Any], num_layers: int) -> None:
    """Checks which layers a head takes its frames from.

    Raises:
        UserError: there are no such layers, or the head cannot take them.
    """
    is_index = type(layers) is int and 0 <= layers <= num_layers
    if not is_index and layers not in ("last", "weighted_sum"):
        raise UserError(
            f'layers must be "last", "weighted_sum", or a whole number from 0, what goes into the '
            f"first layer, to {num_layers}, what the last one gives; found {layers!r}."
        )
    if num_mixes_of(head) > 1 and layers != "weighted_sum":
        raise UserError(
            f"The {head['name']} head weighs all layers itself: leave layers out, or set it to "
            f'"weighted_sum"; found {layers!r}.'
        )


def _check_lists(kind: str, config: dict[str, Any]) -> None:
    """Checks that the lists of a block have one value for each layer.

    Raises:
        UserError: they do not.
    """
    for block in (
        ("conv_dim", "conv_kernel", "conv_stride"),
        ("tdnn_dim", "tdnn_kernel", "tdnn_dilation"),
    ):
        if block[0] not in config:
            continue
        if len({len(config[name]) for name in block}) > 1 or not config[block[0]]:
            found = ", ".join(f"{name} {config[name]}" for name in block)
            raise UserError(
                f"encoder_config of the {kind} encoder: "
                f"{', '.join(block)} must have one value for each layer, found {found}."
            )


def build_upstream(
    upstream: Upstream, encoder_config: dict[str, Any], part: str | None = None
) -> Any:
    """Builds a model of transformers with random weights, initialised as transformers does it.

    Args:
        upstream: The family.
        encoder_config: Completed arguments.
        part: How the class ends, "ForXVector" for one; None: the encoder alone.

    Raises:
        UserError: values that do not fit each other.
    """
    from huggingface_hub.errors import StrictDataclassError

    config_class = upstream.config_class
    module = config_class.__module__.replace(".configuration_", ".modeling_")
    name = f"{upstream.stem}{part or upstream.part}"
    model_class = getattr(importlib.import_module(module), name)
    arguments = {name: encoder_config[name] for name in encoder_config if name not in _OWN}
    if type(encoder_config["layers"]) is int:
        arguments[upstream.name("num_hidden_layers")] = encoder_config["layers"]
    try:
        return model_class(config_class(**arguments))
    except (ValueError, KeyError, RuntimeError, StrictDataclassError) as error:
        raise UserError(
            f"encoder_config of the {upstream.encoder_kind} encoder cannot be built: {error}. "
            f"Change it as the text says; the names are those of transformers' "
            f"{upstream.stem}Config."
        ) from error
