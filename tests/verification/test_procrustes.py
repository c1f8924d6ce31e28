"""The rotation between two spaces: exact where it can be, careful where the data say nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from scipy.stats import ortho_group

from speaker_encoder.errors import UserError
from speaker_encoder.verification import Trials, equal_error_rate, evaluate, score_trials
from speaker_encoder.verification.cross_space import cross_space_rates
from speaker_encoder.verification.procrustes import (
    fit_rotation,
    orthogonality_error,
    row_cosines,
)


def unit_rows(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    rows = rng.standard_normal((count, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(2, 20), st.integers(0, 60))
def test_any_rotation_is_found_again(seed, dim, more):
    rng = np.random.default_rng(seed)
    new = unit_rows(rng, dim + 2 + more, dim)
    turn = ortho_group.rvs(dim, random_state=rng)  # also reflections
    found = fit_rotation(new, new @ turn, identity_weight=0)
    assert orthogonality_error(found) < 1e-12
    assert np.abs(new @ found - new @ turn).max() < 1e-6


def test_it_is_the_solution_of_scipy_with_and_without_weight():
    rng = np.random.default_rng(0)
    new, old = unit_rows(rng, 50, 8), unit_rows(rng, 50, 8)
    wanted, _ = orthogonal_procrustes(new, old)
    np.testing.assert_allclose(fit_rotation(new, old, identity_weight=0), wanted, atol=1e-9)
    further = np.sqrt(3.0) * np.eye(8)  # w more utterances along each axis, which stay
    wanted, _ = orthogonal_procrustes(np.vstack([new, further]), np.vstack([old, further]))
    np.testing.assert_allclose(fit_rotation(new, old, identity_weight=3), wanted, atol=1e-9)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_what_few_utterances_say_nothing_of_stays_as_it_is(weight):
    rng = np.random.default_rng(1)
    new = np.zeros((6, 40))
    new[:, :5] = unit_rows(rng, 6, 5)
    turn = np.eye(40)
    turn[:5, :5] = ortho_group.rvs(5, random_state=rng)
    found = fit_rotation(new, new @ turn, weight)
    assert orthogonality_error(found) < 1e-12
    np.testing.assert_allclose(found[5:, 5:], np.eye(35), atol=1e-9)
    if weight == 0:
        np.testing.assert_allclose(found, turn, atol=1e-6)
    np.testing.assert_allclose(fit_rotation(new, new, weight), np.eye(40), atol=1e-9)


def test_of_all_rotations_that_fit_equally_well_it_is_the_nearest_to_the_identity():
    rng = np.random.default_rng(2)
    new, old = unit_rows(rng, 4, 12), unit_rows(rng, 4, 12)
    found = fit_rotation(new, old, identity_weight=0)
    left, _, right = np.linalg.svd(new.T @ old)
    for _ in range(200):  # the same fit with any other turn of the eight free directions
        free = ortho_group.rvs(8, random_state=rng)
        other = left[:, :4] @ right[:4] + left[:, 4:] @ free @ right[4:]
        np.testing.assert_allclose(np.sum((new @ other) * old), np.sum((new @ found) * old))
        assert np.trace(other) <= np.trace(found)


def test_norms_and_scores_among_the_mapped_stay():
    rng = np.random.default_rng(3)
    new = rng.standard_normal((30, 10))
    mapped = new @ fit_rotation(unit_rows(rng, 30, 10), unit_rows(rng, 30, 10))
    np.testing.assert_allclose(np.linalg.norm(mapped, axis=1), np.linalg.norm(new, axis=1))
    trials = Trials(rng.integers(0, 30, 99), rng.integers(0, 30, 99), None)
    np.testing.assert_allclose(score_trials(mapped, trials), score_trials(new, trials), atol=1e-12)


@pytest.mark.parametrize(
    ("new", "old", "text"),
    [
        (np.ones((3, 4)), np.ones((3, 5)), r"\(3, 4\) and \(3, 5\)"),
        (np.ones((3, 4)), np.ones((2, 4)), r"\(3, 4\) and \(2, 4\)"),
        (np.ones((0, 4)), np.ones((0, 4)), "two embeddings of each utterance"),
        (np.ones((2, 2)), np.array([[1, np.nan], [0, 1]]), "not finite"),
    ],
)
def test_what_cannot_be_fitted_is_refused(new, old, text):
    with pytest.raises(UserError, match=text):
        fit_rotation(new, old)


def test_cosines_of_rows_by_hand():
    found = row_cosines([[3, 4], [1, 0], [0, 0]], [[4, 3], [-2, 0], [1, 1]])
    np.testing.assert_allclose(found, [24 / 25, -1, 0])


def test_error_rates_across_two_spaces_by_hand():
    rng = np.random.default_rng(4)
    speakers = [f"s{number // 4}" for number in range(24)]
    centres = {name: rng.standard_normal(6) for name in speakers}
    old = np.stack([centres[name] + rng.standard_normal(6) for name in speakers])
    turn = ortho_group.rvs(6, random_state=rng)
    new = (old + 0.3 * rng.standard_normal(old.shape)) @ turn
    first, second = np.triu_indices(24, 1)
    labels = np.array([speakers[a] == speakers[b] for a, b in zip(first, second, strict=True)])
    trials = Trials(first, second, labels)
    same, across, mapped = cross_space_rates(
        [(old, old), (old, new), (old, new @ turn.T)], trials, speakers, num_bootstrap=50
    )
    alone = evaluate(old, trials, speakers, num_bootstrap=50)
    assert (same.eer, same.interval) == (alone.eer, alone.eer_interval)
    for found, rows in ((across, new), (mapped, new @ turn.T)):
        scores = [
            old[a] @ rows[b] / np.linalg.norm(old[a]) / np.linalg.norm(rows[b])
            for a, b in zip(first, second, strict=True)
        ]
        assert found.eer == pytest.approx(equal_error_rate(scores, labels)[0])
        assert found.interval[0] <= found.eer <= found.interval[1]
    assert mapped.eer < across.eer
