"""Two processes give every loss, and every gradient, of one process with the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from every_loss import CHOICES
from losses_in_processes import Projected, whole_batch

from speaker_encoder.losses import LOSSES

SCRIPT = Path(__file__).with_name("losses_in_processes.py")

pytestmark = [pytest.mark.slow, pytest.mark.ddp]


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory) -> list[dict]:
    """What each process found."""
    folder = tmp_path_factory.mktemp("processes")
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([*launcher, SCRIPT, folder], check=True, env=environment, timeout=120)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_every_loss_is_here() -> None:
    assert set(CHOICES) >= set(LOSSES)


@pytest.mark.parametrize("name", CHOICES)
def test_two_processes_equal_one(name: str, of_two_processes: list[dict]) -> None:
    model = Projected(CHOICES[name])
    inputs, labels = whole_batch()
    expected = model(inputs, labels)
    expected.backward()
    for found in of_two_processes:
        value, gradients = found[name]
        torch.testing.assert_close(value, expected.detach(), rtol=1e-12, atol=1e-12)
        for key, parameter in model.named_parameters():
            torch.testing.assert_close(gradients[key], parameter.grad, rtol=1e-9, atol=1e-12)
    assert max(float(p.grad.abs().max()) for p in model.parameters()) > 1e-3
