"""Error rates of kinds of trials, against picking the trials by hand."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker_encoder.errors import UserError
from speaker_encoder.verification import Trials, equal_error_rate
from speaker_encoder.verification.breakdown import (
    DURATION_GROUPS,
    GroupFigures,
    breakdown,
    corpus_groups,
    duration_groups,
    session_groups,
    sex_groups,
)

TRIALS = Trials(np.array([0, 1, 2, 3]), np.array([1, 2, 3, 0]), None)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), in_every_group=st.booleans())
def test_each_group_equals_its_own_trials(seed: int, in_every_group: bool) -> None:
    rng = np.random.default_rng(seed)
    scores, labels = np.round(rng.normal(size=40), 1), rng.random(40) < 0.4
    labels[:2] = True, False
    groups = rng.choice(np.array(["a", "b", "c", None], dtype=object), size=40).tolist()
    found = {
        figures.group: figures
        for figures in breakdown(scores, labels, groups, nontargets_in_every_group=in_every_group)
    }
    for name in ("a", "b", "c"):
        kept = [
            (score, label)
            for score, label, group in zip(scores, labels, groups, strict=True)
            if group == name or (in_every_group and not label)
        ]
        num_targets = sum(bool(label) for _, label in kept)
        if not kept or (in_every_group and not num_targets):
            assert name not in found
            continue
        assert found[name].num_targets == num_targets
        assert found[name].num_nontargets == len(kept) - num_targets
        if 0 < num_targets < len(kept):
            assert found[name].eer == equal_error_rate(*zip(*kept, strict=True))[0]
        else:
            assert found[name].eer is None


def test_order_and_missing_classes() -> None:
    groups = ["z", "y", "x", None, "y", "x"]
    found = breakdown([6, 5, 4, 3, 2, 1], [1, 1, 1, 0, 0, 1], groups, order=["y", "w"])
    assert found == [
        GroupFigures("y", 1, 1, 0.0),
        GroupFigures("x", 2, 0, None),
        GroupFigures("z", 1, 0, None),
    ]
    assert found[0].as_dict() == {"group": "y", "num_targets": 1, "num_nontargets": 1, "eer": 0.0}


def test_duration_groups_go_by_the_shorter_utterance() -> None:
    assert duration_groups(TRIALS, [1.9, 2.0, 4.0, 8.0]) == ["< 2 s", "2-4 s", "4-8 s", "< 2 s"]
    assert duration_groups(TRIALS, [9.0, 8.0, 8.0, 7.99]) == [">= 8 s", ">= 8 s", "4-8 s", "4-8 s"]
    figures = breakdown(
        [1, 0, 1, 0], [1, 0, 1, 0], [">= 8 s", "4-8 s", "< 2 s", "2-4 s"], order=DURATION_GROUPS
    )
    assert [found.group for found in figures] == list(DURATION_GROUPS)


def test_sex_groups_know_no_sides() -> None:
    assert sex_groups(TRIALS, ["F", "M", "M", "F"]) == ["F-M", "M-M", "F-M", "F-F"]
    assert sex_groups(TRIALS, ["F", None, "M", "F"]) == [None, None, "F-M", "F-F"]
    assert sex_groups(TRIALS, [None] * 4) == [None] * 4


def test_corpus_groups() -> None:
    paths = ["vctk/p1/a.wav", "vctk/p2/b.wav", "libritts/1/c.wav", "d.wav"]
    assert corpus_groups(TRIALS, paths) == ["vctk", "libritts / vctk", None, None]
    assert corpus_groups(TRIALS, paths, ["p1", "p2", "1", "d"])[0] == "vctk"
    # First parts that are speakers are no corpora.
    speakers = ["p1/a.wav", "p1/b.wav", "p2/c.wav", "p2/d.wav"]
    assert corpus_groups(TRIALS, speakers, ["p1", "p1", "p2", "p2"]) == [None] * 4


def test_session_groups() -> None:
    trials = Trials(np.array([0, 0, 0, 0]), np.array([1, 2, 3, 4]), None)
    groups = session_groups(trials, [*"aaaba"], ["1", "1", "2", "1", None])
    assert groups == ["same session", "cross session", None, None]


def test_errors() -> None:
    with pytest.raises(UserError, match="Wanted a group for each of 2 trials, found 1"):
        breakdown([1, 0], [1, 0], ["a"])
    with pytest.raises(UserError, match="found 2 targets and 0 nontargets"):
        breakdown([1, 0], [1, 1], ["a", "a"])


def test_a_million_trials_of_many_folders() -> None:
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 5000, size=(2, 1_000_000))
    trials = Trials(pairs[0], pairs[1], rng.random(1_000_000) < 0.5)
    start = time.perf_counter()
    groups = corpus_groups(trials, [f"{n // 1000}/{n}.wav" for n in range(5000)])
    figures = breakdown(rng.normal(size=1_000_000), trials.labels, groups)
    corpus_groups(trials, [f"{n}/a.wav" for n in range(5000)])
    assert len(figures) == 15
    assert time.perf_counter() - start < 10
