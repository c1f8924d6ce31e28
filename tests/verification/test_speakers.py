"""Speakers that labelled trials tell."""

import time

import numpy as np
import pytest

from speaker_encoder.errors import UserError
from speaker_encoder.verification import Trials
from speaker_encoder.verification.speakers import infer_speakers, speakers_of_targets


def trials_of(*rows: tuple[int, int, int]) -> Trials:
    table = np.array(rows)
    return Trials(table[:, 0], table[:, 1], table[:, 2].astype(bool))


@pytest.mark.parametrize(
    "paths",
    [
        ["id1/x/1.wav", "id1/y/2.wav", "id2/x/1.wav", "id2/x/2.wav"],
        ["wav48/p1/1.wav", "wav48/p1/2.wav", "wav48/p2/1.wav", "wav48/p2/2.wav"],
        ["a/dev/id1/1.wav", "a/dev/id1/2.wav", "a/dev/id2/x/1.wav", "a/dev/id2/2.wav"],
    ],
)
def test_folders_that_agree_with_the_labels(paths: list[str]) -> None:
    trials = trials_of((0, 1, 1), (2, 3, 1), (0, 2, 0), (1, 3, 0))
    found = infer_speakers(trials, paths)
    assert found.source == "folders"
    assert found.speaker_ids[0] == found.speaker_ids[1] != found.speaker_ids[2]
    assert found.speaker_ids[2] == found.speaker_ids[3]
    assert found.speaker_ids[0].rsplit("/")[-1] in ("id1", "p1")


def test_folders_that_do_not_agree_are_not_used() -> None:
    trials = trials_of((0, 1, 1), (1, 2, 1), (3, 4, 1), (0, 3, 0))
    flat = ["a1.wav", "a2.wav", "a3.wav", "b1.wav", "b2.wav", "c1.wav"]
    found = infer_speakers(trials, flat)
    assert found.source == "target trials"
    ids = found.speaker_ids
    # 0 and 2 are connected through 1; 5 is in no trial and by itself.
    assert ids[0] == ids[1] == ids[2]
    assert ids[3] == ids[4]
    assert len({ids[0], ids[3], ids[5]}) == 3
    sessions = ["x/a1.wav", "y/a2.wav", "x/a3.wav", "x/b1.wav", "x/b2.wav", "x/c1.wav"]
    assert infer_speakers(trials, sessions).source == "target trials"


def test_only_nontargets_leave_every_utterance_alone() -> None:
    assert len(set(speakers_of_targets(trials_of((0, 1, 0), (1, 2, 0))))) == 3
    empty = Trials(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.bool_))
    assert speakers_of_targets(empty) == []
    assert len(set(speakers_of_targets(empty, 2))) == 2


def test_labels_are_needed() -> None:
    unlabelled = Trials(np.array([0]), np.array([1]), None)
    for infer in (lambda: infer_speakers(unlabelled, ["a", "b"]),
                  lambda: speakers_of_targets(unlabelled)):  # fmt: skip
        with pytest.raises(UserError, match="These trials have no labels; they do not tell who"):
            infer()


def test_a_million_trials() -> None:
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 5000, size=(2, 1_000_000))
    trials = Trials(pairs[0], pairs[1], pairs[0] % 50 == pairs[1] % 50)
    start = time.perf_counter()
    found = infer_speakers(trials, [f"{n}.wav" for n in range(5000)])
    assert time.perf_counter() - start < 5
    # Few utterances are in no target trial and so by themselves.
    assert 50 <= len(set(found.speaker_ids)) < 60
