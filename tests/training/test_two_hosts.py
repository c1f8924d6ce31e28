"""Two hosts train like one, and none waits for a process that is gone."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from conftest import REPOSITORY, TINY_WAVLM, TrainingRun
from hosts import NAMES, HostsRefusedError, TwoHosts, parent_of, process_of

from speaker_encoder.training.run_dir import RunDirectory

pytestmark = [pytest.mark.slow, pytest.mark.ddp]

KEYS = {
    "model_name": "wavlm-base",
    "encoder_config": TINY_WAVLM,
    "max_steps": 2000,
    "val_data_root": None,
}
_MINUTE = 60.0


@pytest.fixture
def two_hosts(tmp_path) -> Iterator[TwoHosts]:
    try:
        with TwoHosts(tmp_path) as hosts:
            yield hosts
    except HostsRefusedError as error:
        pytest.skip(f"no two networks on this machine: {error}")


class Launch:
    """torchrun on each of two hosts, with one process of a run each; ended when it is left.

    Args:
        hosts: to run on.
        run: what they train.
        port: of the first host, where they meet.
        options: of torchrun.
    """

    def __init__(self, hosts: TwoHosts, run: TrainingRun, port: int, *options: str) -> None:
        self._run = run
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
            "SPEAKER_ENCODER_CACHE": str(run.folder / "cache"),
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
            "PYTHONPATH": str(REPOSITORY),
        }
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2"]
        torchrun += ["--nproc_per_node=1", "--rdzv_backend=c10d", "--monitor_interval=0.1"]
        torchrun += [f"--rdzv_endpoint={NAMES[0]}:{port}", *options]
        torchrun += [str(REPOSITORY / "train_encoder.py"), f"--config={run.config_path}"]
        self._shown = [run.folder / f"{name}-{port}.txt" for name in NAMES]
        self._processes = [
            subprocess.Popen(
                hosts.on(host, *torchrun),
                env=environment,
                stdout=shown.open("w"),
                stderr=subprocess.STDOUT,
            )
            for host, shown in enumerate(self._shown)
        ]

    def __enter__(self) -> "Launch":
        return self

    def __exit__(self, *_: object) -> None:
        for launcher in self._processes:
            launcher.kill()
            launcher.wait()
        for pid in filter(None, (process_of(self._run, rank) for rank in (0, 1))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def shown(self, host: int) -> str:
        return self._shown[host].read_text(errors="replace")

    def exit_codes(self) -> list[int | None]:
        return [process.poll() for process in self._processes]

    def process(self, host: int) -> int | None:
        """Gives the training process of a host, None while there is none."""
        launcher = self._processes[host].pid
        found = [process_of(self._run, rank) for rank in (0, 1)]
        return next((pid for pid in found if pid is not None and parent_of(pid) == launcher), None)

    def until(self, condition: Callable[[], bool], seconds: float = 120.0) -> float:
        """Waits for something; gives how long it took in seconds."""
        start = time.monotonic()
        while not condition():
            assert time.monotonic() < start + seconds, f"{self.shown(0)}\n{self.shown(1)}"
            time.sleep(0.005)
        return time.monotonic() - start

    def kill(self, host: int, step: int) -> None:
        """Kills the training process of a host when the record has a step."""
        self.until(lambda: self._run.metrics("train") and self.process(host))
        pid = self.process(host)
        self.until(lambda: any(line["step"] >= step for line in self._run.metrics("train")))
        os.kill(pid, signal.SIGKILL)

    def have_ended(self) -> bool:
        return None not in self.exit_codes()


def test_a_killed_process_is_missed_and_its_restart_goes_on_exactly(make_run, two_hosts):
    keys = {**KEYS, "max_steps": 48, "save_every": 4}
    run = make_run("run", **keys, force_restart=True)
    with Launch(two_hosts, run, 29500, "--max_restarts=1") as launch:
        launch.kill(0, step=14)  # the process that writes, in the second epoch
        message = f"error in process 1: Process 0 on {NAMES[0]} is gone"
        assert launch.until(lambda: message in launch.shown(1)) < _MINUTE
        launch.until(launch.have_ended)
    assert launch.exit_codes() == [0, 0]
    line = next(line for line in launch.shown(1).splitlines() if line.startswith(message))
    newest = int(re.search(r"starts the processes again, the run goes on from .*-(\d+)\.", line)[1])
    assert newest >= 12
    assert f"resuming from {run.path}/checkpoint-{newest}\n" in run.bytes_of("train.log").decode()
    assert [line["step"] for line in run.metrics("train")] == list(range(1, 49))
    # of both machines: after a restart another one of them may have the first process
    assert len(RunDirectory(run.path).launch_marks()) == 2

    reference = make_run("reference", **keys, data_parallel=[0, 1])
    reference.run(is_fresh=True)
    for name in ("model.safetensors", "optimizer.pt"):
        file = f"checkpoint-48/{name}"
        assert run.bytes_of(file) == reference.bytes_of(file)


def test_a_machine_that_falls_silent_is_waited_for_no_longer_than_said(make_run, two_hosts):
    run = make_run(**KEYS, training_arguments={"ddp_timeout": 5})
    with Launch(two_hosts, run, 29502) as launch:
        launch.until(lambda: len(run.metrics("train")) > 2)
        two_hosts.cut_wire()
        assert launch.until(lambda: not launch.process(0) and not launch.process(1)) < _MINUTE
        # torchrun itself, on the host that has lost the other, may wait longer: it is of torch
        launch.until(lambda: 1 in launch.exit_codes())
    for host, other in ((0, 1), (1, 0)):
        assert f"Process {other}" in launch.shown(host)
        assert f"cannot be reached from {NAMES[host]} (Timed out waiting 5000ms" in launch.shown(
            host
        )


def test_our_own_launcher_names_the_process_that_was_killed(make_run):
    run = make_run(**KEYS, data_parallel=[0, 1])
    process = run.start(is_fresh=True)
    limit = time.monotonic() + _MINUTE
    while process_of(run, 0) is None:
        assert time.monotonic() < limit
        time.sleep(0.01)
    os.kill(process_of(run, 0), signal.SIGKILL)
    _, err = process.communicate(timeout=_MINUTE)
    assert process.returncode == 1
    assert "error: Process 0 of 2 was killed (SIGKILL), and the others were ended." in err
    assert "force_restart false goes on from the start: no checkpoint was saved yet." in err
    assert "Traceback" not in err
