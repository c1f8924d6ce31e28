"""Processes of one run, on one machine or several: starting, meeting, and losing one another."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed

from speaker_encoder.errors import EXIT_BUG, EXIT_DONE, EXIT_USER, ProcessLostError
from speaker_encoder.training.distributed import gather_dict, num_processes, process_rank
from speaker_encoder.training.run_dir import RunDirectory

if TYPE_CHECKING:
    from speaker_encoder.training.config import TrainConfig

TIMEOUT_SECONDS = 600
"""How long a process waits for the others at most, unless `training_arguments` say otherwise."""

_ROLL_CALL_SECONDS = 2.0
_GONE = tuple(-getattr(signal, f"SIG{n}") for n in ("KILL", "SEGV", "ABRT", "BUS", "FPE", "ILL"))
# by a signal that was passed on; a process that raises KeyboardInterrupt ends with 128 and more
_INTERRUPTED = frozenset(
    (128 + signal.SIGINT, -signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGQUIT)
)


def join_processes(config: TrainConfig, device: str) -> list[str]:
    """Meets the other processes of a launcher before anything is decided together.

    Args:
        config: of the run; `ddp_timeout` of its `training_arguments` says how long one waits.
        device: "cpu" or "cuda".

    Returns:
        The name of each process's machine.

    Raises:
        ProcessLostError: they do not find each other.
    """
    if num_processes() == 1:
        return [socket.gethostname()]
    from accelerate import PartialState

    seconds = config.training_arguments.get("ddp_timeout", TIMEOUT_SECONDS)
    until_met = timedelta(seconds=max(seconds, TIMEOUT_SECONDS))
    backend = "gloo" if device == "cpu" else "nccl"
    try:
        PartialState(cpu=device == "cpu", backend=backend, timeout=until_met)
    except RuntimeError as error:
        if not _is_of_the_connection(error):
            raise
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise ProcessLostError(
            f"Process {process_rank()} of {num_processes()}, on {socket.gethostname()}, could not "
            f"meet the others at {place} ({_first_line(error)}). The machines must reach each "
            "other under their own names. Where such a name leads to 127.0.0.1 or into another "
            "network, set GLOO_SOCKET_IFNAME (on CPUs) or NCCL_SOCKET_IFNAME (on cards) to the "
            "network interface between them, eth0 say. Where torchrun is to restart processes, "
            "give it TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1."
        ) from error
    hosts = gather_dict({str(process_rank()): socket.gethostname()})
    torch.distributed.distributed_c10d._set_pg_timeout(timedelta(seconds=seconds))
    return [hosts[str(rank)] for rank in range(num_processes())]


@contextlib.contextmanager
def named_losses(config: TrainConfig, hosts: Sequence[str]) -> Iterator[None]:
    """Turns the error of a connection that is gone into one that says whose, and what to do.

    Args:
        config: of the run.
        hosts: the name of each process's machine.

    Raises:
        ProcessLostError: another process of the run is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if num_processes() == 1 or not _is_of_the_connection(error):
            raise
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a launcher ends its others with it
        raise ProcessLostError(
            f"{_missing(hosts)} ({_first_line(error)}). What it or its launcher has printed last "
            f"says why. {going_on(config)}"
        ) from error


def going_on(config: TrainConfig) -> str:
    """Says what becomes of a run that has lost a process."""
    checkpoints = RunDirectory(Path(config.output_dir) / config.run_id).checkpoints()
    where = "where it was" if config.stages else "from the start: no checkpoint was saved yet"
    if checkpoints:
        where = f"from {checkpoints[-1][1].name}"
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0:
        return (
            f"Where torchrun starts the processes again, the run goes on {where}. Where it has no "
            "restarts left, the same command does so."
        )
    return f"The same command with force_restart false goes on {where}."


def _is_of_the_connection(error: RuntimeError) -> bool:
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()


def _first_line(error: BaseException) -> str:
    """Gives what went wrong, without the place in torch's sources and its advice."""
    text = str(error).partition("\n")[0].partition(". ")[0]
    return text.partition("] ")[2] if text.startswith("[") else text


def _missing(hosts: Sequence[str]) -> str:
    """Says which processes do not answer; all others that are left come here too."""
    rank = process_rank()
    missing = set(range(num_processes())) - {rank}
    if len(missing) > 1:
        # the notes may be on a machine that is gone, where reading them takes minutes
        store = torch.distributed.distributed_c10d._get_default_store()
        asking = threading.Thread(target=_call_the_roll, args=(store, rank, missing), daemon=True)
        asking.start()
        if torch.distributed.get_backend() == "gloo":
            torch.distributed.destroy_process_group()  # those that wait for this one come too
        asking.join(2 * _ROLL_CALL_SECONDS)
    if not missing:
        return f"Process {rank} has lost the connection to the others"
    named = ", ".join(f"{other} on {hosts[other]}" for other in sorted(missing))
    return f"Process {named} is gone, or cannot be reached from {hosts[rank]}"


def _call_the_roll(store: torch.distributed.Store, rank: int, missing: set[int]) -> None:
    """Takes the processes that answer out of those that are missing."""
    with contextlib.suppress(RuntimeError):
        store.set(f"left/{rank}", "")
        limit = time.monotonic() + _ROLL_CALL_SECONDS
        while missing and time.monotonic() < limit:
            for other in tuple(missing):
                if store.check([f"left/{other}"]):
                    missing.discard(other)
            time.sleep(0.05)


def launch_processes(config: TrainConfig, arguments: Sequence[str]) -> int:
    """Starts one process per device through torch's elastic agent; gives the exit code.

    Args:
        config: its `data_parallel` has the numbers of CUDA devices, counted within those that
            CUDA_VISIBLE_DEVICES names; with `"device": "cpu"` only their count matters.
        arguments: of `python -m speaker_encoder`, the same for every process.

    Raises:
        ProcessLostError: a process was killed; the others were ended.
        KeyboardInterrupt: this process got a signal before the others could save and stop.
    """
    from speaker_encoder.training.cluster_agent import ProcessAgent

    device_ids = config.data_parallel or ()
    seconds = config.training_arguments.get("ddp_timeout", TIMEOUT_SECONDS)
    # the others take as long to compute a step and to save it as they do without a signal
    agent = ProcessAgent(len(device_ids), arguments, math.ceil(max(seconds, TIMEOUT_SECONDS)))
    with _environment_of(config, device_ids):
        stopped_by = agent.run_to_the_end()
    return _exit_code(config, agent.exit_codes(), agent.shutdown_seconds, stopped_by)


@contextlib.contextmanager
def _environment_of(config: TrainConfig, device_ids: Sequence[int]) -> Iterator[None]:
    """Sets what the processes are to find in their environment, as long as they are started."""
    if config.device == "cpu":
        threads = max(1, (os.cpu_count() or 1) // len(device_ids))
        name, value = "OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", str(threads))
    else:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        cards = visible.split(",") if visible else None
        chosen = [cards[number].strip() if cards else str(number) for number in device_ids]
        name, value = "CUDA_VISIBLE_DEVICES", ",".join(chosen)
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _exit_code(
    config: TrainConfig, codes: Mapping[int, int], seconds: int, stopped_by: signal.Signals | None
) -> int:
    """Gives the exit code of the whole from those of its processes.

    Args:
        config: of the run.
        codes: of each process, less than 0 the signal that has ended it.
        seconds: how long they had to end after a signal.
        stopped_by: the signal, None without one.

    Raises:
        ProcessLostError: one was killed.
        KeyboardInterrupt: they were not far enough to save and stop at a signal.
    """
    failed = {rank: code for rank, code in codes.items() if code != EXIT_DONE}
    if EXIT_USER in failed.values():
        return EXIT_USER
    for rank, code in failed.items():
        if code in _GONE:
            name = signal.Signals(-code).name
            raise ProcessLostError(
                f"Process {rank} of {len(codes)} was killed ({name}), "
                f"{_why_killed(seconds, stopped_by)} {going_on(config)}"
            )
    is_early = not codes or (failed and _INTERRUPTED.issuperset(failed.values()))
    if stopped_by is not None and is_early:
        raise KeyboardInterrupt
    return EXIT_BUG if failed else EXIT_DONE


def _why_killed(seconds: int, stopped_by: signal.Signals | None) -> str:
    memory = "SIGKILL mostly comes from the kernel, or the scheduler, when memory runs out."
    if stopped_by is None:
        return f"and the others were ended. {memory}"
    return (
        f"before it had saved and ended. After {stopped_by.name} it has {seconds} s for that; "
        "raise ddp_timeout of training_arguments if that is too short. Before they are over, "
        f"{memory}"
    )
