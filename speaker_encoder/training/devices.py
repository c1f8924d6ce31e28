"""Are the devices of a config there; asked when a run starts, not when its config is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from speaker_encoder.training.config import TrainConfig


def check_devices(config: TrainConfig) -> list[str]:
    """The problems of `device`, `aug_device`, `data_parallel` and `precision` on this machine.

    With `"device": "cpu"` the numbers in `data_parallel` only say how many processes there are.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    have = ", ".join(f"cuda:{number}" for number in range(count)) or "no CUDA device"
    problems = []
    for name in ("device", "aug_device"):
        wanted = getattr(config, name)
        number = int(wanted.partition(":")[2] or 0)
        if wanted.startswith("cuda") and number >= count:
            problems.append(
                f'{name}: found "{wanted}", this machine has {have}. Possible is "cpu".'
            )
    on_cpu = config.device == "cpu" or count == 0
    if config.device != "cpu" and config.data_parallel:
        absent = [number for number in config.data_parallel if number >= count]
        if absent:
            problems.append(
                f"data_parallel: found {list(config.data_parallel)}, this machine has {have}; "
                f"not there: {', '.join(map(str, absent))}. Possible is null, or numbers below "
                f'{count}; with device "cpu", any numbers.'
                if count
                else f"data_parallel: found {list(config.data_parallel)}, this machine has {have}. "
                'Possible is null, or any numbers with device "cpu".'
            )
    if on_cpu and config.precision == "fp16":
        problems.append('precision: "fp16" needs a CUDA device. Possible is "float32" or "bf16".')
    return problems
