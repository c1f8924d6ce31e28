"""Losses over speaker embeddings: (embeddings (B, D), labels (B,)) -> scalar, no model inside.

A new loss is one file here and one line in `LOSSES`.
"""

import difflib
import inspect
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from speaker_encoder.errors import UserError

if TYPE_CHECKING:
    from torch import nn

LOSSES: dict[str, str] = {
    "ge2e": "speaker_encoder.losses.ge2e:GE2ELoss",
}
"""Name of a loss in the config -> `module:Class`, imported when it is built."""

SIZE_ARGUMENTS = ("embedding_dim", "num_speakers")

__all__ = ["LOSSES", "build_loss", "loss_options"]


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
        UserError: unknown name or option, an impossible value, or no `num_speakers` for a loss
            that needs it.
    """
    loss_class = _load(name)
    known = loss_options(name)
    for option in options:
        if option not in known:
            raise UserError(_unknown(f"option of the loss {name!r}", option, known))
    parameters = inspect.signature(loss_class).parameters
    sizes = {"embedding_dim": embedding_dim, "num_speakers": num_speakers}
    wanted = {key: value for key, value in sizes.items() if key in parameters}
    if "num_speakers" in wanted and num_speakers is None:
        raise UserError(
            f"The loss {name!r} needs num_speakers, the number of training speakers; found none."
        )
    return loss_class(**wanted, **options)


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
