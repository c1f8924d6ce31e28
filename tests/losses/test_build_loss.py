import subprocess
import sys

import pytest
import torch

from speaker_encoder.errors import UserError
from speaker_encoder.losses import (
    LOSSES,
    build_chosen_loss,
    build_loss,
    is_only_for_training,
    loss_options,
    loss_title,
)
from speaker_encoder.losses.ge2e import GE2ELoss
from speaker_encoder.verification import in_batch_eer

KNOWN = ", ".join(sorted(LOSSES))


@pytest.fixture(params=sorted(LOSSES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_every_loss_gives_a_scalar_with_finite_non_zero_gradients(name: str) -> None:
    loss = build_loss(name, embedding_dim=8, num_speakers=10)
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(20, 8, generator=generator, requires_grad=True)
    value = loss(embeddings, torch.arange(10).repeat_interleave(2))
    value.backward()
    assert value.shape == ()
    assert value.isfinite()
    for gradient in (embeddings.grad, *(parameter.grad for parameter in loss.parameters())):
        assert gradient is not None
        assert gradient.isfinite().all()
    # a triplet may be easy enough already
    assert (embeddings.grad.abs().sum(dim=1) > 0).float().mean() > 0.9


def test_every_loss_can_overfit_free_embeddings(name: str) -> None:
    torch.manual_seed(0)
    loss = build_loss(name, embedding_dim=8, num_speakers=6)
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(12, 8, generator=generator, requires_grad=True)
    labels = torch.arange(6).repeat_interleave(2)
    optimizer = torch.optim.Adam([embeddings, *loss.parameters()], lr=0.05)
    first = loss(embeddings, labels).item()
    assert in_batch_eer(embeddings.detach().numpy(), labels.numpy()) > 0.3
    for _ in range(100):
        optimizer.zero_grad()
        value = loss(embeddings, labels)
        value.backward()
        optimizer.step()
    assert value.item() < 0.8 * first
    assert in_batch_eer(embeddings.detach().numpy(), labels.numpy()) < 0.2


def test_every_loss_keeps_its_state_through_a_state_dict(name: str) -> None:
    first = build_loss(name, embedding_dim=8, num_speakers=4)
    second = build_loss(name, embedding_dim=8, num_speakers=4)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(1.0)
    second.load_state_dict(first.state_dict())
    embeddings, labels = torch.randn(8, 8), torch.arange(4).repeat_interleave(2)
    assert torch.equal(first(embeddings, labels), second(embeddings, labels))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_loss_computes_half_precision_in_float32(name: str, dtype: torch.dtype) -> None:
    loss = build_loss(name, embedding_dim=8, num_speakers=4)
    half, labels = torch.randn(8, 8).to(dtype), torch.arange(4).repeat_interleave(2)
    expected = loss(half.float(), labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, same = loss(half, labels), loss(half.float(), labels)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected) and torch.equal(same, expected)


def test_every_loss_bears_equal_and_zero_embeddings(name: str) -> None:
    for rows in (torch.ones(6, 4), torch.zeros(6, 4)):
        embeddings = rows.requires_grad_()
        value = build_loss(name, 4, 3)(embeddings, torch.arange(3).repeat_interleave(2))
        value.backward()
        assert value.isfinite() and embeddings.grad.isfinite().all()


def test_forwards_before_a_backward_do_not_disturb_each_other(name: str) -> None:
    loss = build_loss(name, embedding_dim=8, num_speakers=4)
    labels = torch.arange(4).repeat_interleave(2)
    batches = torch.randn(2, 8, 8, requires_grad=True)
    leaves = [batches, *loss.parameters()]
    single = [torch.autograd.grad(loss(batch, labels), leaves) for batch in batches]
    together = torch.autograd.grad(sum(loss(batch, labels) for batch in batches), leaves)
    for found, one, other in zip(together, *single, strict=True):
        torch.testing.assert_close(found, one + other)


def test_options_reach_the_loss() -> None:
    loss = build_loss("ge2e", 192, variant="contrast", init_w=3.0, init_b=-1.0, activation="tanh")
    assert isinstance(loss, GE2ELoss)
    assert (loss.variant, loss.w.item(), loss.b.item(), loss.activation) == (
        "contrast",
        3.0,
        -1.0,
        "tanh",
    )


def test_a_whole_number_is_a_number_too() -> None:
    loss = build_loss("aam_softmax", 8, 4, scale=32, margin=0, easy_margin=True, inter_top_k=2)
    same = build_loss("aam_softmax", 8, 4, scale=32.0, margin=0.0, easy_margin=True, inter_top_k=2)
    same.load_state_dict(loss.state_dict())
    embeddings, labels = torch.randn(8, 8), torch.arange(8) % 4
    assert torch.equal(loss(embeddings, labels), same(embeddings, labels))


def test_options_are_listed_with_their_defaults() -> None:
    assert loss_options("ge2e") == {
        "variant": "softmax",
        "init_w": 10.0,
        "init_b": -5.0,
        "activation": None,
        "own_centroid": "exclusive",
    }


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("ge3e", {}, f"Unknown loss: 'ge3e'. Known: {KNOWN}. Did you mean 'ge2e'?"),
        ("xyz", {}, f"Unknown loss: 'xyz'. Known: {KNOWN}."),
        (
            "ge2e",
            {"varient": "softmax"},
            "Unknown option of the loss 'ge2e': 'varient'. "
            "Known: activation, init_b, init_w, own_centroid, variant. Did you mean 'variant'?",
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
        (
            "aam_softmax",
            {"easy_margin": "off"},
            "The option easy_margin of the loss 'aam_softmax' is true or false, such as False; "
            "found 'off' (str).",
        ),
        (
            "aam_softmax",
            {"inter_top_k": 1.5},
            "The option inter_top_k of the loss 'aam_softmax' is a whole number, such as 0; "
            "found 1.5 (float).",
        ),
        (
            "triplet",
            {"seed": True},
            "The option seed of the loss 'triplet' is a whole number, such as 0; "
            "found True (bool).",
        ),
        (
            "softmax_prototypical",
            {"init_w": None},
            "The option init_w of the loss 'softmax_prototypical' is a number, such as 10.0; "
            "found None (NoneType).",
        ),
        (
            "triplet",
            {"mining": ["batch_hard"]},
            "The option mining of the loss 'triplet' is a text, such as 'batch_hard'; "
            "found ['batch_hard'] (list).",
        ),
    ],
)
def test_errors_say_what_is_known(name: str, options: dict, text: str) -> None:
    with pytest.raises(UserError) as caught:
        build_loss(name, 192, 10, **options)
    assert str(caught.value) == text


def test_the_table_is_imported_without_torch() -> None:
    code = "import sys, speaker_encoder.losses; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


SUM = [{"name": "softmax"}, {"name": "angular_prototypical", "weight": 0.5, "init_w": 3.0}]


def test_a_sum_is_weighted() -> None:
    loss = build_chosen_loss(SUM, 8, 4)
    softmax, prototypical = build_loss("softmax", 8, 4), build_loss("angular_prototypical", 8)
    softmax.load_state_dict(loss.losses[0].state_dict())
    prototypical.load_state_dict(loss.losses[1].state_dict())
    assert prototypical.w.item() == 3.0
    embeddings, labels = torch.randn(8, 8), torch.arange(8) % 4
    expected = softmax(embeddings, labels) + 0.5 * prototypical(embeddings, labels)
    torch.testing.assert_close(loss(embeddings, labels), expected)
    assert is_only_for_training(loss)
    batch_losses = build_chosen_loss([{"name": "ge2e"}, {"name": "triplet"}], 8)
    assert not is_only_for_training(batch_losses)


def test_a_sum_names_the_part_that_is_wrong() -> None:
    with pytest.raises(UserError, match="Unknown option of the loss 'softmax': 'init_w'"):
        build_chosen_loss([{"name": "softmax", "init_w": 1.0}, {"name": "ge2e"}], 8, 4)


def test_titles() -> None:
    assert loss_title({"name": "ge2e", "variant": "softmax"}) == "ge2e"
    assert loss_title(SUM) == "softmax + 0.5 angular_prototypical"
