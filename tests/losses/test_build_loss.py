import subprocess
import sys

import pytest
import torch

from speaker_encoder.errors import UserError
from speaker_encoder.losses import LOSSES, build_loss, loss_options
from speaker_encoder.losses.ge2e import GE2ELoss


@pytest.fixture(params=sorted(LOSSES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_every_loss_gives_a_scalar_with_finite_non_zero_gradients(name: str) -> None:
    loss = build_loss(name, embedding_dim=8, num_speakers=5)
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(20, 8, generator=generator, requires_grad=True)
    value = loss(embeddings, torch.arange(20) % 5)
    value.backward()
    assert value.shape == ()
    assert value.isfinite()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()
    assert embeddings.grad.abs().sum(dim=1).min() > 0


def test_every_loss_can_overfit_free_embeddings(name: str) -> None:
    loss = build_loss(name, embedding_dim=8, num_speakers=4)
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(16, 8, generator=generator, requires_grad=True)
    labels = torch.arange(16) % 4
    optimizer = torch.optim.Adam([embeddings, *loss.parameters()], lr=0.05)
    first = loss(embeddings, labels).item()
    for _ in range(100):
        optimizer.zero_grad()
        value = loss(embeddings, labels)
        value.backward()
        optimizer.step()
    assert value.item() < 0.1 * first


def test_every_loss_keeps_its_state_through_a_state_dict(name: str) -> None:
    first = build_loss(name, embedding_dim=8, num_speakers=4)
    second = build_loss(name, embedding_dim=8, num_speakers=4)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(1.0)
    second.load_state_dict(first.state_dict())
    embeddings, labels = torch.randn(8, 8), torch.arange(8) % 4
    assert torch.equal(first(embeddings, labels), second(embeddings, labels))


def test_options_reach_the_loss() -> None:
    loss = build_loss("ge2e", 192, variant="contrast", init_w=3.0, init_b=-1.0, activation="tanh")
    assert isinstance(loss, GE2ELoss)
    assert (loss.variant, loss.w.item(), loss.b.item(), loss.activation) == (
        "contrast",
        3.0,
        -1.0,
        "tanh",
    )


def test_options_are_listed_with_their_defaults() -> None:
    assert loss_options("ge2e") == {
        "variant": "softmax",
        "init_w": 10.0,
        "init_b": -5.0,
        "activation": None,
    }


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("ge3e", {}, "Unknown loss: 'ge3e'. Known: ge2e. Did you mean 'ge2e'?"),
        ("xyz", {}, "Unknown loss: 'xyz'. Known: ge2e."),
        (
            "ge2e",
            {"varient": "softmax"},
            "Unknown option of the loss 'ge2e': 'varient'. "
            "Known: activation, init_b, init_w, variant. Did you mean 'variant'?",
        ),
        (
            "ge2e",
            {"variant": "softmx"},
            "GE2E has the variants softmax, contrast; found variant 'softmx'.",
        ),
        (
            "ge2e",
            {"activation": "gelu"},
            "GE2E has the activations null, relu, tanh, sigmoid; found activation 'gelu'.",
        ),
        ("ge2e", {"init_w": 0.0}, "GE2E needs a positive init_w, found 0.0."),
    ],
)
def test_errors_say_what_is_known(name: str, options: dict, text: str) -> None:
    with pytest.raises(UserError) as caught:
        build_loss(name, 192, **options)
    assert str(caught.value) == text


def test_the_table_is_imported_without_torch() -> None:
    code = "import sys, speaker_encoder.losses; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
