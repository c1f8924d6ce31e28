import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from speaker_encoder.errors import UserError
from speaker_encoder.losses.batch import MIN_SCALE
from speaker_encoder.losses.ge2e import (
    GE2ELoss,
    centroid_cosines,
    contrast_loss,
    softmax_loss,
)

VARIANTS = ["softmax", "contrast"]


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b) / (a.norm() * b.norm())


def naive_ge2e(
    embeddings: Tensor, labels: Tensor, w: Tensor, b: Tensor, variant: str = "softmax"
) -> Tensor:
    """Wan et al. 2018, equations 4 to 10, one number at a time."""
    speakers = sorted(set(labels.tolist()))
    of = {
        s: [e / e.norm() for e, lb in zip(embeddings, labels, strict=True) if lb == s]
        for s in speakers
    }
    losses = []
    for j in speakers:
        for i, utterance in enumerate(of[j]):
            similarity = {}
            for k in speakers:
                members = [e for m, e in enumerate(of[k]) if not (k == j and m == i)]
                similarity[k] = w * cosine(utterance, sum(members) / len(members)) + b
            if variant == "softmax":
                total = sum(torch.exp(s) for s in similarity.values())
                losses.append(-similarity[j] + torch.log(total))
            else:
                hardest = max(torch.sigmoid(s) for k, s in similarity.items() if k != j)
                losses.append(1 - torch.sigmoid(similarity[j]) + hardest)
    return sum(losses) / len(losses)


def make_batch(
    num_speakers: int, num_utterances: int, dim: int, seed: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    batch_size = num_speakers * num_utterances
    labels = torch.arange(num_speakers).repeat_interleave(num_utterances) * 7 - 3
    labels = labels[torch.randperm(batch_size, generator=generator)]
    return torch.randn(batch_size, dim, generator=generator, dtype=dtype), labels


# Two speakers, two utterances each, in the plane; all cosines are 0, 1, or 1 / sqrt(2):
# speaker 0 says (1, 0), (0, 1); speaker 1 says (-1, 0), (-1, 0).
HAND_EMBEDDINGS = torch.tensor([[1.0, 0.0], [-2.0, 0.0], [0.0, 3.0], [-0.5, 0.0]])
HAND_LABELS = torch.tensor([4, 9, 4, 9])


def test_similarity_of_a_hand_worked_batch() -> None:
    loss = GE2ELoss(init_w=2.0, init_b=-1.0)
    similarity = loss.similarity(HAND_EMBEDDINGS, HAND_LABELS)
    # cos with (own exclusive centroid, the other's): e00: 0, -1; e01: 0, 0;
    # e10 = e11: (the other's first) cos((-1,0), (1,1)) = -1/sqrt(2), own 1.
    expected = torch.tensor(
        [
            [[-1.0, -3.0], [-1.0, -1.0]],
            [[-math.sqrt(2) - 1, 1.0], [-math.sqrt(2) - 1, 1.0]],
        ]
    )
    torch.testing.assert_close(similarity, expected)


def test_softmax_of_a_hand_worked_batch() -> None:
    value = GE2ELoss(init_w=2.0, init_b=-1.0)(HAND_EMBEDDINGS, HAND_LABELS)
    # margins own - other: 2, 0, 2 + sqrt(2) twice; loss log(1 + exp(-margin)):
    # 0.126928 + 0.693147 + 2 * 0.032371, over 4
    assert value.item() == pytest.approx(0.2212042, abs=1e-6)


def test_contrast_of_a_hand_worked_batch() -> None:
    value = GE2ELoss("contrast", init_w=2.0, init_b=-1.0)(HAND_EMBEDDINGS, HAND_LABELS)
    # 1 - s(-1) + s(-3) = 0.778484; 1 - s(-1) + s(-1) = 1; 2 * (1 - s(1) + s(-2.414214)) =
    # 2 * (0.268941 + 0.082096); over 4
    assert value.item() == pytest.approx(0.6201397, abs=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=25, deadline=None)
@given(
    num_speakers=st.integers(2, 6),
    num_utterances=st.integers(2, 5),
    dim=st.integers(2, 9),
    seed=st.integers(0, 10_000),
)
def test_equals_the_naive_loop_in_value_and_gradients(
    variant: str, num_speakers: int, num_utterances: int, dim: int, seed: int
) -> None:
    embeddings, labels = make_batch(num_speakers, num_utterances, dim, seed)
    loss = GE2ELoss(variant).double()
    ours = embeddings.clone().requires_grad_()
    value = loss(ours, labels)
    value.backward()

    naive = embeddings.clone().requires_grad_()
    w = torch.tensor(10.0, dtype=torch.float64, requires_grad=True)
    b = torch.tensor(-5.0, dtype=torch.float64, requires_grad=True)
    expected = naive_ge2e(naive, labels, w, b, variant)
    expected.backward()

    close = {"rtol": 1e-9, "atol": 1e-11}
    torch.testing.assert_close(value, expected, **close)
    torch.testing.assert_close(ours.grad, naive.grad, **close)
    torch.testing.assert_close(loss.w.grad, 0.01 * w.grad.reshape(1), **close)
    torch.testing.assert_close(loss.b.grad, 0.01 * b.grad.reshape(1), **close)


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=20, deadline=None)
@given(
    num_speakers=st.integers(2, 6),
    num_utterances=st.integers(2, 5),
    seed=st.integers(0, 10_000),
)
def test_the_order_of_the_batch_does_not_matter(
    variant: str, num_speakers: int, num_utterances: int, seed: int
) -> None:
    embeddings, labels = make_batch(num_speakers, num_utterances, 6, seed)
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed + 1))
    loss = GE2ELoss(variant).double()
    torch.testing.assert_close(
        loss(embeddings, labels), loss(embeddings[shuffled], labels[shuffled])
    )


@pytest.mark.parametrize("loss_of_similarity", [softmax_loss, contrast_loss])
def test_gradcheck(loss_of_similarity) -> None:
    generator = torch.Generator().manual_seed(3)
    embeddings = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    w = torch.tensor([4.0], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([-2.0], dtype=torch.float64, requires_grad=True)

    def value(embeddings: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return loss_of_similarity(w * centroid_cosines(embeddings) + b)

    assert torch.autograd.gradcheck(value, (embeddings, w, b))


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradcheck_of_the_whole_loss(variant: str) -> None:
    embeddings, labels = make_batch(3, 3, 4, seed=5)
    loss = GE2ELoss(variant).double()
    assert torch.autograd.gradcheck(lambda rows: loss(rows, labels), (embeddings.requires_grad_(),))


def test_negative_cosines_have_gradients() -> None:
    embeddings = HAND_EMBEDDINGS.clone().requires_grad_()
    cosines = centroid_cosines(embeddings[[0, 2, 1, 3]].reshape(2, 2, 2))
    assert cosines[1, 0, 0] < 0
    (gradient,) = torch.autograd.grad(cosines[1, 0, 0], embeddings)
    assert gradient.abs().sum() > 0.1


def test_the_own_centroid_leaves_the_utterance_out() -> None:
    # With an inclusive centroid random vectors would look like their own speaker.
    embeddings, labels = make_batch(6, 2, 192, seed=0)
    similarity = GE2ELoss(init_w=1.0, init_b=0.0).double().similarity(embeddings, labels)
    own = similarity.diagonal(dim1=0, dim2=2)
    assert own.abs().max() < 0.3


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("start", [1e-7, 10.0])
def test_w_stays_positive_under_a_huge_learning_rate(variant: str, start: float) -> None:
    # Labels at random: pushing w down lowers the loss, so steps aim below zero.
    embeddings, labels = make_batch(4, 3, 8, seed=1, dtype=torch.float32)
    loss = GE2ELoss(variant, init_w=start)
    optimizer = torch.optim.SGD(loss.parameters(), lr=1e5)
    steps_below_zero = 0
    for _ in range(20):
        optimizer.zero_grad()
        similarity = loss.similarity(embeddings, labels)
        assert loss.w.item() >= MIN_SCALE * 0.999
        cosines = (similarity - loss.b) / loss.w
        assert (cosines[similarity > loss.b] >= 0).all()
        loss(embeddings, labels).backward()
        assert loss.w.grad.isfinite().all()
        optimizer.step()
        steps_below_zero += loss.w.item() <= 0
    assert steps_below_zero > 0  # the projection had work to do


@pytest.mark.parametrize("variant", VARIANTS)
def test_w_comes_back_from_its_floor(variant: str) -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(4, 8, generator=generator)
    labels = torch.arange(16) % 4
    embeddings = centres[labels] + 0.1 * torch.randn(16, 8, generator=generator)
    loss = GE2ELoss(variant, init_b=0.0)
    with torch.no_grad():
        loss.w.fill_(-5.0)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        loss(embeddings, labels).backward()
        assert loss.w.grad > -math.inf
        assert loss.w.grad < 0
        optimizer.step()
    assert loss.w.item() > 1.0


def test_evaluation_changes_nothing_and_uses_a_positive_w() -> None:
    embeddings, labels = make_batch(3, 3, 4, seed=2)
    loss = GE2ELoss().double().eval()
    with torch.no_grad():
        loss.w.fill_(-5.0)
    with torch.inference_mode():
        similarity = loss.similarity(embeddings, labels)
    assert loss.w.item() == -5.0
    torch.testing.assert_close(similarity, torch.full_like(similarity, -5.0), atol=1e-5, rtol=0)


def test_two_forwards_before_one_backward() -> None:
    embeddings, labels = make_batch(3, 3, 4, seed=2)
    loss = GE2ELoss().double()
    (loss(embeddings, labels) + loss(2 * embeddings, labels)).backward()
    once = GE2ELoss().double()
    once(embeddings, labels).backward()
    torch.testing.assert_close(loss.w.grad, 2 * once.w.grad)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(variant: str, dtype: torch.dtype) -> None:
    embeddings, labels = make_batch(4, 3, 16, seed=4, dtype=torch.float32)
    half = embeddings.to(dtype)
    loss = GE2ELoss(variant)
    expected = loss(half.float(), labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(half, labels)
        same = loss(half.float(), labels)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)
    assert torch.equal(same, expected)


@pytest.mark.parametrize(
    ("activation", "function"),
    [("relu", torch.relu), ("tanh", torch.tanh), ("sigmoid", torch.sigmoid)],
)
def test_activation_is_applied_to_the_similarity_matrix(activation: str, function) -> None:
    embeddings, labels = make_batch(3, 3, 4, seed=6)
    plain = GE2ELoss().double().similarity(embeddings, labels)
    activated = GE2ELoss(activation=activation).double()
    assert torch.equal(activated.similarity(embeddings, labels), function(plain))
    assert torch.equal(activated(embeddings, labels), softmax_loss(function(plain)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_equal_and_zero_embeddings_give_finite_gradients(variant: str) -> None:
    for rows in (torch.ones(6, 4), torch.zeros(6, 4)):
        embeddings = rows.requires_grad_()
        value = GE2ELoss(variant)(embeddings, torch.arange(6) % 3)
        value.backward()
        assert value.isfinite()
        assert embeddings.grad.isfinite().all()


def test_equal_embeddings_cost_log_p() -> None:
    value = GE2ELoss()(torch.ones(8, 4), torch.arange(8) % 4)
    assert value.item() == pytest.approx(math.log(4), abs=1e-5)


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (
            [5, 5, 5],
            "GE2E needs at least 2 speakers in a batch, found 1. "
            "Raise speakers_per_batch, or add speakers.",
        ),
        (
            [5, 5, 7],
            "GE2E needs at least 2 utterances of each speaker in a batch, found 1 for speaker 7. "
            "Raise utterances_per_speaker.",
        ),
        (
            [7, 5, 7, 5, 7],
            "GE2E needs equally many utterances of each speaker in a batch, found 2 for speaker 5 "
            "and 3 for speaker 7.",
        ),
    ],
)
def test_errors_name_the_speaker(labels: list[int], text: str) -> None:
    with pytest.raises(UserError) as caught:
        GE2ELoss()(torch.randn(len(labels), 4), torch.tensor(labels))
    assert str(caught.value) == text


def test_shapes_that_do_not_belong_together() -> None:
    with pytest.raises(ValueError, match=r"found \(4, 3\) and \(5,\)"):
        GE2ELoss()(torch.randn(4, 3), torch.zeros(5, dtype=torch.long))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("variant", VARIANTS)
def test_gpu_equals_cpu(variant: str) -> None:
    embeddings, labels = make_batch(6, 4, 192, seed=8, dtype=torch.float32)
    loss = GE2ELoss(variant)
    expected = loss(embeddings, labels)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        value = loss.cuda()(embeddings.cuda(), labels.cuda())
    torch.testing.assert_close(value.cpu(), expected)
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss(embeddings.cuda(non_blocking=True), labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")
