"""Losses that learn the training speakers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import cosine, cross_entropy, mean, random_batch
from torch import Tensor

from speaker_encoder.errors import UserError
from speaker_encoder.losses import build_loss, is_only_for_training

NAMES = ["softmax", "am_softmax", "aam_softmax", "softmax_prototypical"]
CLOSE = {"rtol": 1e-9, "atol": 1e-11}


def naive_margin_logits(
    embedding: Tensor, weight: Tensor, target: int, margin: float, kind: str
) -> list[Tensor]:
    """Of one utterance: cosines to the nearest sub-centres, the own one with its margin."""
    cosines = [max(cosine(embedding, centre) for centre in centres) for centres in weight]
    own = cosines[target]
    if kind == "am_softmax":
        cosines[target] = own - margin
    elif torch.acos(own) <= math.pi - margin:
        cosines[target] = torch.cos(torch.acos(own) + margin)
    else:
        cosines[target] = own - margin * math.sin(margin)
    return cosines


@pytest.mark.parametrize("kind", ["am_softmax", "aam_softmax"])
@settings(max_examples=20, deadline=None)
@given(
    num_speakers=st.integers(2, 6),
    num_utterances=st.integers(1, 4),
    dim=st.integers(2, 6),
    margin=st.sampled_from([0.0, 0.2, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_margin_losses_equal_the_naive_loop(
    kind: str, num_speakers: int, num_utterances: int, dim: int, margin: float, seed: int
) -> None:
    embeddings, labels = random_batch(num_speakers, num_utterances, dim, seed)
    loss = build_loss(kind, dim, num_speakers + 2, margin=margin, scale=7.0).double()
    ours = embeddings.clone().requires_grad_()
    value = loss(ours, labels)
    value.backward()

    naive = embeddings.clone().requires_grad_()
    weight = loss.weight.detach().clone().requires_grad_()
    expected = mean(
        [
            cross_entropy(
                [7.0 * c for c in naive_margin_logits(row, weight, label, margin, kind)], label
            )
            for row, label in zip(naive, labels.tolist(), strict=True)
        ]
    )
    expected.backward()
    torch.testing.assert_close(value, expected, **CLOSE)
    torch.testing.assert_close(ours.grad, naive.grad, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(loss.weight.grad, weight.grad, rtol=1e-6, atol=1e-8)


@settings(max_examples=20, deadline=None)
@given(top_k=st.integers(0, 6), sub_centres=st.integers(1, 3), seed=st.integers(0, 10_000))
def test_sub_centres_and_inter_top_k_equal_the_naive_loop(
    top_k: int, sub_centres: int, seed: int
) -> None:
    embeddings, labels = random_batch(4, 2, 5, seed)
    options = {"sub_centres": sub_centres, "inter_top_k": top_k, "inter_top_k_penalty": 0.1}
    loss = build_loss("aam_softmax", 5, 5, margin=0.3, scale=7.0, **options).double()
    expected = []
    for row, label in zip(embeddings, labels.tolist(), strict=True):
        logits = naive_margin_logits(row, loss.weight, label, 0.3, "aam_softmax")
        others = sorted((j for j in range(5) if j != label), key=lambda j: -logits[j].item())
        for j in others[:top_k]:
            logits[j] = torch.cos(torch.acos(logits[j]) - 0.1)
        expected.append(cross_entropy([7.0 * logit for logit in logits], label))
    assert loss.weight.shape == (5, sub_centres, 5)
    torch.testing.assert_close(loss(embeddings, labels), mean(expected), **CLOSE)


@settings(max_examples=15, deadline=None)
@given(num_speakers=st.integers(2, 6), dim=st.integers(1, 6), seed=st.integers(0, 10_000))
def test_softmax_equals_the_naive_loop(num_speakers: int, dim: int, seed: int) -> None:
    embeddings, labels = random_batch(num_speakers, 3, dim, seed)
    loss = build_loss("softmax", dim, num_speakers).double()
    weight, bias = loss.linear.weight, loss.linear.bias
    rows = zip(embeddings, labels.tolist(), strict=True)
    expected = mean(
        [
            cross_entropy([w @ row + b for w, b in zip(weight, bias, strict=True)], y)
            for row, y in rows
        ]
    )
    torch.testing.assert_close(loss(embeddings, labels), expected, **CLOSE)


def test_softmax_prototypical_is_the_sum_of_its_parts() -> None:
    embeddings, labels = random_batch(4, 3, 6, seed=1)
    loss = build_loss("softmax_prototypical", 6, 4, init_w=5.0).double()
    softmax = build_loss("softmax", 6, 4).double()
    softmax.load_state_dict(loss.losses[0].state_dict())
    prototypical = build_loss("angular_prototypical", 6, init_w=5.0).double()
    expected = softmax(embeddings, labels) + prototypical(embeddings, labels)
    torch.testing.assert_close(loss(embeddings, labels), expected, **CLOSE)


# Two speakers at (1, 0) and (0, 1); one utterance of speaker 0 at 45 degrees.
# am, m = 0.1, s = 2: logits 2 (0.707107 - 0.1) and 1.414214: log(1 + exp(0.2)) = 0.798139
# aam, m = pi / 12: cos(60 deg) = 0.5: log(1 + exp(1.414214 - 1)) = 0.921548
# easy margin changes nothing at 45 degrees; at 135 degrees (cosines -0.707107, 0.707107) it leaves
# the own cosine alone: log(1 + exp(2.828427)) = 2.885845
@pytest.mark.parametrize(
    ("name", "options", "degrees", "expected"),
    [
        ("am_softmax", {"margin": 0.1}, 45, 0.798139),
        ("aam_softmax", {"margin": math.pi / 12}, 45, 0.921548),
        ("aam_softmax", {"margin": math.pi / 12, "easy_margin": True}, 45, 0.921548),
        ("aam_softmax", {"margin": math.pi / 12, "easy_margin": True}, 135, 2.885845),
    ],
)
def test_hand_worked(name: str, options: dict, degrees: int, expected: float) -> None:
    loss = build_loss(name, 2, 2, scale=2.0, **options)
    with torch.no_grad():
        loss.weight.copy_(torch.eye(2)[:, None])
    angle = math.radians(degrees)
    embeddings = torch.tensor([[3 * math.cos(angle), 3 * math.sin(angle)]])
    assert loss(embeddings, torch.tensor([0])).item() == pytest.approx(expected, abs=1e-5)


def test_the_own_logit_falls_with_the_angle_up_to_180_degrees() -> None:
    loss = build_loss("aam_softmax", 2, 2, margin=0.5, scale=5.0).double()
    with torch.no_grad():
        loss.weight.copy_(torch.tensor([[[1.0, 0.0]], [[0.0, -1.0]]]))
    angles = torch.linspace(0.01, math.pi - 0.01, 200, dtype=torch.float64)
    rows = torch.stack((angles.cos(), angles.sin()), dim=1)
    own = loss._with_margin(loss.cosines(rows)[:, :1])[:, 0]
    assert (own.diff() < 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name: str) -> None:
    embeddings, labels = random_batch(3, 2, 4, seed=5)
    loss = build_loss(name, 4, 3).double()
    names = [key for key, _ in loss.named_parameters()]

    def value(rows: Tensor, *parameters: Tensor) -> Tensor:
        given = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(loss, given, (rows, labels))

    inputs = [p.detach().clone().requires_grad_() for p in loss.parameters()]
    assert torch.autograd.gradcheck(value, (embeddings.requires_grad_(), *inputs))


@pytest.mark.parametrize("name", ["am_softmax", "aam_softmax"])
def test_the_margin_rises_by_steps_and_not_by_batches(name: str) -> None:
    schedule = {"initial_margin": 0.1, "margin_start_step": 10, "margin_end_step": 20}
    loss = build_loss(name, 4, 3, margin=0.3, **schedule)
    margins = {}
    for step in (0, 10, 15, 20, 99):
        loss.set_step(step)
        margins[step] = loss.current_margin
    assert margins == pytest.approx({0: 0.1, 10: 0.1, 15: 0.2, 20: 0.3, 99: 0.3})
    embeddings, labels = random_batch(3, 2, 4, seed=0)
    loss.set_step(15)
    plain = build_loss(name, 4, 3, margin=0.2)
    plain.load_state_dict(loss.state_dict())
    for _ in range(3):  # batches of one accumulation
        assert torch.equal(loss(embeddings, labels), plain(embeddings, labels))
    assert build_loss(name, 4, 3, margin=0.3).current_margin == 0.3


def test_the_penalty_rises_with_the_margin() -> None:
    schedule = {"initial_margin": 0.0, "margin_end_step": 10}
    top = {"inter_top_k": 1, "inter_top_k_penalty": 0.1}
    loss = build_loss("aam_softmax", 4, 3, margin=0.4, **schedule, **top)
    embeddings, labels = random_batch(3, 2, 4, seed=0)
    for step, margin, penalty in ((0, 0.0, 0.0), (5, 0.2, 0.05), (10, 0.4, 0.1)):
        loss.set_step(step)
        top = {"inter_top_k": 1, "inter_top_k_penalty": penalty}
        plain = build_loss("aam_softmax", 4, 3, margin=margin, **top)
        plain.load_state_dict(loss.state_dict())
        torch.testing.assert_close(loss(embeddings, labels), plain(embeddings, labels))


@pytest.mark.parametrize("name", ["am_softmax", "aam_softmax"])
def test_an_utterance_on_its_centre_has_a_finite_gradient(name: str) -> None:
    loss = build_loss(name, 3, 2)
    embeddings = torch.stack((loss.weight[0, 0], -loss.weight[0, 0])).detach().requires_grad_()
    loss(embeddings, torch.tensor([0, 0])).backward()
    assert embeddings.grad.isfinite().all()
    assert loss.weight.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_they_are_only_for_training(name: str) -> None:
    assert is_only_for_training(build_loss(name, 4, 3))
    assert not is_only_for_training(build_loss("ge2e", 4, 3))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_out_of_range_is_named(name: str, label: int) -> None:
    with pytest.raises(UserError) as caught:
        build_loss(name, 4, 3)(torch.randn(4, 4), torch.tensor([0, label, 0, label]))
    assert f"3 training speakers, whose labels are 0 to 2; found the label {label}." in str(
        caught.value
    )


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_other_speakers_are_refused(name: str) -> None:
    stored = {f"loss_fn.{key}": w for key, w in build_loss(name, 4, 5).state_dict().items()}
    model = torch.nn.Module()
    model.loss_fn = build_loss(name, 4, 3)
    with pytest.raises(UserError) as caught:
        model.load_state_dict(stored, strict=False)
    assert "weights for 3 training speakers" in str(caught.value)
    assert "found (5, " in str(caught.value) and "another run_id" in str(caught.value)
    model.load_state_dict({}, strict=False)


@pytest.mark.parametrize("name", NAMES)
def test_they_need_the_number_of_speakers(name: str) -> None:
    with pytest.raises(UserError, match="needs num_speakers, the number of training speakers"):
        build_loss(name, 4)
    with pytest.raises(UserError, match="at least 2 training speakers, found 1"):
        build_loss(name, 4, 1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"margin": -0.1}, "margins of at least 0, found margin -0.1"),
        ({"margin": 2.0}, "an angle in radians, below pi / 2; found 2.0"),
        ({"scale": 0}, "aam_softmax needs a positive scale, found 0."),
        ({"margin_start_step": 5}, "margin_start_step to margin_end_step, found 5 and 0"),
        ({"sub_centres": 0}, "sub_centres of at least 1"),
    ],
)
def test_impossible_options(options: dict, text: str) -> None:
    with pytest.raises(UserError) as caught:
        build_loss("aam_softmax", 4, 3, **options)
    assert text in str(caught.value)
