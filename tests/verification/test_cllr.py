"""Cllr, minCllr and actual DCF against loops over single trials."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from speaker_encoder.errors import UserError
from speaker_encoder.verification import actual_dcf, cllr, min_cllr, min_dcf

TRIALS = st.lists(
    st.tuples(st.integers(-8, 8).map(lambda n: n / 2), st.booleans()), min_size=2, max_size=30
).filter(lambda trials: len({label for _, label in trials}) == 2)
WITHIN = 1e-6


def split(trials: list[tuple[float, bool]]) -> tuple[list[float], list[bool]]:
    return [score for score, _ in trials], [label for _, label in trials]


def naive_cllr(llrs: list[float], labels: list[bool]) -> float:
    targets = [math.log2(1 + math.exp(-x)) for x, label in zip(llrs, labels, strict=True) if label]
    others = [
        math.log2(1 + math.exp(x)) for x, label in zip(llrs, labels, strict=True) if not label
    ]
    return (sum(targets) / len(targets) + sum(others) / len(others)) / 2


def naive_act_dcf(scores: list[float], labels: list[bool], p: float, threshold: float) -> float:
    misses = [s < threshold for s, label in zip(scores, labels, strict=True) if label]
    accepts = [s >= threshold for s, label in zip(scores, labels, strict=True) if not label]
    cost = p * sum(misses) / len(misses) + (1 - p) * sum(accepts) / len(accepts)
    return cost / min(p, 1 - p)


def naive_min_cllr(scores: list[float], labels: list[bool]) -> float:
    """Pools adjacent violators one by one, then sums trial by trial."""
    pools = []  # [targets, nontargets] of ascending scores; the share of targets must rise
    for value in sorted(set(scores)):
        held = [label for score, label in zip(scores, labels, strict=True) if score == value]
        pools.append([sum(held), len(held) - sum(held)])
        while len(pools) > 1 and pools[-2][0] * sum(pools[-1]) >= pools[-1][0] * sum(pools[-2]):
            last = pools.pop()
            pools[-1] = [pools[-1][0] + last[0], pools[-1][1] + last[1]]
    num_targets = sum(labels)
    num_others = len(labels) - num_targets
    bits = 0.0
    for targets, others in pools:
        if targets and others:
            ratio = (targets / num_targets) / (others / num_others)
            bits += targets / num_targets * math.log2(1 + 1 / ratio)
            bits += others / num_others * math.log2(1 + ratio)
    return bits / 2


def test_hand_worked_cllr() -> None:
    # llr = log 3: a target costs log2(4/3), a nontarget log2(4) = 2.
    llrs, labels = [math.log(3), math.log(3), -math.log(3)], [1, 0, 0]
    expected = (math.log2(4 / 3) + (2 + math.log2(4 / 3)) / 2) / 2
    assert cllr(llrs, labels) == pytest.approx(expected, abs=1e-12)
    assert cllr([0.0, 0.0], [1, 0]) == 1.0
    assert cllr([1000.0, -1000.0], [1, 0]) == 0.0
    assert cllr([-1000.0, 1000.0], [1, 0]) == pytest.approx(1000 / math.log(2))


def test_hand_worked_min_cllr() -> None:
    # The pool of 0.5 and 0.6 has half of the targets and half of the nontargets: ratio 1, one
    # bit each; the ends are free.
    assert min_cllr([0.9, 0.6, 0.5, 0.1], [1, 0, 1, 0]) == pytest.approx(0.5)
    assert min_cllr([2.0, 1.0], [1, 0]) == 0.0
    assert min_cllr([1.0, 2.0], [1, 0]) == pytest.approx(1.0)
    assert min_cllr([0.7] * 5, [1, 0, 0, 0, 0]) == pytest.approx(1.0)


def test_hand_worked_actual_dcf() -> None:
    # p = 0.01: the Bayes threshold is log 99 = 4.595.
    scores, labels = [5.0, 4.0, 4.7, 0.0, -1.0, -2.0], [1, 1, 0, 0, 0, 0]
    assert actual_dcf(scores, labels) == pytest.approx(0.5 + 99 * 0.25)
    assert actual_dcf(scores, labels, p_target=0.5) == pytest.approx(0.0 + 0.5)  # 0 >= 0 accepts
    assert actual_dcf(scores, labels, p_target=0.5, threshold=0.1) == pytest.approx(0.25)
    assert actual_dcf(scores, labels, p_target=0.9, threshold=9.0) == pytest.approx(9.0)


@settings(max_examples=200, deadline=None)
@given(trials=TRIALS, p_target=st.sampled_from([0.01, 0.05, 0.5, 0.9]))
def test_equal_loops_over_trials(trials: list[tuple[float, bool]], p_target: float) -> None:
    scores, labels = split(trials)
    assert cllr(scores, labels) == pytest.approx(naive_cllr(scores, labels), abs=WITHIN)
    assert min_cllr(scores, labels) == pytest.approx(naive_min_cllr(scores, labels), abs=WITHIN)
    bayes = math.log((1 - p_target) / p_target)
    for threshold, given_threshold in [(bayes, None), (0.5, 0.5)]:
        assert actual_dcf(scores, labels, p_target, given_threshold) == pytest.approx(
            naive_act_dcf(scores, labels, p_target, threshold), abs=WITHIN
        )


@settings(max_examples=100, deadline=None)
@given(trials=TRIALS)
def test_the_least_is_least(trials: list[tuple[float, bool]]) -> None:
    scores, labels = split(trials)
    least = min_cllr(scores, labels)
    assert 0.0 <= least <= 1.0 + 1e-12
    assert least <= cllr(scores, labels) + WITHIN
    assert least == pytest.approx(min_cllr(np.exp(scores), labels), abs=1e-12)
    for p_target in (0.01, 0.3, 0.9):
        assert min_dcf(scores, labels, p_target) <= actual_dcf(scores, labels, p_target) + WITHIN


@pytest.mark.parametrize("num_digits", [1, 8])
def test_min_cllr_equals_scikit_learns_isotonic_regression(num_digits: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(4000) < 0.3
    scores = np.round(rng.normal(size=4000) + labels, num_digits)
    share = IsotonicRegression().fit_transform(scores, labels.astype(float))
    with np.errstate(divide="ignore"):
        llrs = np.log(share) - np.log(1 - share) - np.log(labels.sum() / (~labels).sum())
    bits = np.logaddexp(0, np.where(labels, -llrs, llrs)) / np.log(2)
    expected = (bits[labels].mean() + bits[~labels].mean()) / 2
    assert min_cllr(scores, labels) == pytest.approx(expected, abs=1e-9)


def test_true_likelihood_ratios_are_calibrated() -> None:
    # Targets N(2, 2), nontargets N(-2, 2): the score is its own log-likelihood ratio.
    rng = np.random.default_rng(0)
    labels = rng.random(200_000) < 0.5
    scores = np.where(labels, 2.0, -2.0) + 2.0 * rng.normal(size=len(labels))
    assert cllr(scores, labels) == pytest.approx(min_cllr(scores, labels), abs=0.002)
    assert actual_dcf(scores, labels, 0.2) == pytest.approx(min_dcf(scores, labels, 0.2), abs=0.01)
    assert cllr(3 * scores, labels) > cllr(scores, labels) + 0.05


def test_errors() -> None:
    for figure in (cllr, min_cllr, actual_dcf):
        with pytest.raises(UserError, match="found 2 targets and 0 nontargets"):
            figure([0.1, 0.2], [1, 1])
        with pytest.raises(UserError, match="found 0 targets and 2 nontargets"):
            figure([0.1, 0.2], [0, 0])
        with pytest.raises(UserError, match="1 of 2 scores are not finite"):
            figure([0.1, math.nan], [1, 0])
    with pytest.raises(UserError, match="p_target must lie between 0 and 1, found 1"):
        actual_dcf([0.1, 0.2], [1, 0], 1)
