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
    return None


PROCESS_CHECKS: tuple[tuple[tuple[str, ...], Callable[[Values], str | None]], ...] = (
    (("data_parallel", "speakers_per_batch", "device"), _check_data_parallel),
    (("mini_batch_size", "training_arguments"), _check_mini_batch),
)
"""Keys that a check looks at, and the check."""
