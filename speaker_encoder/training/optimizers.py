"""From the config to the optimizer, its schedule, and the rates of the encoder's layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from speaker_encoder.errors import UserError
from speaker_encoder.training.schedule import WarmupThenCurve, WarmupThenPlateau, warmup_then

if TYPE_CHECKING:
    from speaker_encoder.training.config import TrainConfig

Schedule = WarmupThenPlateau | WarmupThenCurve
MakeSchedule = Callable[[torch.optim.Optimizer, int, int], Schedule]
"""(optimizer, steps of the run, steps of an epoch) -> schedule."""

_OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "radam": torch.optim.RAdam,
    "sgd": torch.optim.SGD,
}
_LAYER = re.compile(r"(?:^|\.)(?:layers?|blocks?)[._]?(\d+)\.|_l(\d+)(?:_reverse)?$")


def choose_optimizer(config: TrainConfig) -> tuple[type[torch.optim.Optimizer], dict] | None:
    """Gives torch's class and its arguments; None when `training_arguments` names an optimizer."""
    given = config.training_arguments
    if "optim" in given:
        return None
    options = dict(config.optimizer)
    name = options.pop("name")
    if name != "sgd":
        options["betas"] = (given.get("adam_beta1", 0.9), given.get("adam_beta2", 0.999))
        options["eps"] = given.get("adam_epsilon", 1e-8)
    return _OPTIMIZERS[name], {"lr": config.learning_rate_init, **options}


def schedule_maker(config: TrainConfig) -> MakeSchedule | None:
    """Gives what makes the schedule; None when `training_arguments` names another."""
    if "lr_scheduler_type" in config.training_arguments:
        return None
    on_training = config.scheduler_metrics.startswith("train_")
    average_over = config.scheduler_metrics_avg_every if on_training else 1

    def make(optimizer: torch.optim.Optimizer, num_steps: int, epoch: int) -> Schedule:
        if config.lr_schedule["name"] == "plateau":
            factor, patience = config.scheduler_factor, config.scheduler_patience
            return WarmupThenPlateau(optimizer, config.warmup_steps, factor, patience, average_over)
        curve = warmup_then(config.lr_schedule, config.warmup_steps, num_steps, epoch)
        return WarmupThenCurve(optimizer, curve)

    return make


def layer_scales(model: nn.Module, decay: float) -> dict[str, float]:
    """Gives decay^d for each parameter, d the layers that lie between it and the top.

    The layers are `encoder.layers` where there are any, else the encoder's longest numbered stack
    (`layers.3`, `blocks.3`, `layer3`, and the `_l3` of an LSTM). What stands before the stack is
    below its first layer; what stands behind it, the loss, parameters that are listed before the
    modules they belong to, and the last norm of an encoder with `do_stable_layer_norm` are the
    top, d = 0. SpeechBrain's x-vector numbers the convolution and the norm of a TDNN layer, which
    count as two layers.

    Args:
        model: with the encoder as `backbone`.
        decay: above 0 and at most 1.

    Raises:
        UserError: the encoder has no numbered layers.

    Source: Bao et al. 2022, "BEiT", layer-wise learning-rate decay of fine-tuning.
    """
    names = [name for name, _ in model.named_parameters()]
    stacks: dict[str, set[int]] = {}
    for name in names:
        if name.startswith("backbone.") and (found := _LAYER.search(name)):
            stacks.setdefault(_stack(name, found), set()).add(_number(found))
    if not stacks:
        raise UserError(
            "layer_lr_decay: this encoder's parameters have no numbered layers, such as layers.0 "
            "or blocks.0. Set layer_lr_decay to 1."
        )
    longest = max(stacks, key=lambda stack: (stack.endswith(".encoder"), len(stacks[stack])))
    order = {number: place for place, number in enumerate(sorted(stacks[longest]))}
    late_norm = f"{longest}.layer_norm." if _has_late_norm(model.get_submodule(longest)) else None
    scales, is_below = {}, True
    for name in names:
        found = _LAYER.search(name)
        if found and _stack(name, found) == longest:
            distance, is_below = len(order) - order[_number(found)], False
        elif (
            not name.startswith("backbone.")
            or _is_listed_early(name)
            or (late_norm and name.startswith(late_norm))
        ):
            distance = 0
        else:
            distance = len(order) + 1 if is_below else 0
        scales[name] = decay**distance
    return scales


def _is_listed_early(name: str) -> bool:
    """Is it a parameter of the top that stands before the modules it works on: it has none.

    These are the weights of a sum of layers, and the vector of self-attentive pooling.
    """
    return name.count(".") == 1 or name.endswith(".attention")


def _has_late_norm(stack: nn.Module) -> bool:
    """Is its `layer_norm`, which transformers lists before the layers, applied behind them."""
    return bool(getattr(getattr(stack, "config", None), "do_stable_layer_norm", False))


def _stack(name: str, found: re.Match[str]) -> str:
    """Gives what the names of one stack's parameters begin with."""
    return name[: found.start()] if found[1] else name.rpartition(".")[0]


def _number(found: re.Match[str]) -> int:
    return int(found[1] or found[2])


def scale_rates(
    optimizer: torch.optim.Optimizer, model: nn.Module, scales: Mapping[str, float]
) -> None:
    """Divides a new optimizer's groups by their parameters' scales; the fastest comes first.

    The largest scale among what is trained counts as 1.
    """
    by_parameter = {id(p): scales[name] for name, p in model.named_parameters()}
    parts = []
    for group in optimizer.param_groups:
        found: dict[float, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            found.setdefault(by_parameter[id(parameter)], []).append(parameter)
        parts += [(scale, {**group, "params": params}) for scale, params in found.items()]
    highest = max(scale for scale, _ in parts)
    for scale, group in parts:
        group["lr"] *= scale / highest
    optimizer.param_groups[:] = [group for _, group in sorted(parts, key=lambda part: -part[0])]
