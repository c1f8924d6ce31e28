"""Reads SpeechBrain's ``hyperparams.yaml`` of a speaker encoder as plain data; nothing runs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.safe_config import refuse_giants
from speaker_encoder.modeling.speechbrain_networks import NETWORKS, Network

FEATURE_CLASS = "speechbrain.lobes.features.Fbank"
NORMALIZATION_CLASS = "speechbrain.processing.features.InputNormalization"
DEFAULT_WEIGHTS_NAME = "embedding_model.ckpt"
KNOWN_CLASSES = frozenset(
    {
        *(network.class_name for network in NETWORKS.values()),
        FEATURE_CLASS,
        NORMALIZATION_CLASS,
        "speechbrain.lobes.models.ECAPA_TDNN.Classifier",
        "speechbrain.lobes.models.Xvector.Classifier",
        "speechbrain.lobes.models.ResNet.Classifier",
        "speechbrain.dataio.encoder.CategoricalEncoder",
        "speechbrain.utils.parameter_transfer.Pretrainer",
    }
)
KNOWN_NAMES = frozenset(network.activation for network in NETWORKS.values())

_FEATURE_ARGUMENTS = frozenset({"n_fft", "win_length", "hop_length", "f_min", "f_max"})
_IGNORED_FEATURE_ARGUMENTS = frozenset({"left_frames", "right_frames", "param_change_factor"})
_REFERENCE = re.compile(r"<([A-Za-z_]\w*)>")


@dataclass(frozen=True)
class Hyperparams:
    """What a ``hyperparams.yaml`` says of a speaker encoder.

    Attributes:
        encoder_config: Arguments of the network and of its features that the file gives.
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
class _Name:
    """A ``!name:`` node without arguments: the name of an activation that we know."""

    name: str


@dataclass(frozen=True)
class _Reference:
    """A ``!ref`` node."""

    text: str


class _PlainLoader(yaml.SafeLoader):
    """YAML's safe loader, with three of SpeechBrain's tags, read as data, and no other."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuses aliases: some hundred bytes with them unfold to terabytes."""
        if self.check_event(yaml.AliasEvent):
            raise UserError("it has an alias (*name)")
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


def _construct_new(loader: yaml.SafeLoader, class_name: str, node: yaml.Node) -> _New:
    if class_name not in KNOWN_CLASSES:
        raise UserError(
            f"it names the class {class_name!r}, which is not one of a speaker encoder: "
            f"{', '.join(sorted(KNOWN_CLASSES))}"
        )
    if isinstance(node, yaml.MappingNode):
        return _New(class_name, loader.construct_mapping(node, deep=True))
    if isinstance(node, yaml.ScalarNode) and node.value == "":
        return _New(class_name, {})
    raise UserError(f"the arguments of {class_name} have no names")


def _construct_name(loader: yaml.SafeLoader, name: str, node: yaml.Node) -> _Name:
    if name not in KNOWN_NAMES or not isinstance(node, yaml.ScalarNode) or node.value != "":
        raise UserError(
            f"it has {node.tag!r}, and only !name: of {', '.join(sorted(KNOWN_NAMES))} without "
            "arguments is known"
        )
    return _Name(name)


def _construct_reference(loader: yaml.SafeLoader, node: yaml.Node) -> _Reference:
    if not isinstance(node, yaml.ScalarNode):
        raise UserError("a !ref is not a plain text")
    return _Reference(str(loader.construct_scalar(node)))


def _refuse_tag(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> None:
    raise UserError(
        f"it has the tag {node.tag!r}, and only !new: and !name: of known classes and !ref are"
    )


_PlainLoader.add_multi_constructor("!new:", _construct_new)
_PlainLoader.add_multi_constructor("!name:", _construct_name)
_PlainLoader.add_constructor("!ref", _construct_reference)
_PlainLoader.add_multi_constructor("!", _refuse_tag)
_PlainLoader.add_multi_constructor("tag:yaml.org,2002:python/", _refuse_tag)


def read_hyperparams(path: Path, encoder_kind: str, known_arguments: Iterable[str]) -> Hyperparams:
    """Gives the architecture and the weights' file name of a SpeechBrain folder.

    ``pretrained_path`` is not followed: the weights are those beside the YAML.

    Args:
        path: The file.
        encoder_kind: The family that it must be of, a key of ``NETWORKS``.
        known_arguments: Arguments of the network that may stand in ``encoder_config``.

    Raises:
        UserError: the file is no YAML, would run something, or is another model.
    """
    network = NETWORKS[encoder_kind]
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)
        return _interpret(values, network, frozenset(known_arguments))
    except UserError as error:
        raise UserError(
            f"{path} is refused: {error}. It is read as plain data, nothing in it is executed. "
            f"Take the file of a model such as {network.example}."
        ) from error
    except (yaml.YAMLError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not readable YAML: {error}") from error


def _interpret(values: Any, known: Network, known_arguments: frozenset[str]) -> Hyperparams:
    """Gives the hyperparameters of the parsed file."""
    if not isinstance(values, dict):
        raise UserError("it is not a mapping of names to values")
    network = _arguments(values, "embedding_model", known.class_name)
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
    if network.get("activation", known.activation) != known.activation:
        raise UserError(
            f"embedding_model must have the activation {known.activation}, found "
            f"{network['activation']}"
        )
    _refuse_unknown(encoder_config, known_arguments, "embedding_model")
    num_mels = encoder_config.get(known.num_mels_argument)
    encoder_config.update(_feature_config(features, num_mels))
    refuse_giants(encoder_config, "embedding_model and compute_features")
    return Hyperparams(encoder_config, _weights_name(values))


def _feature_config(features: dict[str, Any], wanted_mels: object) -> dict[str, Any]:
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
    if num_mels != wanted_mels:
        raise UserError(
            f"compute_features gives {num_mels} mels, embedding_model takes {wanted_mels}"
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
        items = [_resolve(item, values, depth) for item in value]
        if any(isinstance(item, list) for item in items):  # it would unfold to terabytes
            raise UserError("it has a list in a list")
        return items
    if isinstance(value, _Name):
        return value.name
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
