"""What must hold between the keys of a config about processes, devices and their memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Values = Mapping[str, Any]


def _check_data_parallel(values: Values) -> str | None:
    devices, device = values["data_parallel"] or (), values["device"]
    if len(devices) > 1 and values["speakers_per_batch"] % len(devices):
        return (
            f"speakers_per_batch: {values['speakers_per_batch']} speakers cannot be divided over "
            f"the {len(devices)} devices of data_parallel. Choose a multiple of {len(devices)}"
        )
    number = device.partition(":")[2]
    if devices and number and int(number) not in devices:
        return f'device: found "{device}", which is not among data_parallel {list(devices)}'
    return None


def _check_mini_batch(values: Values) -> str | None:
    spread = [name for name in ("fsdp", "deepspeed") if values["training_arguments"].get(name)]
    if values["mini_batch_size"] is not None and spread:
        return (
            f"mini_batch_size: given with training_arguments {spread[0]}; a batch is computed by "
            "pieces where every process has the whole encoder. Set one of them to null"
        )
    looks = values["training_arguments"].get("ddp_find_unused_parameters")
    if values["mini_batch_size"] is not None and looks:
        return (
            "mini_batch_size: given with training_arguments ddp_find_unused_parameters, which then "
            "takes the loss's weights for unused. Leave that out: encoders use all their weights"
        )
    return None


_FSDP_OPTIONS: dict[str, tuple[object, ...]] = {
    "version": (2,),
    "state_dict_type": ("FULL_STATE_DICT",),  # a checkpoint has the whole encoder in one file
    "auto_wrap_policy": ("TRANSFORMER_BASED_WRAP", "NO_WRAP"),
    "cpu_ram_efficient_loading": (False,),  # every process builds the encoder
    "xla": (False,),
}
"""What options of `fsdp_config` may be; the others may be anything."""


def _check_fsdp(values: Values) -> str | None:
    given = values["training_arguments"]
    if not given.get("fsdp"):
        return None
    options = given.get("fsdp_config") or {}
    if not isinstance(options, Mapping):
        return f"training_arguments: fsdp_config is {options!r}. Write its options as an object"
    for name, value in options.items():
        possible = _FSDP_OPTIONS.get(name.removeprefix("fsdp_"), (value,))
        if value not in possible:
            return (
                f"training_arguments: {name} of fsdp_config is {value!r}. Possible is "
                f"{' or '.join(map(repr, possible))}"
            )
    return None


def _check_timeout(values: Values) -> str | None:
    seconds = values["training_arguments"].get("ddp_timeout", 1)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds <= 0:
        return f"training_arguments: ddp_timeout is {seconds!r}. Give seconds, more than 0"
    return None


PROCESS_CHECKS: tuple[tuple[tuple[str, ...], Callable[[Values], str | None]], ...] = (
    (("data_parallel", "speakers_per_batch", "device"), _check_data_parallel),
    (("mini_batch_size", "training_arguments"), _check_mini_batch),
    (("training_arguments",), _check_fsdp),
    (("training_arguments",), _check_timeout),
)
"""Keys that a check looks at, and the check."""
