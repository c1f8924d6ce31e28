"""The learning rate: linear warm-up, then ReduceLROnPlateau on the metric of the config."""

from __future__ import annotations

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau


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

        What the plateau has multiplied the rate by stays.
        """
        if all(peak == rate for peak in self._peaks):
            return False
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] *= rate / peak
        self._peaks = [rate for _ in self._peaks]
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
