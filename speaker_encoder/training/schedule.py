"""The learning rate: linear warm-up, then a plateau or one of the usual curves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau


class WarmupThenPlateau:
    """Steps like a torch scheduler, and holds back by a factor when a metric stops falling.

    The Trainer calls `step` after each optimizer step; `observe` is called with each value of
    the watched metric. All that it remembers is in `state_dict`, so a resumed run goes on alike.

    Args:
        optimizer: its parameter groups' "lr" are the rates after warm-up.
        warmup_steps: steps over which the rate rises linearly from 0.
        factor: what the rate is multiplied by.
        patience: how many averages without a new lowest are borne before that.
        average_over: how many observed values make one average; 1 for validation metrics.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        warmup_steps: int,
        factor: float,
        patience: int,
        average_over: int = 1,
    ) -> None:
        self._optimizer = optimizer
        self._peaks = [group["lr"] for group in optimizer.param_groups]
        self._plateau = ReduceLROnPlateau(optimizer, factor=factor, patience=patience, eps=0.0)
        self._warmup_steps = warmup_steps
        self._average_over = average_over
        self._num_steps = 0
        self._window: list[float] = []
        self._warm_up()

    def _warm_up(self) -> None:
        if self._num_steps < self._warmup_steps:
            for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
                group["lr"] = peak * (self._num_steps + 1) / self._warmup_steps

    def step(self) -> None:
        """Counts one optimizer step."""
        self._num_steps += 1
        self._warm_up()

    def observe(self, value: float) -> float | None:
        """Takes one value of the watched metric; gives the average when a window is full.

        Values seen during warm-up do not count.
        """
        if self._num_steps < self._warmup_steps:
            return None
        self._window.append(value)
        if len(self._window) < self._average_over:
            return None
        average = sum(self._window) / len(self._window)
        self._window.clear()
        self._plateau.step(average)
        return average

    def set_peak(self, rate: float) -> bool:
        """Takes another rate than the one the run was started with; says if it is another.

        What the plateau has multiplied the rate by, and what lower layers learn slower, stays.
        """
        change = rate / max(self._peaks)
        if change == 1.0:
            return False
        for group in self._optimizer.param_groups:
            group["lr"] *= change
        self._peaks = [peak * change for peak in self._peaks]
        return True

    def get_last_lr(self) -> list[float]:
        """Gives the rate of each parameter group."""
        return [group["lr"] for group in self._optimizer.param_groups]

    def state_dict(self) -> dict[str, object]:
        """Gives all that is remembered, as plain data."""
        plateau = self._plateau.state_dict()
        return {
            "num_steps": self._num_steps,
            "window": list(self._window),
            "peaks": list(self._peaks),
            "best": float(plateau["best"]),
            "num_bad_epochs": int(plateau["num_bad_epochs"]),
        }

    def load_state_dict(self, state: dict) -> None:
        """Goes on from a saved state; the rates themselves are in the optimizer's state."""
        self._num_steps = state["num_steps"]
        self._window = list(state["window"])
        self._peaks = list(state["peaks"])
        self._plateau.best = state["best"]
        self._plateau.num_bad_epochs = state["num_bad_epochs"]


class WarmupThenCurve(LambdaLR):
    """torch's LambdaLR over a curve of the step alone, so that a resumed run goes on alike.

    Args:
        optimizer: its parameter groups' "lr" are the highest rates.
        curve: steps made -> what the highest rate is multiplied by for the next step.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, curve: Callable[[int], float]) -> None:
        super().__init__(optimizer, curve)

    def set_peak(self, rate: float) -> bool:
        """Takes another highest rate than the one the run was started with; says if it is."""
        change = rate / max(self.base_lrs)
        if change == 1.0:
            return False
        self.base_lrs = [peak * change for peak in self.base_lrs]
        for group in self.optimizer.param_groups:
            group["lr"] *= change
        return True


def warmup_then(
    schedule: dict[str, Any], warmup_steps: int, num_steps: int, steps_per_epoch: int
) -> Callable[[int], float]:
    """Gives a curve: steps made -> factor of the highest rate.

    Args:
        schedule: name and options, as the config's `lr_schedule`.
        warmup_steps: over which the factor rises linearly to 1.
        num_steps: of the whole run; a cosine without a period ends there.
        steps_per_epoch: what a period in epochs is multiplied by.
    """
    rest = max(1, num_steps - warmup_steps)
    unit = steps_per_epoch if schedule.get("unit") == "epoch" else 1
    period = schedule["period"] * unit if schedule.get("period") else None
    after = CURVES[schedule["name"]](schedule, period or rest, warmup_steps)

    def curve(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        # without a period the run ends with the curve; the last step's next rate is never used
        return after(min(step - warmup_steps, rest - 1) if period is None else step - warmup_steps)

    return curve


def _constant(schedule: dict[str, Any], period: float, warmup: int) -> Callable[[int], float]:
    return lambda step: 1.0


def _noam(schedule: dict[str, Any], period: float, warmup: int) -> Callable[[int], float]:
    """sqrt(base / (base + n)), n counted from 1; base is the warm-up, as in the paper.

    Source: Vaswani et al. 2017, "Attention is all you need", eq. 3, its highest rate set to 1.
    """
    base = schedule["base"] or warmup
    return lambda step: math.sqrt(base / (base + step + 1))


def _step(schedule: dict[str, Any], period: float, warmup: int) -> Callable[[int], float]:
    return lambda step: schedule["gamma"] ** (step // period)


def _exponential(schedule: dict[str, Any], period: float, warmup: int) -> Callable[[int], float]:
    return lambda step: schedule["gamma"] ** (step / period)


def _cosine(schedule: dict[str, Any], period: float, warmup: int) -> Callable[[int], float]:
    """Half a cosine from gamma^k to `lowest` over period * multiplier^k steps, k the restarts.

    Source: Loshchilov and Hutter 2017, "SGDR", eq. 5.
    """
    lowest, rewarm = schedule["lowest"], warmup if schedule["warm_each"] else 0

    def factor(step: int) -> float:
        peak, length, left = 1.0, period, float(step)
        while left >= length:
            left -= length
            peak *= schedule["gamma"]
            length *= schedule["multiplier"]
            if left < rewarm:
                return max(lowest, peak * (left + 1) / rewarm)
            left -= rewarm
        floor = min(lowest, peak)
        return floor + (peak - floor) * (1 + math.cos(math.pi * left / length)) / 2

    return factor


CURVES: dict[str, Callable[[dict[str, Any], float, int], Callable[[int], float]]] = {
    "constant": _constant,
    "noam": _noam,
    "step": _step,
    "exponential": _exponential,
    "cosine": _cosine,
}
"""Name in `lr_schedule` -> (its options, steps of a period, of warm-up) -> curve after warm-up."""
