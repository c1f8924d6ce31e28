"""What must hold between the keys of a config that keep training close to its start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Values = Mapping[str, Any]


def _check_start(values: Values) -> str | None:
    given = [name for name in ("l2_sp", "distillation") if values[name]]
    if given and not values["pretrained"]:
        return (
            f"{given[0]}: given with pretrained false; there is no pretrained encoder to stay "
            f"close to. Set {given[0]} to 0, or pretrained to true"
        )
    return None


def _check_sharded(values: Values) -> str | None:
    sharded = [name for name in ("fsdp", "deepspeed") if values["training_arguments"].get(name)]
    given = [name for name in ("l2_sp", "head_first_steps") if values[name]]
    if given and sharded:
        return f"{given[0]}: not possible with {sharded[0]} in training_arguments. Leave one out"
    return None


def _check_replay_list(values: Values) -> str | None:
    if values["replay_list"] and values["replay_data_root"] is None:
        return (
            "replay_list: given without replay_data_root, the folder that its paths are relative to"
        )
    return None


CLOSENESS_CHECKS: tuple[tuple[tuple[str, ...], Callable[[Values], str | None]], ...] = (
    (("l2_sp", "distillation", "pretrained"), _check_start),
    (("l2_sp", "head_first_steps", "training_arguments"), _check_sharded),
    (("replay_list", "replay_data_root"), _check_replay_list),
)
"""Keys that a check looks at, and the check."""
