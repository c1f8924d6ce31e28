"""Losses over speaker embeddings: (embeddings (B, D), labels (B,)) -> scalar, no model inside.

A new loss is one file here and one line in `LOSSES`. Where what it does depends on how far the
training is, it has `set_step(step)`, which the trainer calls before each batch; where it has no
meaning on validation batches, it has `only_for_training = True`.
"""

import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from speaker_encoder.errors import UserError

if TYPE_CHECKING:
    from torch import nn

LOSSES: dict[str, str] = {
    "ge2e": "speaker_encoder.losses.ge2e:GE2ELoss",
    "softmax": "speaker_encoder.losses.softmax:SoftmaxLoss",
    "am_softmax": "speaker_encoder.losses.am_softmax:AMSoftmaxLoss",
    "aam_softmax": "speaker_encoder.losses.aam_softmax:AAMSoftmaxLoss",
    "prototypical": "speaker_encoder.losses.prototypical:PrototypicalLoss",
    "angular_prototypical": "speaker_encoder.losses.angular_prototypical:AngularPrototypicalLoss",
    "softmax_prototypical": "speaker_encoder.losses.softmax_prototypical:SoftmaxPrototypicalLoss",
    "triplet": "speaker_encoder.losses.triplet:TripletLoss",
    "sup_con": "speaker_encoder.losses.sup_con:SupConLoss",
    "nt_xent": "speaker_encoder.losses.nt_xent:NTXentLoss",
}
"""Name of a loss in the config -> `module:Class`, imported when it is built."""

SIZE_ARGUMENTS = ("embedding_dim", "num_speakers")

_TYPES: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
}

ChosenLoss = Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""A loss as a config names it: {"name": ..., options}, or a list of such with a "weight" each."""

__all__ = [
    "LOSSES",
    "ChosenLoss",
    "build_chosen_loss",
    "build_loss",
    "is_only_for_training",
    "loss_options",
    "loss_title",
]


def build_loss(
    name: str, embedding_dim: int, num_speakers: int | None = None, **options: Any
) -> "nn.Module":
    """A loss module by its name in the config.

    Args:
        name: a key of `LOSSES`.
        embedding_dim: D of the embeddings that the loss will see.
        num_speakers: number of training speakers; only classification losses need it.
        options: the loss's own options, such as `variant="contrast"` of GE2E.

    Returns:
        A module: `loss(embeddings (B, D), labels (B,))` -> scalar.

    Raises:
        UserError: unknown name or option, a value of another type than the option's default, an
            impossible value, or no `num_speakers` for a loss that needs it.
    """
    loss_class = _load(name)
    known = loss_options(name)
    for option in options:
        if option not in known:
            raise UserError(_unknown(f"option of the loss {name!r}", option, known))
        _check_type(name, option, options[option], known[option])
    parameters = inspect.signature(loss_class).parameters
    sizes = {"embedding_dim": embedding_dim, "num_speakers": num_speakers}
    wanted = {key: value for key, value in sizes.items() if key in parameters}
    if "num_speakers" in wanted and num_speakers is None:
        raise UserError(
            f"The loss {name!r} needs num_speakers, the number of training speakers; found none."
        )
    return loss_class(**wanted, **options)


def build_chosen_loss(
    choice: ChosenLoss, embedding_dim: int, num_speakers: int | None = None
) -> "nn.Module":
    """The loss, or the weighted sum of losses, that a config names.

    Args:
        choice: {"name": ..., options}, or a list of such, each with its "weight" (1 if left out).
        embedding_dim: as in `build_loss`.
        num_speakers: as in `build_loss`.

    Returns:
        A module: `loss(embeddings (B, D), labels (B,))` -> scalar.

    Raises:
        UserError: as in `build_loss`.
    """
    if isinstance(choice, Mapping):
        return build_loss(embedding_dim=embedding_dim, num_speakers=num_speakers, **choice)
    from speaker_encoder.losses.weighted_sum import WeightedSum

    parts = [dict(part) for part in choice]
    weights = [part.pop("weight", 1.0) for part in parts]
    return WeightedSum(
        (build_chosen_loss(part, embedding_dim, num_speakers) for part in parts), weights
    )


def loss_title(choice: ChosenLoss) -> str:
    """The name of a loss, or the weighted sum of names, for people to read."""
    if isinstance(choice, Mapping):
        return str(choice["name"])
    weighted = ((part.get("weight", 1.0), part["name"]) for part in choice)
    return " + ".join(name if weight == 1 else f"{weight:g} {name}" for weight, name in weighted)


def is_only_for_training(loss: "nn.Module") -> bool:
    """Has the loss no meaning on P x K batches of speakers that were not trained on.

    So it is when it, or a part of it, has `only_for_training`: it knows the training speakers, or
    needs views of single utterances.
    """
    return any(getattr(module, "only_for_training", False) for module in loss.modules())


def loss_options(name: str) -> dict[str, Any]:
    """The options of a loss and their defaults, for configs and their schema.

    Args:
        name: a key of `LOSSES`.

    Returns:
        Option -> default value (`inspect.Parameter.empty` where there is none).

    Raises:
        UserError: unknown name.
    """
    parameters = inspect.signature(_load(name)).parameters
    return {key: p.default for key, p in parameters.items() if key not in SIZE_ARGUMENTS}


def _check_type(name: str, option: str, value: Any, default: Any) -> None:
    """Compares a value's type with its default's; a default that is none of these says nothing.

    Raises:
        UserError: another type.
    """
    words = _TYPES.get(type(default))
    if words is None or type(value) is type(default):
        return
    if type(default) is float and type(value) is int:
        return
    raise UserError(
        f"The option {option} of the loss {name!r} is {words}, such as {default!r}; found "
        f"{value!r} ({type(value).__name__})."
    )


def _load(name: str) -> type["nn.Module"]:
    if name not in LOSSES:
        raise UserError(_unknown("loss", name, LOSSES))
    module_name, class_name = LOSSES[name].split(":")
    return getattr(import_module(module_name), class_name)


def _unknown(what: str, found: str, known: Iterable[str]) -> str:
    names = sorted(known)
    nearest = difflib.get_close_matches(str(found), names, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"Unknown {what}: {found!r}. Known: {', '.join(names)}.{hint}"
