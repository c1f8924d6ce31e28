"""Score normalisation against loops over single trials and cohort entries."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker_encoder.errors import UserError
from speaker_encoder.verification import ScoreNormaliser, Trials, cohort_means, score_trials
from speaker_encoder.verification import normalisation as module

WITHIN = 1e-6


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b))


def negative_distance(a: np.ndarray, b: np.ndarray) -> float:
    return -float(np.linalg.norm(a / np.linalg.norm(a) - b / np.linalg.norm(b)))


def naive(scores, trials, rows, cohort, kind, top_k, similarity=cosine) -> list[float]:
    found = []
    for score, e, t in zip(scores, trials.enrolment, trials.test, strict=True):
        parts = []
        for side, utterance in (("z", e), ("t", t)):
            against = sorted((similarity(rows[utterance], entry) for entry in cohort), reverse=True)
            if kind == "as":
                against = against[:top_k]
            mean = sum(against) / len(against)
            deviation = (sum((x - mean) ** 2 for x in against) / len(against)) ** 0.5
            if kind in (side, "s", "as"):
                parts.append((score - mean) / deviation)
        found.append(sum(parts) / len(parts))
    return found


def make(seed: int, num_utterances: int, cohort_size: int) -> tuple[np.ndarray, np.ndarray, Trials]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(num_utterances, 6)).astype(np.float32)
    cohort = rng.normal(size=(cohort_size, 6)).astype(np.float32)
    pairs = rng.integers(0, num_utterances, size=(2, 15))
    return rows, cohort, Trials(pairs[0], pairs[1], None)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    cohort_size=st.integers(2, 12),
    kind=st.sampled_from(["z", "t", "s", "as"]),
    top_k=st.integers(2, 14),
)
def test_equals_loops(seed: int, cohort_size: int, kind: str, top_k: int) -> None:
    rows, cohort, trials = make(seed, 7, cohort_size)
    scores = score_trials(rows, trials)
    normaliser = ScoreNormaliser(rows, cohort, kind, top_k)
    expected = naive(
        scores, trials, rows.astype(float), cohort.astype(float), kind, min(top_k, cohort_size)
    )
    # Two equal best scores of a cohort of 2 make a deviation near 0: compare relatively then.
    np.testing.assert_allclose(normaliser.apply(scores, trials), expected, WITHIN, WITHIN)


def test_the_negative_distance() -> None:
    rows, cohort, trials = make(3, 7, 20)
    scores = [
        negative_distance(rows[a], rows[b])
        for a, b in zip(trials.enrolment, trials.test, strict=True)
    ]
    found = ScoreNormaliser(rows, cohort, "as", 5, score="l2").apply(scores, trials)
    expected = naive(
        scores, trials, rows.astype(float), cohort.astype(float), "as", 5, negative_distance
    )
    np.testing.assert_allclose(found, expected, WITHIN, WITHIN)


def test_hand_worked() -> None:
    # Against the cohort (1, 0), (0, 1): utterance 0 scores 1 and 0 (mean 1/2, deviation 1/2);
    # utterance 1 scores 0.6 and 0.8 (mean 0.7, deviation 0.1). Their own score is 0.6.
    rows, cohort = [[2.0, 0.0], [3.0, 4.0]], [[1.0, 0.0], [0.0, 5.0]]
    trials = Trials(np.array([0]), np.array([1]), None)
    wanted = {"z": 0.2, "t": -1.0, "s": -0.4, "as": -0.4}
    for kind, score in wanted.items():
        assert ScoreNormaliser(rows, cohort, kind).apply([0.6], trials) == pytest.approx([score])


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, cohort, trials = make(0, 9, 30)
    scores = score_trials(rows, trials)
    expected = ScoreNormaliser(rows, cohort, "as", 7).apply(scores, trials)
    monkeypatch.setattr(module, "SCORES_AT_ONCE", 60)
    found = ScoreNormaliser(torch.from_numpy(rows), torch.from_numpy(cohort), "as", 7)
    np.testing.assert_allclose(found.apply(scores, trials), expected, 1e-12)


def test_only_the_side_that_counts_is_scored() -> None:
    rows, cohort, _ = make(0, 4, 5)
    rows[3] = 0.0  # silence: its scores against the cohort are all 0
    trials = Trials(np.array([0, 1]), np.array([3, 3]), None)
    assert len(ScoreNormaliser(rows, cohort, "z").apply([0.1, 0.2], trials)) == 2
    with pytest.raises(UserError, match="1 utterances against the cohort are all equal, the first"):
        ScoreNormaliser(rows, cohort, "t").apply([0.1, 0.2], trials)


def test_top_k_is_at_most_the_cohort() -> None:
    rows, cohort, trials = make(0, 4, 5)
    scores = score_trials(rows, trials)
    adaptive = ScoreNormaliser(rows, cohort)
    assert (adaptive.kind, adaptive.top_k, adaptive.cohort_size) == ("as", 5, 5)
    plain = ScoreNormaliser(rows, cohort, "s")
    np.testing.assert_allclose(adaptive.apply(scores, trials), plain.apply(scores, trials))


def test_cohort_means() -> None:
    rows = [[0.0, 2.0], [1.0, 0.0], [3.0, 0.0], [0.0, 1.0]]
    # b: the mean of (0, 1) and (1, 0); a: (1, 0) and (0, 1) too, of unequal lengths.
    means = cohort_means(rows, ["b", "b", "a", "a"])
    np.testing.assert_allclose(means, np.full((2, 2), 0.5**0.5))
    alone = cohort_means(rows, ["d", "c", "b", "a"])
    np.testing.assert_allclose(alone, [[0, 1], [1, 0], [1, 0], [0, 1]])


def test_normalising_helps_when_utterances_are_shifted() -> None:
    from speaker_encoder.verification import equal_error_rate

    # Half of the speakers share a component (a sex, a channel) that raises their mutual scores.
    rng = np.random.default_rng(0)
    centres, common = rng.normal(size=(40, 24)), 2.0 * rng.normal(size=24)
    speakers = np.repeat(np.arange(40), 4)
    rows = centres[speakers] + 0.8 * rng.normal(size=(160, 24))
    rows[80:] += common
    cohort = rng.normal(size=(400, 24)) + (rng.random((400, 1)) < 0.5) * common
    first, second = np.triu_indices(160, k=1)
    trials = Trials(first, second, speakers[first] == speakers[second])
    scores = score_trials(rows, trials)
    raw = equal_error_rate(scores, trials.labels)[0]
    for kind in ("s", "as"):
        normalised = ScoreNormaliser(rows, cohort, kind, 100).apply(scores, trials)
        assert equal_error_rate(normalised, trials.labels)[0] < 0.8 * raw


def test_errors() -> None:
    rows, cohort, trials = make(0, 4, 5)
    with pytest.raises(UserError, match="Unknown score normalisation 'a'; known: z, t, s, as"):
        ScoreNormaliser(rows, cohort, "a")
    with pytest.raises(UserError, match="top_k must be at least 2, found 1"):
        ScoreNormaliser(rows, cohort, top_k=1)
    with pytest.raises(UserError, match="a cohort of at least 2 entries, found 1"):
        ScoreNormaliser(rows, cohort[:1])
    with pytest.raises(UserError, match="The cohort has embeddings of 5 dimensions, the trials of"):
        ScoreNormaliser(rows, cohort[:, :5])
    broken = cohort.copy()
    broken[2, 1] = np.nan
    with pytest.raises(UserError, match="cohort's embeddings are not finite in 1 rows, the first"):
        ScoreNormaliser(rows, broken)
    with pytest.raises(UserError, match="must be a table, a row for each; found shape"):
        ScoreNormaliser(rows[0], cohort)
    with pytest.raises(ValueError, match="Wanted 15 scores, found shape"):
        ScoreNormaliser(rows, cohort).apply([0.1], trials)
    with pytest.raises(UserError, match="found 5 embeddings and 1 speakers"):
        cohort_means(cohort, ["a"])
    same = np.ones((5, 6))
    with pytest.raises(UserError, match="all equal"):
        ScoreNormaliser(rows, same).apply(score_trials(rows, trials), trials)
