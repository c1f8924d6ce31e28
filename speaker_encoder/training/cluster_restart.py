"""Restarts by a launcher: is this one, and did the same launch begin the run that lies there."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import torch

from speaker_encoder.training.distributed import any_process, gather_dict, is_main_process
from speaker_encoder.training.run_dir import RunDirectory

_logger = logging.getLogger(__name__)


def is_restart(device: str) -> bool:
    """Has a launcher started these processes again; a collective call when there are several.

    torchrun counts on the machine where a process failed, and not on those that start again
    because of it; SLURM counts how often it has put a job back into its queue.
    """
    names = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
    return any_process(any(_count(name) > 0 for name in names), torch.device(device))


def goes_on_with(run: RunDirectory, device: str) -> bool:
    """Is this a restart of the launch that began a run; a collective call when there are several.

    If so, the wish to start anew is fulfilled. If not, it still stands: the first start was
    refused, or died before it came to the directory, where another launch's run may lie.

    Args:
        run: its directory, which need not be there.
        device: "cpu" or "cuda".
    """
    if not is_restart(device):
        return False
    own = _gathered(_marks_of_torchrun() + (_marks_of_slurm() if _is_requeued() else []))
    is_known = is_main_process() and not run.launch_marks().isdisjoint(own)
    is_known = any_process(is_known, torch.device(device))
    if is_known:
        _logger.info("%s: started again by the launcher that began it", run.path)
    return is_known


def launch_marks() -> set[str]:
    """Gives what restarts of this launch are known by; a collective call when there are several.

    Returns:
        Hashes: one of each machine's torchrun, one of the SLURM job; none without a launcher.
    """
    return _gathered(_marks_of_torchrun() + _marks_of_slurm())


def _gathered(marks: list[str]) -> set[str]:
    return set(gather_dict(dict.fromkeys(marks, "")))


def _marks_of_torchrun() -> list[str]:
    """Gives the mark of the torchrun that has started this process.

    The folder that it makes for its logs is its own, and stays over its restarts. MASTER_PORT
    does not; nor does MASTER_ADDR when the machines change places; and the id of a launch on
    several machines is "none" unless --rdzv_id says another.
    """
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    launch_id = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if error_file:  # <folder of this launch>/attempt_<restarts>/<local rank>/error.json
        return [_mark(f"torchrun {Path(error_file).parents[2]}")]
    return [] if launch_id == "none" else [_mark(f"torchrun {launch_id}")]


def _marks_of_slurm() -> list[str]:
    job = os.environ.get("SLURM_JOB_ID")
    return [_mark(f"SLURM {job}")] if job else []


def _is_requeued() -> bool:
    """Is this a job of SLURM's that has begun before; else several launches may be in one job."""
    return _count("SLURM_RESTART_COUNT") > 0


def _count(name: str) -> int:
    return int(os.environ.get(name) or 0)


def _mark(fact: str) -> str:
    return hashlib.sha256(fact.encode("utf-8", "surrogateescape")).hexdigest()
