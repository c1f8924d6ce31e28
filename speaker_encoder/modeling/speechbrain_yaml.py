"""Reads SpeechBrain's ``hyperparams.yaml`` of an ECAPA-TDNN as plain data; nothing of it runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from speaker_encoder.errors import UserError

NETWORK_CLASS = "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN"
FEATURE_CLASS = "speechbrain.lobes.features.Fbank"
NORMALIZATION_CLASS = "speechbrain.processing.features.InputNormalization"
KNOWN_CLASSES = frozenset(
    {
        NETWORK_CLASS,
        FEATURE_CLASS,
        NORMALIZATION_CLASS,
        "speechbrain.lobes.models.ECAPA_TDNN.Classifier",
        "speechbrain.dataio.encoder.CategoricalEncoder",
        "speechbrain.utils.parameter_transfer.Pretrainer",
    }
)
DEFAULT_WEIGHTS_NAME = "embedding_model.ckpt"

_NETWORK_ARGUMENTS = frozenset(
    {
        "input_size",
        "channels",
        "kernel_sizes",
        "dilations",
        "attention_channels",
        "lin_neurons",
        "res2net_scale",
        "se_channels",
        "global_context",
        "groups",
        "dropout",
    }
)
_FEATURE_ARGUMENTS = frozenset({"n_fft", "win_length", "hop_length", "f_min", "f_max"})
_IGNORED_FEATURE_ARGUMENTS = frozenset({"left_frames", "right_frames", "param_change_factor"})
_REFERENCE = re.compile(r"<([A-Za-z_]\w*)>")


@dataclass(frozen=True)
class Hyperparams:
    """What a ``hyperparams.yaml`` says of an ECAPA-TDNN.

    Attributes:
        encoder_config: Arguments of ``EcapaBackbone`` that the file gives.
        weights_name: File of the weights, in the same folder.
    """

    encoder_config: dict[str, Any]
    weights_name: str


@dataclass(frozen=True)
class _New:
    """A ``!new:`` node: a class that we know and its arguments."""

    class_name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class _Reference:
    """A ``!ref`` node."""

    text: str


class _PlainLoader(yaml.SafeLoader):
    """YAML's safe loader, with SpeechBrain's two data tags and no other."""


def _construct_new(loader: yaml.SafeLoader, class_name: str, node: yaml.Node) -> _New:
    if class_name not in KNOWN_CLASSES:
        raise UserError(
            f"it names the class {class_name!r}, which is not one of an ECAPA-TDNN: "
            f"{', '.join(sorted(KNOWN_CLASSES))}"
        )
    if isinstance(node, yaml.MappingNode):
        return _New(class_name, loader.construct_mapping(node, deep=True))
    if isinstance(node, yaml.ScalarNode) and node.value == "":
        return _New(class_name, {})
    raise UserError(f"the arguments of {class_name} have no names")


def _construct_reference(loader: yaml.SafeLoader, node: yaml.Node) -> _Reference:
    if not isinstance(node, yaml.ScalarNode):
        raise UserError("a !ref is not a plain text")
    return _Reference(str(loader.construct_scalar(node)))


def _refuse_tag(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> None:
    raise UserError(f"it has the tag {node.tag!r}, and only !new: of known classes and !ref are")


_PlainLoader.add_multi_constructor("!new:", _construct_new)
_PlainLoader.add_constructor("!ref", _construct_reference)
_PlainLoader.add_multi_constructor("!", _refuse_tag)
_PlainLoader.add_multi_constructor("tag:yaml.org,2002:python/", _refuse_tag)


def read_hyperparams(path: Path) -> Hyperparams:
    """Gives the architecture and the weights' file name of a SpeechBrain ECAPA-TDNN folder.

    ``pretrained_path`` is not followed: the weights are those beside the YAML.

    Raises:
        UserError: the file is no YAML, would run something, or is another model.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)
        return _interpret(values)
    except UserError as error:
        raise UserError(
            f"{path} is refused: {error}. It is read as plain data, nothing in it is executed. "
            "Take the file of an ECAPA-TDNN such as speechbrain/spkrec-ecapa-voxceleb."
        ) from error
    except (yaml.YAMLError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not readable YAML: {error}") from error


def _interpret(values: Any) -> Hyperparams:
    """Gives the hyperparameters of the parsed file."""
    if not isinstance(values, dict):
        raise UserError("it is not a mapping of names to values")
    network = _arguments(values, "embedding_model", NETWORK_CLASS)
    features = _arguments(values, "compute_features", FEATURE_CLASS)
    normalization = _arguments(values, "mean_var_norm", NORMALIZATION_CLASS)
    if normalization.get("norm_type", "global") != "sentence" or normalization.get(
        "std_norm", True
    ):
        raise UserError(
            "mean_var_norm must be norm_type: sentence, std_norm: False, found "
            f"{normalization}; other feature normalisations are not supported"
        )
    encoder_config = {
        name: value for name, value in network.items() if name not in ("device", "activation")
    }
    if "activation" in network:
        raise UserError("embedding_model has an activation of its own, which is not supported")
    _refuse_unknown(encoder_config, _NETWORK_ARGUMENTS, "embedding_model")
    encoder_config.update(_feature_config(features, encoder_config.get("input_size")))
    return Hyperparams(encoder_config, _weights_name(values))


def _feature_config(features: dict[str, Any], input_size: object) -> dict[str, Any]:
    """Gives the arguments of the log-mel, checked."""
    features = {k: v for k, v in features.items() if k not in _IGNORED_FEATURE_ARGUMENTS}
    fixed = {
        "deltas": False,
        "context": False,
        "requires_grad": False,
        "filter_shape": "triangular",
        "param_rand_factor": 0.0,
        "sample_rate": 16000,
    }
    for name, value in fixed.items():
        if features.pop(name, value) != value:
            raise UserError(f"compute_features with {name} other than {value} is not supported")
    num_mels = features.pop("n_mels", 40)
    if num_mels != input_size:
        raise UserError(
            f"compute_features gives {num_mels} mels, embedding_model takes {input_size}"
        )
    _refuse_unknown(features, _FEATURE_ARGUMENTS, "compute_features")
    floats = ("win_length", "hop_length", "f_min", "f_max")
    config = {name: value for name, value in features.items() if value is not None}
    return {k: float(v) if k in floats else v for k, v in config.items()}


def _refuse_unknown(arguments: dict[str, Any], known: frozenset[str], where: str) -> None:
    for name in arguments:
        if name not in known:
            raise UserError(f"{where} has the argument {name!r}, which is not supported")


def _arguments(values: dict[str, Any], key: str, class_name: str) -> dict[str, Any]:
    """Gives the resolved arguments of one of the objects in the file."""
    node = values.get(key)
    if not isinstance(node, _New) or node.class_name != class_name:
        found = node.class_name if isinstance(node, _New) else node
        raise UserError(f"{key} must be !new:{class_name}, found {found!r}")
    return {name: _resolve(value, values) for name, value in node.arguments.items()}


def _weights_name(values: dict[str, Any]) -> str:
    """Gives the file name of the embedding model's weights; its folder is not followed."""
    pretrainer = values.get("pretrainer")
    paths = pretrainer.arguments.get("paths") if isinstance(pretrainer, _New) else None
    path = paths.get("embedding_model") if isinstance(paths, dict) else None
    if path is None:
        return DEFAULT_WEIGHTS_NAME
    text = path.text if isinstance(path, _Reference) else path
    path = PurePosixPath(_REFERENCE.sub("_", str(text)))
    if ".." in path.parts:
        raise UserError(f"the path of embedding_model is {text!r}, which leads out of its folder")
    name = path.name
    if name in ("", "..", "_"):
        raise UserError(f"the path of embedding_model is {text!r}, which names no file")
    return name


def _resolve(value: Any, values: dict[str, Any], depth: int = 0) -> Any:
    """Replaces a ``!ref <name>`` by the value of that name; no other expression is computed."""
    if isinstance(value, list):
        return [_resolve(item, values, depth) for item in value]
    if not isinstance(value, _Reference):
        if isinstance(value, (bool, int, float, str, type(None))):
            return value
        raise UserError(f"{value!r} is not a plain value")
    match = _REFERENCE.fullmatch(value.text.strip())
    if match is None or match[1] not in values:
        raise UserError(f"the reference {value.text!r} is not that of a value in the file")
    if depth > len(values):
        raise UserError(f"the reference {value.text!r} leads back to itself")
    return _resolve(values[match[1]], values, depth + 1)
