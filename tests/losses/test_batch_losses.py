"""Losses that look at nothing but the batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import by_speaker, cosine, cross_entropy, mean, random_batch, squared_distance
from torch import Tensor

from speaker_encoder.errors import UserError
from speaker_encoder.losses import build_loss

CLOSE = {"rtol": 1e-9, "atol": 1e-11}
MARGIN = 0.4


def naive_prototypical(embeddings: Tensor, labels: Tensor) -> Tensor:
    speakers = by_speaker(embeddings, labels)
    logits = [
        [-((rows[0] - mean(others[1:])) ** 2).sum() for others in speakers] for rows in speakers
    ]
    return mean([cross_entropy(row, j) for j, row in enumerate(logits)])


def naive_angular_prototypical(embeddings: Tensor, labels: Tensor) -> Tensor:
    speakers = by_speaker(embeddings, labels)
    logits = [
        [10.0 * cosine(rows[0], mean(others[1:])) - 5.0 for others in speakers] for rows in speakers
    ]
    return mean([cross_entropy(row, j) for j, row in enumerate(logits)])


def naive_inclusive_ge2e(embeddings: Tensor, labels: Tensor) -> Tensor:
    speakers = [[row / row.norm() for row in rows] for rows in by_speaker(embeddings, labels)]
    return mean(
        [
            cross_entropy([10.0 * cosine(row, mean(others)) - 5.0 for others in speakers], j)
            for j, rows in enumerate(speakers)
            for row in rows
        ]
    )


def naive_sup_con(embeddings: Tensor, labels: Tensor) -> Tensor:
    anchors = []
    for i, row in enumerate(embeddings):
        others = [a for a in range(len(labels)) if a != i]
        logits = [cosine(row, embeddings[a]) / 0.1 for a in others]
        own = [n for n, a in enumerate(others) if labels[a] == labels[i]]
        anchors.append(mean([cross_entropy(logits, n) for n in own]))
    return mean(anchors)


def naive_batch_hard(embeddings: Tensor, labels: Tensor) -> Tensor:
    anchors = []
    for i, row in enumerate(embeddings):
        distances = [squared_distance(row, other) for other in embeddings]
        own = [d for n, d in enumerate(distances) if labels[n] == labels[i] and n != i]
        others = [d for n, d in enumerate(distances) if labels[n] != labels[i]]
        anchors.append(torch.clamp(max(own) - min(others) + MARGIN, min=0))
    return mean(anchors)


LOSSES = {
    "prototypical": (naive_prototypical, {}),
    "angular_prototypical": (naive_angular_prototypical, {}),
    "ge2e": (naive_inclusive_ge2e, {"own_centroid": "inclusive"}),
    "sup_con": (naive_sup_con, {}),
    "triplet": (naive_batch_hard, {"margin": MARGIN}),
}


@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=15, deadline=None)
@given(
    num_speakers=st.integers(2, 5),
    num_utterances=st.integers(2, 4),
    dim=st.integers(2, 6),
    seed=st.integers(0, 10_000),
)
def test_equals_the_naive_loop_in_value_and_gradients(
    name: str, num_speakers: int, num_utterances: int, dim: int, seed: int
) -> None:
    embeddings, labels = random_batch(num_speakers, num_utterances, dim, seed)
    naive, options = LOSSES[name]
    loss = build_loss(name, dim, **options).double()
    ours, theirs = (embeddings.clone().requires_grad_() for _ in range(2))
    value, expected = loss(ours, labels * 7 - 3), naive(theirs, labels * 7 - 3)
    torch.testing.assert_close(value, expected, **CLOSE)
    value.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(name: str) -> None:
    embeddings, labels = random_batch(3, 3, 4, seed=5)
    loss = build_loss(name, 4, **LOSSES[name][1]).double()
    assert torch.autograd.gradcheck(lambda rows: loss(rows, labels), (embeddings.requires_grad_(),))


# In the plane, two speakers with two utterances each, the queries first:
# speaker 0: (1, 0), (0, 1); speaker 1: (0, -1), (-1, 0).
HAND = torch.tensor([[1.0, 0.0], [0.0, -1.0], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
HAND_LABELS = torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        # squared distances of the queries to (own, other): 2 and 4, 2 and 4: log(1 + exp(-2))
        ("prototypical", {}, 0.126928),
        # cosines to (own, other): 0 and -1, 0 and -1; w = 2: log(1 + exp(-2))
        ("angular_prototypical", {"init_w": 2.0}, 0.126928),
        # cosines of (1, 0): own 0, others 0 and -1, and so all around; t = 1:
        # log(exp(0) + exp(0) + exp(-1)) = log(2.367879)
        ("sup_con", {"temperature": 1.0}, 0.861995),
        # all own distances 2, nearest of the other 2: the margin
        ("triplet", {"margin": 0.25}, 0.25),
        # inclusive centroids (1, 1) / 2 and (-1, -1) / 2: cosines +-0.707107; w = 1:
        # log(1 + exp(-1.414214))
        ("ge2e", {"own_centroid": "inclusive", "init_w": 1.0}, 0.217616),
    ],
)
def test_hand_worked(name: str, options: dict, expected: float) -> None:
    value = build_loss(name, 2, **options)(HAND, HAND_LABELS)
    assert value.item() == pytest.approx(expected, abs=1e-5)


def test_the_inclusive_centroid_knows_the_utterance() -> None:
    # what Speaker_Embedding_Torch's loss sees of vectors that say nothing about speakers
    embeddings, labels = random_batch(6, 8, 192, seed=0)
    inclusive = build_loss("ge2e", 192, own_centroid="inclusive")(embeddings, labels)
    exclusive = build_loss("ge2e", 192)(embeddings, labels)
    assert inclusive < 0.5 < 1.8 < exclusive


def naive_drawn(
    embeddings: Tensor, labels: Tensor, mining: str, draws: np.ndarray, hard: tuple[int, float]
) -> Tensor:
    """Triplets of every anchor and positive in the order of the batch, sorted by speaker."""
    order = labels.argsort(stable=True).tolist()
    hinges = []
    for row, i in enumerate(order):
        other = [n for n in order if labels[n] != labels[i]]
        distances = sorted(squared_distance(embeddings[i], embeddings[n]) for n in other)
        own = [n for n in order if labels[n] == labels[i] and n != i]
        for column, n in enumerate(own):
            positive = squared_distance(embeddings[i], embeddings[n])
            if mining == "semi_hard":
                allowed = [d for d in distances if positive < d < positive + MARGIN] or distances
            else:
                is_hard = draws[1, row, column] < hard[1]
                allowed = distances[: hard[0] + 1] if is_hard else distances
            negative = allowed[int(draws[0, row, column] * len(allowed))]
            hinges.append(torch.clamp(positive - negative + MARGIN, min=0))
    return mean(hinges)


@pytest.mark.parametrize("mining", ["semi_hard", "hard_rank"])
@settings(max_examples=15, deadline=None)
@given(
    num_speakers=st.integers(2, 5),
    num_utterances=st.integers(2, 4),
    hard=st.tuples(st.integers(0, 12), st.sampled_from([0.0, 0.5, 1.0])),
    step=st.integers(0, 10_000),
)
def test_drawn_triplets_equal_the_naive_loop(
    mining: str, num_speakers: int, num_utterances: int, hard: tuple[int, float], step: int
) -> None:
    embeddings, labels = random_batch(num_speakers, num_utterances, 3, seed=step)
    options = {"margin": MARGIN, "hard_rank": hard[0], "hard_prob": hard[1], "seed": 3}
    loss = build_loss("triplet", 3, mining=mining, **options)
    loss.set_step(step)
    draws = np.random.default_rng([3, 1, step]).random((2, len(labels), num_utterances - 1))
    ours, theirs = (embeddings.clone().requires_grad_() for _ in range(2))
    value, expected = loss(ours, labels), naive_drawn(theirs, labels, mining, draws, hard)
    torch.testing.assert_close(value, expected, **CLOSE)
    value.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("mining", ["semi_hard", "hard_rank"])
def test_draws_follow_from_the_step_and_evaluation_draws_as_step_0(mining: str) -> None:
    embeddings, labels = random_batch(8, 3, 4, seed=0)
    loss = build_loss("triplet", 4, mining=mining, margin=MARGIN)
    first = loss(embeddings, labels)
    loss.set_step(5)
    other = loss(embeddings, labels)
    assert torch.equal(loss(embeddings, labels), other) and not torch.equal(first, other)
    assert torch.equal(loss.eval()(embeddings, labels), first)


def naive_nt_xent(embeddings: Tensor, labels: Tensor, pairs: list[list[int]]) -> Tensor:
    utterances = by_speaker(embeddings, labels)
    total = torch.zeros((), dtype=torch.float64)
    for pair in pairs:
        rows = [(number, views[view]) for number, views in enumerate(utterances) for view in pair]
        values = []
        for i, (number, row) in enumerate(rows):
            others = [n for n in range(len(rows)) if n != i]
            logits = [cosine(row, rows[n][1]) / 0.5 for n in others]
            partner = next(place for place, n in enumerate(others) if rows[n][0] == number)
            values.append(cross_entropy(logits, partner))
        total = total + mean(values)
    return total


@settings(max_examples=15, deadline=None)
@given(
    num_utterances=st.integers(2, 5),
    pairs=st.sampled_from([[[0, 1]], [[0, 1], [0, 2], [1, 3]], [[2, 0], [1, 2]]]),
    seed=st.integers(0, 10_000),
)
def test_nt_xent_equals_the_naive_loop(num_utterances: int, pairs: list, seed: int) -> None:
    num_views = 1 + max(view for pair in pairs for view in pair)
    embeddings, labels = random_batch(num_utterances, num_views, 4, seed)
    ours, theirs = (embeddings.clone().requires_grad_() for _ in range(2))
    loss = build_loss("nt_xent", 4, pairs=pairs)
    value, expected = loss(ours, labels), naive_nt_xent(theirs, labels, pairs)
    torch.testing.assert_close(value, expected, **CLOSE)
    value.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-7, atol=1e-9)
    assert torch.autograd.gradcheck(lambda rows: loss(rows, labels), (ours,))


def test_nt_xent_by_hand() -> None:
    # views of two utterances: (1, 0), (0, 1) and (-1, 0), (0, -1); t = 1. Each row's cosines: own
    # other view 0, the others 0 and -1: log(exp(0) + exp(0) + exp(-1)) = log(2.367879)
    rows = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.0, -1.0]])
    loss = build_loss("nt_xent", 2, temperature=1.0)
    value = loss(rows, torch.tensor([0, 0, 1, 1]))
    assert value.item() == pytest.approx(0.861995, abs=1e-5)


@pytest.mark.parametrize(
    "name", ["prototypical", "angular_prototypical", "sup_con", "triplet", "nt_xent"]
)
@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ([5, 5, 5], "needs at least 2 speakers in a batch, found 1. Raise speakers_per_batch"),
        ([5, 5, 7], "at least 2 utterances of each speaker in a batch, found 1 for speaker 7."),
        ([7, 5, 7, 5, 7], "equally many utterances of each speaker in a batch, found 2 for"),
    ],
)
def test_the_shape_of_the_batch_is_checked(name: str, labels: list[int], text: str) -> None:
    with pytest.raises(UserError) as caught:
        build_loss(name, 4)(torch.randn(len(labels), 4), torch.tensor(labels))
    assert str(caught.value).startswith(f"{name} needs") and text in str(caught.value)


def test_the_views_of_nt_xent_are_checked() -> None:
    with pytest.raises(UserError) as caught:
        build_loss("nt_xent", 4)(torch.randn(6, 4), torch.tensor([0, 0, 0, 1, 1, 1]))
    assert str(caught.value) == (
        "nt_xent's pairs name 2 views, and the batch has 3 of each utterance. Set "
        "utterances_per_speaker to 2, or name other pairs."
    )


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("triplet", {"mining": "hard"}, "minings batch_hard, semi_hard, hard_rank; found 'hard'."),
        ("triplet", {"hard_prob": 1.5}, "a hard_prob from 0 to 1"),
        ("triplet", {"margin": 0}, "a positive margin"),
        ("sup_con", {"temperature": 0.0}, "sup_con needs a positive temperature, found 0.0."),
        ("angular_prototypical", {"init_w": -1.0}, "needs a positive init_w, found -1.0."),
        ("ge2e", {"own_centroid": "both"}, "exclusive or inclusive; found 'both'."),
        ("nt_xent", {"pairs": [[0, 2]]}, "with none left out, such as [[0, 1]]; found [[0, 2]]."),
        ("nt_xent", {"pairs": [[0, 1], [1, 1]]}, "two different views each"),
        ("nt_xent", {"pairs": []}, "found []."),
    ],
)
def test_impossible_options(name: str, options: dict, text: str) -> None:
    with pytest.raises(UserError) as caught:
        build_loss(name, 4, **options)
    assert text in str(caught.value)
