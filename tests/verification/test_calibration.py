"""Calibration: the optimum of its loss, quality measures, and what it refuses."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from speaker_encoder.errors import UserError
from speaker_encoder.verification import (
    Calibration,
    Trials,
    actual_dcf,
    cllr,
    fit_calibration,
    min_cllr,
    min_dcf,
)
from speaker_encoder.verification.calibration import refuse_same_trials, trial_qualities


def cosines(num_trials: int, seed: int = 0, noise: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.random(num_trials) < 0.3
    return np.where(labels, 0.6, 0.1) + noise * rng.normal(size=num_trials), labels


def naive_loss(llrs: np.ndarray, labels: np.ndarray, p: float) -> float:
    offset = math.log(p / (1 - p))
    targets = [math.log1p(math.exp(-(x + offset))) for x in llrs[labels]]
    others = [math.log1p(math.exp(x + offset)) for x in llrs[~labels]]
    return p * sum(targets) / len(targets) + (1 - p) * sum(others) / len(others)


def test_true_likelihood_ratios_are_found() -> None:
    # Targets N(0.6, 0.15), nontargets N(0.1, 0.15): llr = 0.5 / 0.15^2 * (s - 0.35).
    scores, labels = cosines(200_000)
    found = fit_calibration(scores, labels)
    slope = 0.5 / 0.15**2
    assert found.names == ("score",)
    assert found.weights[0] == pytest.approx(slope, rel=0.02)
    assert -found.bias / found.weights[0] == pytest.approx(0.35, abs=0.005)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), p_target=st.sampled_from([0.01, 0.1, 0.5, 0.9]))
def test_nothing_near_is_better(seed: int, p_target: float) -> None:
    scores, labels = cosines(120, seed, noise=0.3)
    quality = np.random.default_rng(seed).normal(size=120)
    found = fit_calibration(scores, labels, {"quality": quality}, p_target)
    best = naive_loss(found.apply(scores, {"quality": quality}), labels, p_target)
    for step in (1e-2, -1e-2):
        for changed in (
            Calibration(found.names, found.weights, found.bias + step),
            Calibration(found.names, (found.weights[0] + step, found.weights[1]), found.bias),
            Calibration(found.names, (found.weights[0], found.weights[1] + step), found.bias),
        ):
            llrs = changed.apply(scores, {"quality": quality})
            assert naive_loss(llrs, labels, p_target) >= best - 1e-7


def test_equals_scikit_learn() -> None:
    scores, labels = cosines(3000)
    rng = np.random.default_rng(1)
    qualities = {"a": rng.normal(size=3000) + labels, "b": 1e3 * rng.random(3000)}
    found = fit_calibration(scores, labels, qualities)
    table = np.column_stack([scores, qualities["a"], qualities["b"]])
    centre, scale = table.mean(axis=0), table.std(axis=0)
    share = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
    # The same ridge: scikit-learn minimises C * loss + |w|^2 / 2.
    model = LogisticRegression(C=1e6, tol=1e-12, max_iter=10_000)
    model.fit((table - centre) / scale, labels, sample_weight=share)
    expected = model.decision_function((table - centre) / scale)
    np.testing.assert_allclose(found.apply(scores, qualities), expected, atol=1e-4)
    assert cllr(found.apply(scores, qualities), labels) == pytest.approx(
        cllr(expected, labels), abs=1e-6
    )


def test_calibrated_on_one_list_it_holds_on_another() -> None:
    found = fit_calibration(*cosines(5000, seed=1))
    scores, labels = cosines(5000, seed=2)
    llrs = found.apply(scores)
    assert cllr(llrs, labels) < min_cllr(llrs, labels) + 0.01
    assert actual_dcf(llrs, labels, 0.05) < min_dcf(llrs, labels, 0.05) + 0.05
    assert cllr(scores, labels) > cllr(llrs, labels) + 0.3
    assert min_cllr(llrs, labels) == pytest.approx(min_cllr(scores, labels))


def test_a_quality_measure_helps() -> None:
    # Short trials: targets score lower by 0.4. The score alone cannot know that.
    rng = np.random.default_rng(0)
    labels, seconds = rng.random(20_000) < 0.5, rng.uniform(1, 8, size=20_000)
    scores = np.where(labels, 0.6, 0.1) + 0.1 * rng.normal(size=20_000) + 0.15 * np.log(seconds)
    qualities = {"log_min_seconds": np.log(seconds)}
    plain = fit_calibration(scores, labels).apply(scores)
    informed = fit_calibration(scores, labels, qualities).apply(scores, qualities)
    assert cllr(informed, labels) < 0.9 * cllr(plain, labels)


def test_classes_apart_give_finite_weights() -> None:
    scores, labels = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1])
    llrs = fit_calibration(scores, labels).apply(scores)
    assert np.isfinite(llrs).all()
    assert cllr(llrs, labels) < 0.01


def test_constant_inputs_weigh_nothing() -> None:
    scores, labels = cosines(500)
    qualities = {"seconds": np.full(500, 4.0)}
    found = fit_calibration(scores, labels, qualities)
    assert found.weights[1] == 0.0
    np.testing.assert_allclose(
        found.apply(scores, qualities), fit_calibration(scores, labels).apply(scores), atol=1e-6
    )
    equal = fit_calibration(np.full(4, 0.5), [1, 0, 0, 0])
    np.testing.assert_allclose(equal.apply([0.5]), [0.0], atol=1e-9)


def test_saved_as_json_and_back() -> None:
    scores, labels = cosines(300)
    found = fit_calibration(scores, labels, {"norm": np.arange(300.0)})
    assert Calibration.from_dict(json.loads(json.dumps(found.as_dict()))) == found


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "This is no calibration: KeyError"),
        ({"names": ["score"], "weights": ["x"], "bias": 0}, "This is no calibration: ValueError"),
        ({"names": ["score", "a"], "weights": [1], "bias": 0}, "has a finite weight for each name"),
        ({"names": ["a"], "weights": [1], "bias": 0}, "the first name 'score'"),
        ({"names": ["score"], "weights": [math.inf], "bias": 0}, "has a finite weight"),
    ],
)
def test_what_is_no_calibration(values: dict, text: str) -> None:
    with pytest.raises(UserError, match=text):
        Calibration.from_dict(values)


def test_quality_measures_of_trials() -> None:
    trials = Trials(np.array([0, 2]), np.array([1, 0]), None)
    found = trial_qualities(trials, [2.0, 1.0, 8.0], [10.0, 30.0, 20.0])
    assert list(found) == ["log_min_seconds", "log_max_seconds", "min_norm", "max_norm"]
    np.testing.assert_allclose(np.exp(found["log_min_seconds"]), [1.0, 2.0])
    np.testing.assert_allclose(np.exp(found["log_max_seconds"]), [2.0, 8.0])
    np.testing.assert_allclose(found["min_norm"], [10.0, 10.0])
    np.testing.assert_allclose(found["max_norm"], [30.0, 20.0])
    assert list(trial_qualities(trials, norms=[1.0, 1.0, 1.0])) == ["min_norm", "max_norm"]
    assert trial_qualities(trials) == {}
    empty = trial_qualities(trials, [0.0, 1.0, 1.0])["log_min_seconds"]
    assert np.isfinite(empty).all()
    with pytest.raises(UserError, match="The durations of the utterances must be finite and not"):
        trial_qualities(trials, [math.nan, 1.0, 1.0])


def test_test_trials_are_refused() -> None:
    tested = [("a", "b"), ("c", "d")]
    refuse_same_trials([("a", "c"), ("b", "d"), ("a", "a")], tested)
    with pytest.raises(UserError) as caught:
        refuse_same_trials([("x", "y"), ("d", "c"), ("a", "b")], tested)
    assert str(caught.value).startswith(
        "2 calibration trials are among the trials to measure, the first: c and d."
    )


def test_errors() -> None:
    scores, labels = cosines(10)
    labels[:2] = True, False
    with pytest.raises(UserError, match="found 10 targets and 0 nontargets"):
        fit_calibration(scores, np.ones(10))
    with pytest.raises(UserError, match="p_target must lie between 0 and 1"):
        fit_calibration(scores, labels, p_target=1.0)
    with pytest.raises(UserError, match=r"The quality measure 'a' has shape \(3,\), the scores"):
        fit_calibration(scores, labels, {"a": [1, 2, 3]})
    with pytest.raises(UserError, match="The values of 'a' are not all finite"):
        fit_calibration(scores, labels, {"a": np.full(10, np.nan)})
    found = fit_calibration(scores, labels, {"a": np.arange(10.0), "b": np.ones(10)})
    with pytest.raises(UserError, match="uses the quality measures a, b; not given: b"):
        found.apply(scores, {"a": np.arange(10.0)})
    with pytest.raises(UserError, match="The values of 'score' are not all finite"):
        fit_calibration([0.0, 1.0], [0, 1]).apply([math.nan])
