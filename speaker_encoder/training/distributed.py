"""Several processes: one loss over the embeddings of all, and values that they share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed
from torch import nn


def num_processes() -> int:
    """Gives the number of processes of this run, 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_rank() -> int:
    """Gives this process's number, 0 without a launcher."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Is this the process that writes files."""
    return process_rank() == 0


class GatheredLoss(nn.Module):
    """Computes a batch loss over the embeddings of all processes, with gradient.

    Each process computes the same loss over the whole P x K batch and passes gradient to its own
    embeddings alone, times the number of processes. DistributedDataParallel then averages over
    the processes, so every parameter's gradient, the loss's own included, is that of one process
    with the whole batch.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss
        self.gathered: tuple[torch.Tensor, torch.Tensor] | None = None

    def set_step(self, step: int) -> None:
        """Tells the loss, or its parts that want to know, the number of optimizer steps done."""
        for module in self.loss.modules():
            hook = getattr(module, "set_step", None)
            if callable(hook):
                hook(step)

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """embeddings: (B / processes, D), labels: (B / processes,) -> scalar."""
        processes = num_processes()
        if processes == 1 or not torch.is_grad_enabled():
            return self.loss(embeddings, labels)
        own = embeddings.view_as(embeddings)
        if own.requires_grad:
            own.register_hook(lambda gradient: gradient * processes)
        parts = _gather(embeddings.detach())
        parts[process_rank()] = own
        whole, whole_labels = torch.cat(parts), torch.cat(_gather(labels))
        self.gathered = (whole.detach(), whole_labels)
        return self.loss(whole, whole_labels)


def _gather(part: torch.Tensor) -> list[torch.Tensor]:
    parts = [torch.empty_like(part) for _ in range(num_processes())]
    torch.distributed.all_gather(parts, part.contiguous())
    return parts


def mean_of_processes(value: torch.Tensor) -> torch.Tensor:
    """Gives the mean of a scalar over the processes; a collective call when there are several."""
    if num_processes() == 1:
        return value
    total = value.clone()
    torch.distributed.all_reduce(total)
    return total / num_processes()


def least_of_processes(value: int, device: torch.device) -> int:
    """Gives the least of the processes' numbers; a collective call when there are several."""
    if num_processes() == 1:
        return value
    least = torch.tensor(value, device=device)
    torch.distributed.all_reduce(least, op=torch.distributed.ReduceOp.MIN)
    return int(least.item())


def any_process(flag: bool, device: torch.device) -> bool:
    """Is the flag set in any process; a collective call when there are several."""
    if num_processes() == 1:
        return flag
    value = torch.tensor(int(flag), device=device)
    torch.distributed.all_reduce(value, op=torch.distributed.ReduceOp.MAX)
    return bool(value.item())


def gather_rows(rows: torch.Tensor, order: Sequence[int], total: int) -> torch.Tensor:
    """Puts rows that processes computed for themselves back together.

    Args:
        rows: (n, D) of this process, on the CPU.
        order: the n places they belong to.
        total: how many rows there are over all processes.

    Returns:
        (total, D) on every process.
    """
    if num_processes() == 1:
        parts: list = [(list(order), rows)]
    else:
        parts = [None] * num_processes()
        torch.distributed.all_gather_object(parts, (list(order), rows))
    whole = rows.new_empty((total, rows.shape[1]))
    for places, part in parts:
        whole[places] = part
    return whole


def share_from_main(values: dict[str, Any]) -> dict[str, Any]:
    """Gives the main process's values on every process; a collective call."""
    if num_processes() == 1:
        return values
    shared = [values]
    torch.distributed.broadcast_object_list(shared, src=0)
    return shared[0]


def gather_dict(values: dict[str, str]) -> dict[str, str]:
    """Gives the entries of all processes together, on every process."""
    if num_processes() == 1:
        return dict(values)
    parts: list = [None] * num_processes()
    torch.distributed.all_gather_object(parts, values)
    return {key: value for part in parts for key, value in part.items()}
