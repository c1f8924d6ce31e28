"""One person under two names: by hand, and on voices that are made for it."""

import numpy as np
import pytest
from corpora_on_disk import voices

from speaker_encoder.doctor.same_person import (
    compare_speakers,
    find_same_persons,
    own_spread,
)


def test_likeness_equals_a_naive_loop():
    embeddings, speakers = voices(4, 5)
    found = compare_speakers(embeddings, speakers).likeness
    means = np.stack([embeddings[speakers == s].mean(axis=0) for s in range(4)])
    centred = embeddings - means.mean(axis=0)

    def mean_product(a: int, b: int) -> float:
        return float(
            np.mean(
                [
                    centred[i] @ centred[j]
                    for i in np.flatnonzero(speakers == a)
                    for j in np.flatnonzero(speakers == b)
                    if i != j
                ]
            )
        )

    for a, b in ((0, 1), (2, 3), (1, 3)):
        wanted = mean_product(a, b) / np.sqrt(mean_product(a, a) * mean_product(b, b))
        assert found[a, b] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("num_utterances", [4, 6, 12])
def test_halves_of_one_speaker_are_alike_whatever_their_number(num_utterances):
    spread = own_spread(*voices(60, num_utterances))
    assert abs(np.mean(spread)) < 0.05
    assert len(spread) >= 1000


@pytest.mark.parametrize("seed", range(5))
def test_split_speakers_are_found(seed):
    embeddings, speakers = voices(40, 8, seed)
    speakers = speakers.copy()
    for number, speaker in enumerate((3, 17)):
        speakers[np.flatnonzero(speakers == speaker)[:4]] = 40 + number
    found = {(pair.first, pair.second) for pair in find_same_persons(embeddings, speakers, seed)}
    assert found == {(3, 40), (17, 41)}


def test_three_parts_of_one_person_are_all_found():
    embeddings, speakers = voices(40, 9)
    speakers = speakers.copy()
    parts = np.flatnonzero(speakers == 5)
    speakers[parts[3:6]], speakers[parts[6:]] = 40, 41
    found = find_same_persons(embeddings, speakers)
    assert {number for pair in found for number in (pair.first, pair.second)} == {5, 40, 41}
    assert len(found) == 2


def test_nothing_is_found_among_strangers_or_too_few():
    for seed in range(5):
        assert find_same_persons(*voices(40, 6, seed)) == []
    assert find_same_persons(*voices(4, 8)) == []
    assert find_same_persons(*voices(20, 3)) == []
    embeddings, speakers = voices(40, 1)
    assert find_same_persons(embeddings, speakers) == []
