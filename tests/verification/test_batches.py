import math

import numpy as np
import pytest
import torch

from speaker_encoder.errors import UserError
from speaker_encoder.losses.ge2e import GE2ELoss
from speaker_encoder.verification import embedding_health, equal_error_rate, in_batch_eer


def make_batch(num_speakers: int, num_utterances: int, noise: float) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randperm(num_speakers * num_utterances, generator=generator) % num_speakers
    centres = torch.randn(num_speakers, 12, generator=generator)
    return centres[labels] + noise * torch.randn(len(labels), 12, generator=generator), labels * 5


def test_in_batch_eer_scores_what_ge2e_sees() -> None:
    embeddings, labels = make_batch(6, 8, noise=1.5)
    similarity = GE2ELoss().double().similarity(embeddings.double(), labels).detach()
    is_own = torch.eye(6, dtype=torch.bool)[:, None].expand(6, 8, 6)
    expected = equal_error_rate(similarity.flatten(), is_own.flatten())[0]
    assert 0.02 < expected < 0.4
    assert in_batch_eer(embeddings, labels) == pytest.approx(expected, abs=1e-12)


def test_in_batch_eer_of_a_hand_worked_batch() -> None:
    # Cosines with (own exclusive, other): speaker 0: 0, -1 and 0, 0; speaker 1: 1, -0.71 twice.
    # At >= 0: no target is missed, 1 of 4 nontargets accepted, tied with two targets; before it
    # 2 of 4 targets are missed. On that line fa = t / 4, miss = (1 - t) / 2: t = 2/3.
    rows = np.array([[1.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [-2.0, 0.0]])
    assert in_batch_eer(rows, [0, 0, 1, 1]) == pytest.approx(1 / 6)


def test_in_batch_eer_takes_unequal_counts() -> None:
    embeddings, _ = make_batch(2, 5, noise=0.0)
    labels = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1])
    centres = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    rows = centres[labels] + 0.01 * embeddings[:, :3].numpy()
    assert in_batch_eer(rows, labels) == 0.0


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 0, 1], [0, 1, 2]])
def test_in_batch_eer_needs_two_of_two(labels: list[int]) -> None:
    with pytest.raises(UserError, match="at least 2 speakers with at least 2 utterances each"):
        in_batch_eer(np.eye(3), labels)


def test_health_of_hand_worked_embeddings() -> None:
    # Orthogonal: full rank, cosine 0.
    cosine, rank = embedding_health(np.diag([1.0, 5.0, 0.1]))
    assert (cosine, rank) == (pytest.approx(0.0), pytest.approx(3.0))
    # All alike: rank 1, cosine 1.
    cosine, rank = embedding_health(np.ones((6, 4)))
    assert (cosine, rank) == (pytest.approx(1.0), pytest.approx(1.0, abs=1e-4))
    # Rows (1,0), (1,0), (0,1): cosines 1, 0, 0. Singular values sqrt(2), 1: p = 0.586, 0.414.
    cosine, rank = embedding_health(np.array([[1.0, 0], [1.0, 0], [0, 1.0]]))
    assert cosine == pytest.approx(1 / 3)
    p = math.sqrt(2) / (math.sqrt(2) + 1)
    assert rank == pytest.approx(math.exp(-p * math.log(p) - (1 - p) * math.log(1 - p)))


@pytest.mark.parametrize("shape", [(40, 8), (8, 40)])
def test_health_equals_a_naive_loop(shape: tuple[int, int]) -> None:
    rows = np.random.default_rng(0).normal(size=shape) + 0.5
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = [unit[i] @ unit[j] for i in range(len(unit)) for j in range(len(unit)) if i != j]
    shares = np.linalg.svd(unit, compute_uv=False)
    shares /= shares.sum()
    health = embedding_health(torch.from_numpy(rows).requires_grad_())
    assert health.mean_off_diagonal_cosine == pytest.approx(np.mean(cosines))
    assert health.effective_rank == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


def test_health_of_what_cannot_be_measured() -> None:
    assert all(math.isnan(value) for value in embedding_health(np.array([[1.0, np.nan], [0, 1]])))
    with pytest.raises(UserError, match=r"at least 2 embeddings, found shape \(1, 4\)"):
        embedding_health(np.ones((1, 4)))
