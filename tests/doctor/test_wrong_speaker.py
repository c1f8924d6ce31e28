"""Wrong labels: by hand, against naive loops, and on voices that are made for it."""

import numpy as np
import pytest
from corpora_on_disk import voices

from speaker_encoder.doctor.wrong_speaker import (
    _LogRatio,
    compare_to_speakers,
    find_wrong_speakers,
)


def naive_own(embeddings: np.ndarray, speakers: np.ndarray, counted: np.ndarray) -> list[float]:
    own = []
    for i, speaker in enumerate(speakers):
        others = [
            embeddings[j]
            for j in range(len(speakers))
            if j != i and speakers[j] == speaker and counted[j]
        ]
        if not others:
            own.append(np.nan)
            continue
        mean = np.mean(others, axis=0)
        own.append(float(embeddings[i] @ mean / np.linalg.norm(mean)))
    return own


def test_similarities_equal_naive_loops():
    embeddings, speakers = voices(6, 4)
    counted = np.ones(len(speakers), dtype=bool)
    counted[[1, 8]] = False
    found = compare_to_speakers(embeddings, speakers, counted)
    assert np.allclose(found.own, naive_own(embeddings, speakers, counted), atol=1e-6)
    means = np.stack([embeddings[(speakers == s) & counted].mean(axis=0) for s in range(6)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    cosines = embeddings @ means.T
    others = cosines[speakers[:, None] != np.arange(6)].reshape(len(speakers), 5)
    assert np.allclose(found.nearest, -np.sort(-others, axis=1), atol=1e-6)
    assert found.other_mean == pytest.approx(others.mean(), abs=1e-6)
    assert found.other_deviation == pytest.approx(others.std(), abs=1e-6)


def test_blocks_change_nothing(monkeypatch):
    embeddings, speakers = voices(6, 4)
    counted = np.ones(len(speakers), dtype=bool)
    whole = compare_to_speakers(embeddings, speakers, counted)
    monkeypatch.setattr("speaker_encoder.doctor.wrong_speaker._BLOCK_ROWS", 5)
    blocks = compare_to_speakers(embeddings, speakers, counted)
    assert np.allclose(whole.nearest, blocks.nearest)
    assert np.array_equal(whole.nearest_speakers, blocks.nearest_speakers)
    assert whole.other_deviation == pytest.approx(blocks.other_deviation)


def test_log_ratio_by_hand_and_never_falling():
    # log N(0.8; 0.8, 0.1) - log N(0.8; 0.3, 0.2) = log 2 + 0.5 * 2.5^2
    ratio = _LogRatio(0.8, 0.1, 0.3, 0.2)
    assert ratio(np.array([0.8]))[0] == pytest.approx(np.log(2) + 3.125)
    for model in (ratio, _LogRatio(0.8, 0.2, 0.3, 0.1), _LogRatio(0.8, 0.2, 0.3, 0.2)):
        assert (np.diff(model(np.linspace(-1, 1, 101))) >= -1e-9).all()


@pytest.mark.parametrize("seed", range(5))
def test_moved_utterances_are_found_with_whose_they_are(seed):
    embeddings, speakers = voices(30, 8, seed)
    truth = speakers.copy()
    moved = np.random.default_rng(seed).choice(len(speakers), 12, replace=False)
    speakers[moved] = (speakers[moved] + 7) % 30
    found = find_wrong_speakers(embeddings, speakers)
    assert set(np.flatnonzero(found.probability > 0.5)) == set(moved)
    assert np.array_equal(found.similarities.nearest_speakers[moved, 0], truth[moved])
    assert not found.is_stranger[moved].any()
    assert found.wrong_share == pytest.approx(12 / 240, rel=0.1)


def test_a_stranger_is_found_and_called_one():
    embeddings, speakers = voices(21, 8)
    keep = speakers < 20
    stranger = embeddings[speakers == 20][:1]
    embeddings = np.concatenate([embeddings[keep], stranger])
    found = find_wrong_speakers(embeddings, np.append(speakers[keep], 3))
    assert np.flatnonzero(found.probability > 0.5).tolist() == [160]
    assert found.is_stranger[160]


def test_nothing_is_found_among_right_labels_and_in_noise():
    for seed in range(5):
        assert (find_wrong_speakers(*voices(30, 6, seed)).probability < 0.5).all()
    noise = np.random.default_rng(0).standard_normal((200, 32)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    assert (find_wrong_speakers(noise, np.arange(200) % 20).probability < 0.5).mean() > 0.95


def test_of_two_utterances_not_both_are_called_wrong():
    embeddings, speakers = voices(20, 6)
    keep = ~((speakers == 4) & (np.arange(120) % 6 > 0))
    embeddings, speakers = embeddings[keep], speakers[keep]
    moved = int(np.flatnonzero(speakers == 9)[0])
    speakers = speakers.copy()
    speakers[moved] = 4
    found = find_wrong_speakers(embeddings, speakers)
    assert np.flatnonzero(found.probability > 0.5).tolist() == [moved]


def test_single_utterances_cannot_be_judged():
    embeddings, speakers = voices(10, 5)
    embeddings = np.concatenate([embeddings, embeddings[:1]])
    found = find_wrong_speakers(embeddings, np.append(speakers, 10))
    assert np.isnan(found.similarities.own[-1])
    assert found.probability[-1] < 1e-9
    alone = find_wrong_speakers(embeddings[:3], np.arange(3))
    assert (alone.probability < 1e-9).all()
