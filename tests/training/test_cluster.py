"""What a run of several processes says and does when a launcher starts it."""

import os
import subprocess

import pytest
from conftest import REPOSITORY

from speaker_encoder.errors import ProcessLostError
from speaker_encoder.training import TrainConfig
from speaker_encoder.training.cluster import going_on, named_losses

SBATCH = REPOSITORY / "scripts" / "slurm" / "train.sbatch"


@pytest.fixture
def config(make_run):
    return TrainConfig.from_json(make_run().config_path)


def test_what_becomes_of_the_run_depends_on_checkpoints_and_restarts(config, monkeypatch):
    start = "from the start: no checkpoint was saved yet."
    assert going_on(config) == f"The same command with force_restart false goes on {start}"
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    assert going_on(config).startswith(
        f"Where torchrun starts the processes again, the run goes on {start}"
    )


def test_only_errors_of_connections_are_put_into_other_words(config, monkeypatch):
    lost = RuntimeError("[/gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.0.0.2]:1")
    with pytest.raises(RuntimeError) as own, named_losses(config, ["here", "there"]):
        raise lost
    assert own.value is lost  # of one process, which has no others
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(RuntimeError, match="shapes") as own,
        named_losses(config, ["here", "there"]),
    ):
        raise RuntimeError("shapes do not fit")
    assert not isinstance(own.value, ProcessLostError)


def test_the_slurm_script_starts_one_torchrun_per_machine(tmp_path):
    from torch.distributed.run import get_args_parser

    stubs = {
        # the second name comes when a reader of one name alone is gone
        "scontrol": 'test "$*" = "show hostnames gpu[07-08]"; echo gpu07; sleep 0.2; echo gpu08',
        "srun": 'test "$1" = --kill-on-bad-exit=1; shift; exec "$@"',
        "torchrun": 'test "$TORCH_DISABLE_SHARE_RDZV_TCP_STORE" = 1; printf "%s\\n" "$@"',
    }
    for name, text in stubs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\nset -e\n{text}\n")
        (tmp_path / name).chmod(0o755)
    variables = {
        "SLURM_JOB_NODELIST": "gpu[07-08]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_JOB_ID": "1234567",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", str(SBATCH), "my config.json", "--override", "seed=1"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    given = get_args_parser().parse_args(done.stdout.splitlines())
    assert (given.nnodes, given.nproc_per_node, given.max_restarts) == ("2", "4", 3)
    assert (given.rdzv_backend, given.rdzv_endpoint) == ("c10d", "gpu07:24567")
    assert (given.rdzv_id, given.module) == ("1234567", True)
    assert given.training_script == "speaker_encoder"
    train = ["train", "--config", "my config.json", "--override", "seed=1"]
    assert given.training_script_args == train
    missing = subprocess.run(
        ["bash", str(SBATCH)], env={**os.environ, **variables}, capture_output=True
    )
    assert missing.returncode != 0 and b"the config is missing" in missing.stderr
