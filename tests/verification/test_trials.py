import time
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker_encoder.errors import UserError
from speaker_encoder.verification import Trials, make_trials, score_trials


@dataclass
class Recording:
    speaker_id: str
    session_id: str | None = None
    path: str = ""


RECORDINGS = st.lists(
    st.builds(
        Recording,
        speaker_id=st.sampled_from(["a", "b", "c", "d"]),
        session_id=st.sampled_from([None, "1", "2"]),
    ),
    min_size=2,
    max_size=14,
)


def naive_pairs(recordings: list[Recording]) -> dict[tuple[int, int], bool]:
    pairs = {}
    for i, j in combinations(range(len(recordings)), 2):
        first, second = recordings[i], recordings[j]
        is_target = first.speaker_id == second.speaker_id
        known = first.session_id is not None and second.session_id is not None
        if is_target and known and first.session_id == second.session_id:
            continue
        pairs[i, j] = is_target
    return pairs


def as_dict(trials: Trials) -> dict[tuple[int, int], bool]:
    pairs = zip(trials.enrolment.tolist(), trials.test.tolist(), strict=True)
    return dict(zip(pairs, trials.labels.tolist(), strict=True))


@settings(max_examples=200, deadline=None)
@given(recordings=RECORDINGS, max_trials=st.integers(2, 100), seed=st.integers(0, 9))
def test_trials_are_pairs_of_the_naive_loop(
    recordings: list[Recording], max_trials: int, seed: int
) -> None:
    expected = naive_pairs(recordings)
    num_targets = sum(expected.values())
    if num_targets in (0, len(expected)):
        with pytest.raises(UserError):
            make_trials(recordings, max_trials=max_trials, seed=seed)
        return
    trials = make_trials(recordings, max_trials=max_trials, seed=seed)
    found = as_dict(trials)
    assert len(found) == len(trials) == min(max_trials, len(expected))  # none twice
    assert found.items() <= expected.items()
    assert list(found) == sorted(found)
    assert min(num_targets, max_trials // 2) <= sum(found.values()) < len(found)


def test_too_many_targets_and_nontargets_are_halved() -> None:
    recordings = [Recording(f"s{i % 4}") for i in range(80)]
    trials = make_trials(recordings, max_trials=100)
    assert (len(trials), int(trials.labels.sum())) == (100, 50)


def test_few_targets_are_all_kept_and_few_nontargets_too() -> None:
    few_targets = [Recording(f"s{i // 2}") for i in range(60)]
    trials = make_trials(few_targets, max_trials=100)
    assert (len(trials), int(trials.labels.sum())) == (100, 30)
    few_nontargets = [Recording("a") for _ in range(30)] + [Recording("b")]
    trials = make_trials(few_nontargets, max_trials=100)
    assert (len(trials), int(trials.labels.sum())) == (100, 70)


def test_the_sample_is_fixed_by_its_seed() -> None:
    recordings = [Recording(f"s{i % 10}") for i in range(100)]
    first, again, other = (make_trials(recordings, max_trials=60, seed=s) for s in (3, 3, 4))
    assert as_dict(first) == as_dict(again)
    assert as_dict(first) != as_dict(other)


def test_the_sample_is_uniform() -> None:
    recordings = [Recording("a")] * 6 + [Recording("b")] * 3 + [Recording("c")] * 1
    counts = np.zeros((10, 10))
    for seed in range(600):
        trials = make_trials(recordings, max_trials=10, seed=seed)
        counts[trials.enrolment, trials.test] += 1
    # 18 target and 27 nontarget pairs; 5 of each kind are drawn 600 times.
    expected = {True: 600 * 5 / 18, False: 600 * 5 / 27}
    for (i, j), is_target in naive_pairs(recordings).items():
        assert counts[i, j] == pytest.approx(expected[is_target], rel=0.35)


def test_a_hundred_thousand_utterances() -> None:
    recordings = [Recording(f"s{i % 500}", f"{i % 3}") for i in range(100_000)]
    start = time.perf_counter()
    trials = make_trials(recordings, max_trials=200_000)
    assert time.perf_counter() - start < 5.0
    assert (len(trials), int(trials.labels.sum())) == (200_000, 100_000)
    assert (trials.enrolment < trials.test).all()
    for i, j, label in list(zip(trials.enrolment, trials.test, trials.labels, strict=True))[::997]:
        first, second = recordings[i], recordings[j]
        assert label == (first.speaker_id == second.speaker_id)
        assert not (label and first.session_id == second.session_id)


@pytest.mark.parametrize(
    ("recordings", "text"),
    [
        ([], "Verification trials need at least 2 speakers, found 0. Add speakers."),
        (
            [Recording("a"), Recording("a")],
            "Verification trials need at least 2 speakers, found 1. Add speakers.",
        ),
        (
            [Recording("a", "1"), Recording("a", "1"), Recording("b", "1")],
            "No target trial is possible among 3 utterances: every speaker has only one "
            "utterance, or only one session (pairs within a session are left out). "
            "Add recordings, or give a trial list.",
        ),
    ],
)
def test_impossible_trials(recordings: list[Recording], text: str) -> None:
    with pytest.raises(UserError) as caught:
        make_trials(recordings)
    assert str(caught.value) == text


def test_max_trials_has_a_least_value() -> None:
    with pytest.raises(UserError, match="max_trials must be at least 2, found 1"):
        make_trials([Recording("a"), Recording("b")], max_trials=1)


def make_scored_trials(num_trials: int = 40_000) -> tuple[np.ndarray, Trials]:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 7)).astype(np.float32) * rng.uniform(0.1, 9, size=(50, 1))
    pairs = rng.integers(0, 50, size=(2, num_trials))
    return rows.astype(np.float32), Trials(pairs[0], pairs[1], None)


def test_scores_are_cosines() -> None:
    rows, trials = make_scored_trials()
    scores = score_trials(rows, trials)
    unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    expected = (unit @ unit.T)[trials.enrolment, trials.test]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert scores.dtype == np.float64
    assert np.abs(scores).max() <= 1.0


def test_scores_of_a_hand_worked_list() -> None:
    rows = np.array([[2.0, 0.0], [0.0, 3.0], [-1.0, 1.0]])
    trials = Trials(np.array([0, 0, 1, 2]), np.array([0, 1, 2, 0]), None)
    half = 1 / np.sqrt(2)
    np.testing.assert_allclose(score_trials(rows, trials), [1.0, 0.0, half, -half], atol=1e-15)


def test_tensors_are_scored_like_arrays() -> None:
    rows, trials = make_scored_trials(100)
    tensor = torch.from_numpy(rows).requires_grad_()
    np.testing.assert_array_equal(score_trials(tensor, trials), score_trials(rows, trials))
    half = score_trials(torch.from_numpy(rows).bfloat16(), trials)
    np.testing.assert_allclose(half, score_trials(rows, trials), atol=0.02)


def test_scoring_errors() -> None:
    rows, trials = make_scored_trials(100)
    with pytest.raises(ValueError, match="outside the 3 embeddings"):
        score_trials(rows[:3], trials)
    rows[7, 2] = np.nan
    with pytest.raises(UserError, match="1 of 50 embeddings are not finite, the first at posit"):
        score_trials(rows, trials)
    assert (score_trials(np.zeros((50, 2)), trials) == 0).all()
