"""A speaker's embedding, and the utterances that do not belong to it."""

import numpy as np
import pytest

from speaker_encoder.export.averaging import (
    average_speaker,
    find_outliers,
    least_similar,
    leave_one_out_similarity,
)


def around(direction: int, count: int, spread: float, seed: int = 0, dim: int = 64) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(0, spread, (count, dim))
    rows[:, direction] += 1
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_mean_and_normalized_by_hand():
    rows = np.array([[1, 0], [0, 1]], np.float32)
    mean = average_speaker(rows, "mean")
    np.testing.assert_allclose(mean.vector, [0.5, 0.5])
    assert mean.dispersion == pytest.approx(1 - np.sqrt(0.5))
    np.testing.assert_allclose(average_speaker(rows, "normalized").vector, [np.sqrt(0.5)] * 2)
    np.testing.assert_allclose(mean.similarities, [0, 0], atol=1e-12)


def test_leave_one_out_similarity_equals_a_naive_loop():
    rows = around(0, 7, 0.2)
    naive = []
    for index in range(len(rows)):
        others = np.delete(rows, index, axis=0).astype(np.float64).mean(axis=0)
        naive.append(rows[index] @ others / np.linalg.norm(others))
    np.testing.assert_allclose(leave_one_out_similarity(rows), naive, atol=1e-6)
    assert leave_one_out_similarity(rows[:1]) == [1.0]


@pytest.mark.parametrize("num_strays", [1, 2, 3])
def test_robust_leaves_other_voices_out_and_names_them(num_strays):
    rows = np.concatenate([around(0, 10, 0.05), around(1, num_strays, 0.05, seed=9)])
    average = average_speaker(rows, "robust")
    assert list(np.flatnonzero(average.is_outlier)) == list(range(10, 10 + num_strays))
    np.testing.assert_allclose(average.vector, rows[:10].mean(axis=0), atol=1e-6)
    assert not average_speaker(rows, "mean").is_outlier.any()
    names = [str(number) for number in range(len(rows))]
    worst = least_similar(names, average.similarities, num_strays)
    assert {name for name, _ in worst} == set(names[10:])


def test_what_varies_a_little_or_is_too_few_has_no_outliers():
    assert not find_outliers(around(0, 30, 0.08)).any()
    assert not find_outliers(np.concatenate([around(0, 2, 0.01), around(1, 1, 0.01)])).any()


def test_at_least_half_stays():
    rows = np.concatenate([around(n, 1, 0.01, seed=n) for n in range(8)])
    assert (~find_outliers(rows)).sum() >= 4
