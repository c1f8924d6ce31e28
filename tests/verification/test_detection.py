"""All figures with their intervals, against repeated trials."""

import json
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker_encoder.errors import UserError
from speaker_encoder.verification import (
    ScoreNormaliser,
    Trials,
    actual_dcf,
    cllr,
    compare_scores,
    detection_figures,
    equal_error_rate,
    min_cllr,
    min_dcf,
    resampled,
    score_runs,
    score_trials,
)
from speaker_encoder.verification.bootstrap import SpeakerBootstrap
from speaker_encoder.verification.detection import error_rates_at, threshold_at_false_accept_rate
from speaker_encoder.verification.resampled import ResampledScores, draw_figures

SCORED = st.lists(
    st.tuples(st.integers(-4, 4).map(lambda n: n / 4), st.booleans()), min_size=2, max_size=40
).filter(lambda trials: len({label for _, label in trials}) == 2)


def all_pairs(num_speakers: int, num_utterances: int) -> tuple[Trials, list[str]]:
    speaker_ids = [f"s{n:03}" for n in range(num_speakers) for _ in range(num_utterances)]
    first, second = np.triu_indices(len(speaker_ids), k=1)
    names = np.array(speaker_ids)
    return Trials(first, second, names[first] == names[second]), speaker_ids


def some_scores(trials: Trials, seed: int, num_digits: int = 8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.round(2 * rng.normal(size=len(trials)) + 3 * trials.labels - 1, num_digits)


@settings(max_examples=60, deadline=None)
@given(
    num_speakers=st.integers(2, 7),
    seed=st.integers(0, 1000),
    num_digits=st.sampled_from([-2, 0, 1, 8]),  # all equal, many ties, few, none
    share_kept=st.sampled_from([0.5, 1.0]),
)
def test_a_draw_equals_repeated_trials(
    num_speakers: int, seed: int, num_digits: int, share_kept: float
) -> None:
    trials, speaker_ids = all_pairs(num_speakers, 3)
    kept = np.random.default_rng(seed).random(len(trials)) < share_kept
    kept[[0, -3]] = True  # a target and a nontarget, at the least
    kept[np.flatnonzero(~trials.labels)[0]] = True
    trials = Trials(trials.enrolment[kept], trials.test[kept], trials.labels[kept])
    scores = some_scores(trials, seed, num_digits)
    bootstrap = SpeakerBootstrap.from_trials(trials, speaker_ids)
    priors = (0.01, 0.3)
    system = ResampledScores.from_scores(scores, bootstrap, priors)
    (found,) = draw_figures([system], bootstrap, num_bootstrap=9, seed=seed, num_min_cllr=9)
    copies = np.concatenate(list(bootstrap.copies(9, seed)), axis=1)
    for draw in range(9):
        # The naive way: a speaker's copies, counted for each trial by itself.
        times = [
            copies[a, draw] * (copies[b, draw] if a != b else 1)
            for a, b in zip(bootstrap.enrolment_speaker, bootstrap.test_speaker, strict=True)
        ]
        repeated = np.repeat(scores, np.array(times, dtype=int))
        labels = np.repeat(trials.labels, np.array(times, dtype=int))
        assert found.eer[draw] == pytest.approx(equal_error_rate(repeated, labels)[0], abs=1e-9)
        assert found.min_cllr[draw] == pytest.approx(min_cllr(repeated, labels), abs=1e-9)
        assert found.cllr[draw] == pytest.approx(cllr(repeated, labels), abs=1e-6)
        for i, prior in enumerate(priors):
            assert found.min_dcf[draw, i] == pytest.approx(
                min_dcf(repeated, labels, prior), abs=1e-9
            )
            assert found.act_dcf[draw, i] == pytest.approx(
                actual_dcf(repeated, labels, prior), abs=1e-4
            )


@pytest.mark.parametrize("num_bins", [1, 2, 7, 30])
@pytest.mark.parametrize("num_digits", [0, 1, 8])
def test_bins_and_blocks_change_nothing(
    num_bins: int, num_digits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials, speaker_ids = all_pairs(12, 4)
    scores = some_scores(trials, 1, num_digits)
    expected = detection_figures(scores, trials, speaker_ids, num_bootstrap=40, calibrated=True)
    monkeypatch.setattr(score_runs, "TRIALS_AT_ONCE", 17)
    monkeypatch.setattr(resampled, "VALUES_AT_ONCE", 1000)
    monkeypatch.setattr(resampled, "DRAWS_AT_ONCE", 9)
    monkeypatch.setattr(resampled, "NUM_BINS", num_bins)
    found = detection_figures(scores, trials, speaker_ids, num_bootstrap=40, calibrated=True)
    for name in ("eer", "min_cllr", "cllr"):
        assert getattr(found, name).interval == pytest.approx(
            getattr(expected, name).interval, abs=1e-6
        )
    for p in (0.01, 0.05):
        assert found.min_dcf[p] == expected.min_dcf[p]
        assert found.act_dcf[p].interval == pytest.approx(expected.act_dcf[p].interval, abs=1e-4)


def test_all_figures_of_calibrated_scores() -> None:
    trials, speaker_ids = all_pairs(15, 4)
    scores, labels = some_scores(trials, seed=0), trials.labels
    found = detection_figures(
        scores, trials, speaker_ids, p_targets=(0.01, 0.05, 0.5), num_bootstrap=50, calibrated=True
    )
    assert (found.eer.value, found.eer.threshold) == equal_error_rate(scores, labels)
    assert found.cllr.value == cllr(scores, labels)
    assert found.min_cllr.value == min_cllr(scores, labels)
    assert list(found.min_dcf) == list(found.act_dcf) == [0.01, 0.05, 0.5]
    for p, cost in found.min_dcf.items():
        assert cost.value == min_dcf(scores, labels, p)
        # The threshold of the least cost has that cost.
        assert actual_dcf(scores, labels, p, cost.threshold) == pytest.approx(cost.value)
        assert found.act_dcf[p].value == actual_dcf(scores, labels, p)
        assert found.act_dcf[p].threshold == pytest.approx(math.log((1 - p) / p))
    for figure in (
        found.eer,
        found.cllr,
        found.min_cllr,
        *found.min_dcf.values(),
        *found.act_dcf.values(),
    ):
        low, high = figure.interval
        assert low <= high
        assert low <= figure.value + 0.1 and figure.value - 0.1 <= high
    assert (found.num_targets, found.num_nontargets, found.num_speakers) == (90, 1680, 15)
    again = detection_figures(
        scores, trials, speaker_ids, p_targets=(0.01, 0.05, 0.5), num_bootstrap=50, calibrated=True
    )
    assert again == found


def test_uncalibrated_scores_have_no_actual_costs() -> None:
    trials, speaker_ids = all_pairs(6, 3)
    found = detection_figures(some_scores(trials, 0), trials, speaker_ids, num_bootstrap=5)
    assert found.act_dcf is None and found.cllr is None and not found.is_calibrated
    as_read = json.loads(json.dumps(found.as_dict()))
    assert as_read["act_dcf"] is None and as_read["cllr"] is None
    assert as_read["min_dcf"]["0.01"]["value"] == found.min_dcf[0.01].value
    assert as_read["eer"]["interval"] == list(found.eer.interval)
    assert as_read["bootstrap"]["num_draws"] == 5
    assert as_read["bootstrap"]["num_speakers"] == 6


def test_without_intervals() -> None:
    trials, speaker_ids = all_pairs(4, 2)
    scores = some_scores(trials, 0)
    found = detection_figures(scores, trials, speaker_ids, num_bootstrap=0, calibrated=True)
    assert found.eer.interval is None and found.cllr.interval is None
    assert found.as_dict()["eer"]["interval"] is None
    assert found.note == "no intervals were asked for"


def test_too_few_speakers_give_figures_without_intervals() -> None:
    # One target trial and one nontarget trial of four "speakers", all of whom must be drawn:
    # 4! / 4^4 = 9 %, and with seed 1 not in 20 draws.
    trials = Trials(np.array([0, 2]), np.array([1, 3]), np.array([True, False]))
    found = detection_figures([0.9, 0.1], trials, [*"abcd"], num_bootstrap=1, seed=1)
    assert found.eer.value == 0.0 and found.eer.interval is None and found.num_bootstrap == 0
    assert found.note.startswith("A confidence interval needs more than 4 speakers")
    with pytest.raises(UserError, match="A confidence interval needs more than 4 speakers"):
        compare_scores([0.9, 0.1], [0.9, 0.1], trials, [*"abcd"], num_bootstrap=1, seed=1)


def test_unknown_speakers_are_those_that_targets_connect() -> None:
    trials, speaker_ids = all_pairs(8, 3)
    scores = some_scores(trials, 0)
    named = detection_figures(scores, trials, speaker_ids, num_bootstrap=30)
    unnamed = detection_figures(scores, trials, None, num_bootstrap=30)
    assert unnamed.num_speakers == 8
    assert unnamed.eer == named.eer


def test_scores_are_compared_pair_by_pair() -> None:
    trials, speaker_ids = all_pairs(25, 4)
    before = some_scores(trials, 0)
    after = 100 * (before + 2.0 * trials.labels)
    better = compare_scores(before, after, trials, speaker_ids, num_bootstrap=100)
    assert better.verdict == "better"
    eers = [equal_error_rate(scores, trials.labels)[0] for scores in (before, after)]
    assert better.eer_difference == eers[1] - eers[0]
    assert compare_scores(after, before, trials, None, num_bootstrap=100).verdict == "worse"
    # Other systems of the same quality: 95 % of them are no difference.
    verdicts = [
        compare_scores(before, some_scores(trials, seed), trials, None, num_bootstrap=100).verdict
        for seed in range(1, 21)
    ]
    assert verdicts.count("no difference beyond noise") >= 16


@settings(max_examples=200, deadline=None)
@given(trials=SCORED, rate=st.sampled_from([0.0, 0.01, 0.2, 0.5, 1.0]))
def test_threshold_for_a_false_accept_rate(trials: list[tuple[float, bool]], rate: float) -> None:
    scores = np.array([score for score, _ in trials])
    labels = np.array([label for _, label in trials])
    threshold = threshold_at_false_accept_rate(scores, labels, rate)
    false_accepts, misses = error_rates_at(scores, labels, threshold)
    assert false_accepts <= rate
    candidates = [*scores, scores.max() + 1]
    allowed = [t for t in candidates if (scores[~labels] >= t).mean() <= rate]
    assert misses == pytest.approx(min((scores[labels] < t).mean() for t in allowed))


def test_hand_worked_threshold_for_a_false_accept_rate() -> None:
    scores, labels = [0.9, 0.8, 0.7, 0.6, 0.5, 0.2], [1, 0, 1, 0, 0, 1]
    assert threshold_at_false_accept_rate(scores, labels, 0.34) == pytest.approx(0.65)
    assert threshold_at_false_accept_rate(scores, labels, 0.33) == pytest.approx(0.85)
    assert error_rates_at(scores, labels, 0.65) == pytest.approx((1 / 3, 1 / 3))
    above = threshold_at_false_accept_rate([0.9, 0.1], [0, 1], 0.5)
    assert above > 0.9 and above == pytest.approx(0.9)


def test_errors() -> None:
    trials, speaker_ids = all_pairs(3, 2)
    scores = some_scores(trials, 0)
    unlabelled = Trials(trials.enrolment, trials.test, None)
    for speakers in (speaker_ids, None):
        with pytest.raises(UserError, match="These trials have no labels"):
            detection_figures(scores, unlabelled, speakers)
    only = Trials(trials.enrolment, trials.test, np.zeros(len(trials), dtype=bool))
    with pytest.raises(UserError, match="found 0 targets and 15 nontargets"):
        detection_figures(scores, only, speaker_ids)
    with pytest.raises(UserError, match="found shapes"):
        detection_figures(scores[1:], trials, speaker_ids)
    with pytest.raises(UserError, match="1 of 15 scores are not finite"):
        detection_figures(np.where(np.arange(15) == 3, np.nan, scores), trials, speaker_ids)
    with pytest.raises(UserError, match="p_target must lie between 0 and 1, found 0"):
        detection_figures(scores, trials, speaker_ids, p_targets=(0,))
    with pytest.raises(UserError, match="num_bootstrap must be at least 1, found -1"):
        detection_figures(scores, trials, speaker_ids, num_bootstrap=-1)
    with pytest.raises(UserError, match="A false-accept rate must lie between 0 and 1, found 2"):
        threshold_at_false_accept_rate(scores, trials.labels, 2)


@pytest.fixture(scope="module")
def million() -> tuple[np.ndarray, Trials, list[str]]:
    """Embeddings of 5,000 utterances of 50 speakers, 1,000,000 trials over them, the speakers."""
    rng = np.random.default_rng(0)
    speakers = np.repeat(np.arange(50), 100)
    centres = rng.normal(size=(50, 192))
    embeddings = (centres[speakers] + 2.0 * rng.normal(size=(5000, 192))).astype(np.float32)
    first, second = np.triu_indices(5000, k=1)
    is_target = speakers[first] == speakers[second]
    targets = np.flatnonzero(is_target)
    others = rng.choice(np.flatnonzero(~is_target), 1_000_000 - len(targets), replace=False)
    chosen = np.concatenate([targets, others])
    trials = Trials(first[chosen], second[chosen], is_target[chosen])
    return embeddings, trials, [f"speaker{n}" for n in speakers]


@pytest.mark.slow
def test_a_million_trials_are_fast(million: tuple[np.ndarray, Trials, list[str]]) -> None:
    embeddings, trials, speaker_ids = million
    start = time.perf_counter()
    scores = score_trials(embeddings, trials)
    detection_figures(scores, trials, speaker_ids, num_bootstrap=0, calibrated=True)
    assert time.perf_counter() - start < 10
    start = time.perf_counter()
    normaliser = ScoreNormaliser(embeddings, embeddings[::2] + 0.5, "as")
    normalised = normaliser.apply(scores, trials)
    assert time.perf_counter() - start < 15
    start = time.perf_counter()
    found = detection_figures(normalised, trials, speaker_ids)  # 1000 draws
    assert time.perf_counter() - start < 40
    assert found.eer.interval[0] < found.eer.value < found.eer.interval[1]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_draws(
    million: tuple[np.ndarray, Trials, list[str]],
) -> None:
    import tracemalloc

    embeddings, trials, speaker_ids = million
    scores = score_trials(embeddings, trials)
    peaks = []
    for num_bootstrap in (64, 256):
        tracemalloc.start()
        detection_figures(scores, trials, speaker_ids, num_bootstrap=num_bootstrap)
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    assert max(peaks) < 500  # MiB; one draw's weights as float64 are 8
    assert peaks[1] < peaks[0] + 30
