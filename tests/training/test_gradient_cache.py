"""A batch by pieces has the loss and the gradients of a batch at once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from every_loss import CHOICES
from hypothesis import given
from hypothesis import strategies as st
from pieces_in_processes import FAMILIES, Case, relative_difference

from speaker_encoder.losses import LOSSES as ALL_LOSSES
from speaker_encoder.training.gradient_cache import split_batch

SCRIPT = Path(__file__).with_name("pieces_in_processes.py")


def test_every_loss_is_here():
    assert {name.partition(",")[0] for name in CHOICES} >= set(ALL_LOSSES)


@given(batch_size=st.integers(1, 200), size=st.integers(1, 220))
def test_pieces_are_few_even_and_cover_the_batch(batch_size, size):
    pieces = split_batch(batch_size, size)
    rows = [row for piece in pieces for row in range(batch_size)[piece]]
    lengths = [piece.stop - piece.start for piece in pieces]
    assert rows == list(range(batch_size))
    assert len(pieces) == -(-batch_size // size)
    assert max(lengths) <= size and max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("loss", CHOICES)
@pytest.mark.parametrize("family", FAMILIES)
def test_pieces_equal_one_graph(family, loss):
    case = Case(family, loss)
    value, gradients = case.by_pieces(5)
    behind = torch.rand(())
    wanted, expected = case.at_once(5)
    assert float(value) == pytest.approx(float(wanted), rel=1e-6)
    assert relative_difference(gradients, expected) <= 1e-5
    assert any(name.startswith("loss_fn.") for name in expected) == any(
        name.startswith("loss_fn.") for name, _ in case.encoder.named_parameters()
    )
    assert torch.equal(torch.rand(()), behind)  # the next step draws what it would have drawn


def test_pieces_equal_one_graph_under_autocast():
    case = Case("wavlm", "angular_prototypical", precision="bf16")
    value, gradients = case.by_pieces(5)
    wanted, expected = case.at_once(5)
    assert float(value) == pytest.approx(float(wanted), rel=1e-6)
    # a weight whose cast copy was kept from the pass without a graph would have no gradient
    assert relative_difference(gradients, expected) <= 0.02


def test_pieces_with_a_gradient_scaler_have_its_scale():
    case = Case("wavlm", "softmax_prototypical")
    case.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    _, gradients = case.by_pieces(5)
    _, expected = case.at_once(5)
    unscaled = {name: gradient / 1024 for name, gradient in gradients.items()}
    assert relative_difference(unscaled, expected) <= 1e-5


class Held:
    """Counts the bytes that graphs hold at a time."""

    now = peak = 0

    def __init__(self, tensor):
        self.tensor = tensor
        Held.now += tensor.nbytes
        Held.peak = max(Held.peak, Held.now)

    def __del__(self):
        Held.now -= self.tensor.nbytes


def peak_bytes(step):
    Held.now = Held.peak = 0
    with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
        step()
    assert Held.now == 0
    return Held.peak


@pytest.mark.parametrize("family", FAMILIES)
def test_a_larger_batch_needs_no_more_memory(family):
    small, large = (Case(family, "ge2e", num_utterances=count) for count in (2, 8))
    of_pieces = [peak_bytes(lambda case=case: case.by_pieces(4)) for case in (small, large)]
    at_once = [peak_bytes(lambda case=case: case.at_once(4)) for case in (small, large)]
    assert at_once[1] > 3 * at_once[0]
    assert of_pieces[1] < 1.1 * of_pieces[0] < at_once[0]


def test_running_statistics_move_once_a_step():
    case = Case("ecapa", "ge2e")
    case.encoder.freeze_batch_norm(False)
    norms = {
        name: module
        for name, module in case.encoder.named_modules()
        if isinstance(module, torch.nn.BatchNorm1d)
    }
    before = {name: module.running_mean.clone() for name, module in norms.items()}
    heard: dict[str, list] = {name: [] for name in norms}
    for name, module in norms.items():
        module.register_forward_pre_hook(
            lambda _, inputs, name=name: heard[name].append(inputs[0].detach())
        )
    case.by_pieces(4)
    assert len(norms) > 5
    for name, module in norms.items():
        first, again = heard[name][:3], heard[name][3:]  # without a graph, and with one
        assert len(again) == 3 and all(map(torch.equal, first, again))
        dims = [d for d in range(first[0].ndim) if d != 1]
        mean = torch.stack([part.double().mean(dims) for part in first]).mean(0)
        variance = torch.stack([part.double().var(dims) for part in first]).mean(0)
        momentum = module.momentum
        wanted = (1 - momentum) * before[name].double() + momentum * mean
        torch.testing.assert_close(module.running_mean.double(), wanted, rtol=1e-4, atol=1e-6)
        wanted = (1 - momentum) + momentum * variance
        torch.testing.assert_close(module.running_var.double(), wanted, rtol=1e-4, atol=1e-6)
        assert module.num_batches_tracked == 1


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_by_pieces_equal_one_graph(tmp_path):
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([*launcher, SCRIPT, tmp_path], check=True, env=environment, timeout=200)
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert len(found) == len(FAMILIES) * len(CHOICES)
        for case, (loss, gradients) in found.items():
            assert loss <= 1e-6, case
            assert gradients <= 1e-5, case
