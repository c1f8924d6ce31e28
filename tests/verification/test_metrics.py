import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from sklearn.metrics import roc_curve

from speaker_encoder.errors import UserError
from speaker_encoder.verification import equal_error_rate, min_dcf

# Few distinct values: many ties.
TRIALS = st.lists(
    st.tuples(st.integers(-4, 4).map(lambda n: n / 4), st.booleans()), min_size=2, max_size=40
).filter(lambda trials: len({label for _, label in trials}) == 2)


def naive_points(scores: list[float], labels: list[bool]) -> list[tuple[float, float]]:
    """(false accepts, misses) at every threshold, counted one trial at a time."""
    points = []
    for threshold in [float("inf"), *sorted(set(scores), reverse=True)]:
        misses = [s < threshold for s, label in zip(scores, labels, strict=True) if label]
        accepts = [s >= threshold for s, label in zip(scores, labels, strict=True) if not label]
        points.append((sum(accepts) / len(accepts), sum(misses) / len(misses)))
    return points


def naive_eer(scores: list[float], labels: list[bool]) -> float:
    points = naive_points(scores, labels)
    for (fa0, miss0), (fa1, miss1) in pairwise(points):
        if miss1 <= fa1:
            # fa0 + t (fa1 - fa0) = miss0 + t (miss1 - miss0)
            t = (miss0 - fa0) / ((fa1 - fa0) - (miss1 - miss0))
            return fa0 + t * (fa1 - fa0)
    raise AssertionError("the curve ends at (1, 0)")


def naive_min_dcf(scores: list[float], labels: list[bool], p_target: float) -> float:
    costs = [p_target * miss + (1 - p_target) * fa for fa, miss in naive_points(scores, labels)]
    return min(costs) / min(p_target, 1 - p_target)


def test_eer_of_a_hand_worked_list() -> None:
    # Accepting >= 0.6 misses 1 of 4 targets and accepts 1 of 4 nontargets.
    scores = [0.9, 0.8, 0.6, 0.3, 0.7, 0.5, 0.2, 0.1]
    labels = [1, 1, 1, 1, 0, 0, 0, 0]
    eer, threshold = equal_error_rate(scores, labels)
    assert eer == 0.25
    assert threshold == pytest.approx(0.55)


def test_eer_between_two_operating_points() -> None:
    # Points (false accept, miss): (0, 1/2), then one score of a target and a nontarget tied:
    # (1/3, 0). On that line fa = t / 3, miss = (1 - t) / 2: t = 3/5, rate 1/5.
    eer, _ = equal_error_rate([0.9, 0.5, 0.5, 0.1, 0.0], [1, 1, 0, 0, 0])
    assert eer == pytest.approx(0.2)


def test_min_dcf_of_a_hand_worked_list() -> None:
    # p = 0.01: rejecting all but the two best costs 0.01 * 1/2 / 0.01 = 0.5.
    scores = [0.9, 0.8, 0.6, 0.3, 0.7, 0.5, 0.2, 0.1]
    labels = [1, 1, 1, 1, 0, 0, 0, 0]
    assert min_dcf(scores, labels) == pytest.approx(0.5)
    # p = 0.5: least at >= 0.6: (0.5 * 1/4 + 0.5 * 1/4) / 0.5, or >= 0.8: 0.5 * 1/2 / 0.5, or
    # >= 0.3: 0.5 * 1/2 / 0.5.
    assert min_dcf(scores, labels, p_target=0.5) == pytest.approx(0.5)
    # p = 0.9: >= 0.3 misses none and accepts 2 of 4: 0.1 * 1/2 / 0.1.
    assert min_dcf(scores, labels, p_target=0.9) == pytest.approx(0.5)
    assert min_dcf([0.3, 0.2, 0.4], [1, 0, 0], p_target=0.2) == pytest.approx(0.8 * 0.5 / 0.2 * 0.5)


def test_perfect_and_reversed_scores() -> None:
    eer, threshold = equal_error_rate([3.0, 2.0, 1.0, 0.0], [1, 1, 0, 0])
    assert (eer, threshold) == (0.0, 1.5)
    assert min_dcf([3.0, 2.0, 1.0, 0.0], [1, 1, 0, 0]) == 0.0
    assert equal_error_rate([3.0, 2.0, 1.0, 0.0], [0, 0, 1, 1])[0] == 1.0
    assert min_dcf([3.0, 2.0, 1.0, 0.0], [0, 0, 1, 1]) == 1.0


@pytest.mark.parametrize("labels", [[1, 0], [0, 1, 1, 1, 1], [0, 0, 0, 1]])
def test_equal_scores_are_chance(labels: list[int]) -> None:
    assert equal_error_rate([0.7] * len(labels), labels) == (0.5, 0.7)
    assert min_dcf([0.7] * len(labels), labels) == 1.0


@settings(max_examples=200, deadline=None)
@given(trials=TRIALS, p_target=st.sampled_from([0.01, 0.05, 0.5, 0.9]))
def test_equal_a_naive_sweep(trials: list[tuple[float, bool]], p_target: float) -> None:
    scores, labels = [s for s, _ in trials], [label for _, label in trials]
    assert equal_error_rate(scores, labels)[0] == pytest.approx(naive_eer(scores, labels))
    assert min_dcf(scores, labels, p_target) == pytest.approx(
        naive_min_dcf(scores, labels, p_target)
    )


@settings(max_examples=100, deadline=None)
@given(trials=TRIALS)
def test_the_threshold_gives_the_nearest_operating_point(trials: list[tuple[float, bool]]) -> None:
    scores = np.array([s for s, _ in trials])
    labels = np.array([label for _, label in trials])
    _, threshold = equal_error_rate(scores, labels)
    gap = abs((scores[~labels] >= threshold).mean() - (scores[labels] < threshold).mean())
    least = min(abs(fa - miss) for fa, miss in naive_points(scores.tolist(), labels.tolist()))
    assert gap == pytest.approx(least)


@pytest.mark.parametrize("num_digits", [1, 2, 8])
def test_equals_scikit_learn(num_digits: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(3000) < 0.3
    scores = np.round(rng.normal(size=3000) + labels, num_digits)
    false_accepts, hits, _ = roc_curve(labels, scores, drop_intermediate=False)
    eer, _ = equal_error_rate(scores, labels)
    expected = brentq(lambda x: 1 - x - np.interp(x, false_accepts, hits), 0, 1)
    assert eer == pytest.approx(expected, abs=1e-9)
    costs = 0.01 * (1 - hits) + 0.99 * false_accepts
    assert min_dcf(scores, labels) == pytest.approx(costs.min() / 0.01)


@settings(max_examples=50, deadline=None)
@given(trials=TRIALS, seed=st.integers(0, 99))
def test_order_and_growing_transforms_change_nothing(trials: list, seed: int) -> None:
    scores, labels = np.array([s for s, _ in trials]), np.array([label for _, label in trials])
    order = np.random.default_rng(seed).permutation(len(scores))
    eer = equal_error_rate(scores, labels)[0]
    assert equal_error_rate(scores[order], labels[order])[0] == eer
    assert equal_error_rate(np.exp(3 * scores), labels)[0] == eer
    assert min_dcf(scores[order] * 10 - 5, labels[order]) == min_dcf(scores, labels)


def test_swapping_the_classes_swaps_the_errors() -> None:
    rng = np.random.default_rng(1)
    scores, labels = rng.normal(size=200), rng.random(200) < 0.4
    assert equal_error_rate(-scores, ~labels)[0] == pytest.approx(
        equal_error_rate(scores, labels)[0]
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tensors_are_as_good_as_arrays(dtype: torch.dtype) -> None:
    scores = torch.tensor([0.875, 0.5, 0.625, 0.25], dtype=dtype, requires_grad=True)
    labels = torch.tensor([1, 1, 0, 0])
    expected = equal_error_rate([0.875, 0.5, 0.625, 0.25], [1, 1, 0, 0])
    assert equal_error_rate(scores, labels) == expected


def test_neighbouring_floats_keep_the_threshold_exact() -> None:
    low = 0.1
    high = float(np.nextafter(low, 1.0))
    _, threshold = equal_error_rate([high, low], [1, 0])
    assert low < threshold <= high


MISSING_CLASS = "An error rate needs target and nontarget trials; found "


@pytest.mark.parametrize(
    ("scores", "labels", "text"),
    [
        ([0.1, 0.2], [1, 1], MISSING_CLASS + "2 targets and 0 nontargets."),
        ([0.1, 0.2], [0, 0], MISSING_CLASS + "0 targets and 2 nontargets."),
        ([], [], MISSING_CLASS + "0 targets and 0 nontargets."),
        ([0.1, float("nan"), float("inf")], [0, 1, 1], "2 of 3 scores are not finite."),
        (
            [0.1, 0.2],
            [0, 1, 1],
            "Scores and labels must be one value per trial; found shapes (2,) and (3,).",
        ),
        ([0.1, 0.2], [0, 2], "Labels must be 1 (target) or 0 (nontarget)."),
    ],
)
def test_errors(scores: list[float], labels: list[int], text: str) -> None:
    for metric in (equal_error_rate, min_dcf):
        with pytest.raises(UserError) as caught:
            metric(scores, labels)
        assert str(caught.value) == text


@pytest.mark.parametrize("p_target", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_p_target_must_be_a_probability(p_target: float) -> None:
    with pytest.raises(UserError, match="p_target must lie between 0 and 1"):
        min_dcf([0.1, 0.2], [0, 1], p_target)


def test_large_lists_are_fast() -> None:
    import time

    rng = np.random.default_rng(0)
    labels = rng.random(1_000_000) < 0.5
    scores = rng.normal(size=1_000_000) + labels
    start = time.perf_counter()
    equal_error_rate(scores, labels)
    assert time.perf_counter() - start < 5.0


THEIRS = """
import json, sys
import speaker_encoder  # makes torchaudio's native extension optional
import torch
from speechbrain.utils.metric_stats import EER, minDCF
targets, nontargets = (torch.tensor(scores, dtype=torch.float64) for scores in json.load(sys.stdin))
costs = [minDCF(targets, nontargets, p_target=p)[0] for p in (0.01, 0.05, 0.5)]
print(json.dumps([*map(float, EER(targets, nontargets)), *map(float, costs)]))
"""


def test_agrees_with_speechbrain() -> None:
    # In a process of its own: hypothesis looks at every loaded module, and some of SpeechBrain's
    # lazy ones cannot be loaded.
    rng = np.random.default_rng(0)
    targets, nontargets = rng.normal(size=200) + 2.0, rng.normal(size=900)
    answer = subprocess.run(
        [sys.executable, "-c", THEIRS],
        input=json.dumps([targets.tolist(), nontargets.tolist()]),
        capture_output=True,
        text=True,
        check=True,
    )
    their_eer, their_threshold, *their_costs = json.loads(answer.stdout.splitlines()[-1])
    scores, labels = np.concatenate([targets, nontargets]), np.arange(1100) < 200
    eer, threshold = equal_error_rate(scores, labels)
    # Theirs is the mean of both rates at one threshold: at most half a step of each away.
    assert eer == pytest.approx(their_eer, abs=(1 / 200 + 1 / 900) / 2)
    assert abs(threshold - their_threshold) < 0.05
    for p_target, cost in zip((0.01, 0.05, 0.5), their_costs, strict=True):
        # Theirs is not normalised.
        expected = cost / min(p_target, 1 - p_target)
        assert min_dcf(scores, labels, p_target) == pytest.approx(expected, abs=1e-6)
