"""Encoders whose weights are divided over the processes: FSDP, through `training_arguments`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import TrainingArguments


def divide_weights(accelerator: Accelerator, arguments: TrainingArguments) -> None:
    """Lets accelerate divide the weights as the arguments say, on CPU devices too.

    Numbers are those of the undivided model: with mixed precision autocast decides what is
    computed how, as it does without FSDP, whose own policy would hand a spectrogram rounded
    waveforms.

    Args:
        accelerator: of the Trainer, which has FSDP where its devices are cards.
        arguments: with `fsdp`.
    """
    from accelerate import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    state = accelerator.state
    if not hasattr(state, "fsdp_plugin"):  # accelerate leaves FSDP out where there are no cards
        state.distributed_type = DistributedType.FSDP
        PartialState._shared_state["distributed_type"] = state.distributed_type
        state.fsdp_plugin = FullyShardedDataParallelPlugin(**(arguments.fsdp_plugin_args or {}))
    state.fsdp_plugin.mixed_precision_policy = None


@torch.no_grad()
def copy_whole(source: nn.Module, target: nn.Module) -> None:
    """Copies the weights that the processes have in parts into a whole model; a collective call.

    Args:
        source: the model in training, with its weights divided or not yet.
        target: the same model with all of its weights in this process.
    """
    whole = target.state_dict()
    for name, part in source.state_dict().items():
        whole[name].copy_(_whole(part))


def _whole(part: Any) -> torch.Tensor:
    from torch.distributed.tensor import DTensor

    if not isinstance(part, DTensor):
        return part
    on_its_device = part.to(part.device_mesh.device_type)  # it may be kept on the CPU
    return cast(DTensor, on_its_device).full_tensor()
