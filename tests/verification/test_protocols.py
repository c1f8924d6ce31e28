"""What of an utterance is embedded, and scores over several crops against naive loops."""

import numpy as np
import pytest

from speaker_encoder.errors import UserError
from speaker_encoder.verification.protocols import Protocol, score_vectors
from speaker_encoder.verification.trials import Trials


def test_a_protocol_is_written_as_it_is_read():
    for text in ("full", "crops:10:4", "windows:1.5:0.5"):
        assert str(Protocol.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "crops", "crops:0:4", "crops:10:0", "crops:x:4", "windows:1", "windows:1:2", "windows:1:0",
     "full:1", "half"],
)  # fmt: skip
def test_what_is_no_protocol_is_refused(text):
    with pytest.raises(UserError, match="Unknown --protocol"):
        Protocol.parse(text)


def test_crops_are_evenly_spaced_as_in_voxceleb_trainer():
    crops = Protocol.parse("crops:10:4")
    segments = crops.segments(100_000, 16_000)
    starts = [int(start) for start in np.linspace(0, 100_000 - 64_000, num=10)]
    assert segments == [(start, start + 64_000) for start in starts]
    assert crops.segments(63_999, 16_000) == [(0, 63_999)]


def test_windows_cover_the_utterance_to_its_end():
    windows = Protocol.parse("windows:1:0.5").segments(40_100, 16_000)
    assert windows[0] == (0, 16_000) and windows[-1] == (24_100, 40_100)
    assert all(stop - start == 16_000 for start, stop in windows)
    assert Protocol().segments(40_100, 16_000) == [(0, 40_100)]


@pytest.fixture
def vectors():
    rows = np.random.default_rng(0).normal(size=(7, 4, 5))
    return (rows / np.linalg.norm(rows, axis=2, keepdims=True)).astype(np.float32)


TRIALS = Trials(np.array([0, 1, 2, 6, 3]), np.array([1, 5, 2, 0, 4]), None)


@pytest.mark.parametrize("num_crops", [1, 4])
@pytest.mark.parametrize("kind", ["cosine", "l2"])
def test_scores_equal_a_naive_loop(vectors, num_crops, kind):
    vectors = vectors[:, :num_crops]
    found = score_vectors(vectors, TRIALS, kind)
    for score, e, t in zip(found, TRIALS.enrolment, TRIALS.test, strict=True):
        values = []
        for a in vectors[e].astype(np.float64):
            for b in vectors[t].astype(np.float64):
                cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                values.append(cosine if kind == "cosine" else -np.linalg.norm(a - b))
        assert score == pytest.approx(np.mean(values), abs=1e-6)


@pytest.mark.parametrize("kind", ["cosine", "l2"])
def test_many_trials_are_scored_in_parts(vectors, kind):
    rng = np.random.default_rng(1)
    trials = Trials(rng.integers(0, 7, 40_000), rng.integers(0, 7, 40_000), None)
    found = score_vectors(vectors, trials, kind)
    grid = Trials(*(side.ravel() for side in np.indices((7, 7))), None)
    by_pair = score_vectors(vectors, grid, kind).reshape(7, 7)
    assert np.allclose(found, by_pair[trials.enrolment, trials.test], atol=1e-12)
