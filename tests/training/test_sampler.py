"""P x K batches: who is in them, and that they are a function of the seed alone."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker_encoder.corpora import Utterance
from speaker_encoder.errors import UserError
from speaker_encoder.training.sampler import SpeakerBatchSampler, choose_speakers


def make_utterances(counts, sessions=None):
    return tuple(
        Utterance(
            f"s{speaker}/u{number}",
            f"s{speaker}",
            f"session{number % sessions}" if sessions else None,
            f"/s{speaker}/u{number}.wav",
            16000,
            16000,
        )
        for speaker, count in enumerate(counts)
        for number in range(count)
    )


def make_sampler(utterances, num_speakers, num_utterances, seed=0):
    speakers = choose_speakers(utterances, num_speakers, num_utterances, "repeat", "training")
    return SpeakerBatchSampler(utterances, speakers, num_speakers, num_utterances, seed)


def epoch_of(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 9), min_size=2, max_size=12),
    num_speakers=st.integers(2, 6),
    num_utterances=st.integers(2, 5),
    seed=st.integers(0, 1000),
)
def test_batches_hold_different_speakers_and_different_utterances(
    counts, num_speakers, num_utterances, seed
):
    utterances = make_utterances(counts)
    if len(counts) < num_speakers:
        with pytest.raises(UserError, match="different speakers"):
            make_sampler(utterances, num_speakers, num_utterances, seed)
        return
    sampler = make_sampler(utterances, num_speakers, num_utterances, seed)
    size = num_speakers * num_utterances
    keys = [key for epoch in range(3) for key in epoch_of(sampler, epoch)]
    assert [key.position for key in keys] == list(range(len(keys)))
    for first in range(0, len(keys), size):
        batch = [key.utterance for key in keys[first : first + size]]
        speakers = [utterances[index].speaker_id for index in batch]
        groups = [speakers[i : i + num_utterances] for i in range(0, size, num_utterances)]
        assert all(len(set(group)) == 1 for group in groups)
        assert len({group[0] for group in groups}) == num_speakers
        for number in range(num_speakers):
            members = batch[number * num_utterances : (number + 1) * num_utterances]
            has = counts[int(groups[number][0][1:])]
            assert len(set(members)) == min(num_utterances, has)


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 9), min_size=4, max_size=9),
    seed=st.integers(0, 1000),
    epoch=st.integers(0, 6),
)
def test_an_epoch_is_the_same_however_it_is_reached(counts, seed, epoch):
    utterances = make_utterances(counts)
    walked = make_sampler(utterances, 3, 2, seed)
    for number in range(epoch):
        epoch_of(walked, number)
    jumped = make_sampler(utterances, 3, 2, seed)
    left_half_way = make_sampler(utterances, 3, 2, seed)
    left_half_way.set_epoch(max(0, epoch - 1))
    next(iter(left_half_way))
    expected = epoch_of(walked, epoch)
    assert epoch_of(jumped, epoch) == expected
    assert epoch_of(left_half_way, epoch) == expected


def test_all_speakers_and_utterances_come_up_equally_often():
    utterances = make_utterances([6] * 10)
    sampler = make_sampler(utterances, 5, 3)
    drawn = Counter(k.utterance for epoch in range(8) for k in epoch_of(sampler, epoch))
    # 8 epochs x 4 batches x 15 = 480 draws of 60 utterances
    assert set(drawn) == set(range(60))
    assert set(drawn.values()) == {8}


def test_sessions_of_a_speaker_are_spread():
    utterances = make_utterances([12] * 4, sessions=4)
    sampler = make_sampler(utterances, 2, 4)
    keys = epoch_of(sampler, 0)
    for first in range(0, len(keys), 4):
        sessions = [utterances[key.utterance].session_id for key in keys[first : first + 4]]
        assert len(set(sessions)) == 4


def test_seeds_give_different_orders():
    utterances = make_utterances([6] * 10)
    assert epoch_of(make_sampler(utterances, 5, 3, 0), 0) != epoch_of(
        make_sampler(utterances, 5, 3, 1), 0
    )


def test_few_utterances_are_named_dropped_or_refused(caplog):
    utterances = make_utterances([5, 2, 5, 1])
    with pytest.raises(UserError, match=r"s1 \(2\), s3 \(1\)"):
        choose_speakers(utterances, 2, 4, "error", "training")
    with caplog.at_level("INFO", logger="speaker_encoder"):
        kept = choose_speakers(utterances, 2, 4, "drop", "training")
    assert list(kept) == ["s0", "s2"]
    assert "2 training speakers have fewer than 4 utterances" in caplog.text
    with pytest.raises(UserError, match="found 2"):
        choose_speakers(utterances, 3, 4, "drop", "training")
    assert len(choose_speakers(utterances, 4, 4, "repeat", "training")) == 4
