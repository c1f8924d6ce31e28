"""Batches from shards: a function of the epoch, of P different speakers, from a bounded buffer."""

import itertools
import logging
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker_encoder.audio.member import Member
from speaker_encoder.corpora import Utterance
from speaker_encoder.training import stream_buffer, stream_order
from speaker_encoder.training.sampler import SpeakerBatchSampler, group_by_speaker
from speaker_encoder.training.stream_order import RUN_UTTERANCES, StreamedBatchSampler, runs_of


def corpus_of(counts, per_shard=50, is_mixed=True, is_parquet=False):
    """Gives utterances: so many of each speaker, in the order of shards."""
    turns = [[speaker] * count for speaker, count in enumerate(counts)]
    order = list(itertools.chain(*turns))
    if is_mixed:
        order = [one for turn in itertools.zip_longest(*turns) for one in turn if one is not None]
    utterances = []
    for place, speaker in enumerate(order):
        shard, row = divmod(place, per_shard)
        name = f"/shards/{shard:04d}.{'parquet' if is_parquet else 'tar'}"
        where = divmod(row, 10) if is_parquet else (1024 * row, 512)
        member = Member(name, *where, f"u{place:05d}.flac")
        utterances.append(
            Utterance(f"u{place:05d}", f"s{speaker:03d}", f"{place % 3}", member.path, 16000, 16000)
        )
    return utterances


def sampler_of(utterances, speakers_per_batch=3, per_speaker=2, seed=0, buffer=64, **keywords):
    return StreamedBatchSampler(
        utterances,
        group_by_speaker(utterances),
        speakers_per_batch,
        per_speaker,
        seed,
        shuffle_buffer=buffer,
        **keywords,
    )


CORPORA = st.builds(
    corpus_of,
    st.lists(st.integers(1, 40), min_size=4, max_size=30),
    st.integers(5, 60),
    st.booleans(),
    st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(CORPORA, st.integers(1, 4), st.integers(1, 4), st.integers(0, 3), st.integers(0, 100))
def test_every_batch_has_p_speakers_with_k_utterances(utterances, size, count, seed, more):
    buffer = size * count + more
    sampler = sampler_of(utterances, size, count, seed, buffer)
    held = []
    admit = stream_buffer.StreamBuffer.admit

    def watched(self, indices):
        admit(self, indices)
        held.append(len(self))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_buffer.StreamBuffer, "admit", watched)
        batches = list(sampler.plan_epoch(2))
    assert len(batches) == max(1, len(utterances) // (size * count))
    sizes = Counter(utterance.speaker_id for utterance in utterances)
    for batch in batches:
        runs = [batch[start : start + count] for start in range(0, len(batch), count)]
        speakers = [{utterances[index].speaker_id for index in run} for run in runs]
        assert all(len(speaker) == 1 for speaker in speakers)
        assert len(set().union(*speakers)) == size == len(runs)
        if buffer >= len(utterances):
            for run, (speaker,) in zip(runs, speakers, strict=True):
                assert len(set(run)) == min(count, sizes[speaker])
    assert max(held) <= buffer


@settings(max_examples=30, deadline=None)
@given(CORPORA, st.integers(0, 3), st.integers(0, 5))
def test_an_epoch_is_a_function_of_seed_and_number(utterances, seed, epoch):
    sampler = sampler_of(utterances, seed=seed)
    planned = list(sampler.plan_epoch(epoch))
    for number in range(epoch):  # one that came there step by step
        sampler.set_epoch(number)
        list(sampler)
    sampler.set_epoch(epoch)
    keys = list(sampler)
    assert [key.utterance for key in keys] == list(itertools.chain(*planned))
    first = epoch * len(sampler)
    assert [key.position for key in keys] == list(range(first, first + len(sampler)))
    other = sampler_of(utterances, seed=seed + 1)
    assert len(utterances) < 60 or list(other.plan_epoch(epoch)) != planned
    assert len(utterances) < 60 or list(sampler.plan_epoch(epoch + 1)) != planned


@pytest.mark.parametrize("is_mixed", [True, False])
def test_every_utterance_comes_up_once_where_speakers_have_as_many(is_mixed):
    utterances = corpus_of([12] * 60, is_mixed=is_mixed)
    sampler = sampler_of(utterances, 4, 3, buffer=480)
    for epoch in range(3):
        seen = Counter(itertools.chain(*sampler.plan_epoch(epoch)))
        assert len(seen) > 0.97 * len(utterances)
        assert max(seen.values()) <= 3
    seen = Counter(itertools.chain(*(itertools.chain(*sampler.plan_epoch(e)) for e in range(6))))
    assert set(seen) == set(range(len(utterances)))


def test_runs_follow_the_shards():
    utterances = corpus_of([100] * 5, per_shard=300)
    runs = runs_of(utterances, range(500)[::-1])
    assert [len(run) for run in runs] == [128, 128, 44, 128, 72]
    assert list(itertools.chain(*runs)) == list(range(500))
    rows = corpus_of([100] * 5, per_shard=300, is_parquet=True)
    assert {len(run) for run in runs_of(rows, range(500))} == {10}


def test_neighbouring_batches_are_near_in_the_shards():
    utterances = corpus_of([100] * 100, per_shard=1000)  # 10,000
    sampler = sampler_of(utterances, 10, 4, buffer=1000)
    runs = runs_of(utterances, range(len(utterances)))
    run_of = {index: number for number, run in enumerate(runs) for index in run}
    batches = list(sampler.plan_epoch(0))
    touched = [{run_of[index] for batch in batches[i : i + 5] for index in batch} for i in (50, 99)]
    assert all(len(some) <= 1000 // RUN_UTTERANCES + 6 for some in touched)


def test_a_buffer_with_too_few_speakers_says_what_to_do(caplog):
    utterances = corpus_of([300] * 20, per_shard=600, is_mixed=False)
    caplog.set_level(logging.INFO, logger=stream_order.__name__)
    sampler_of(utterances, 10, 4, buffer=1000).explain()
    info, warning = [record.getMessage() for record in caplog.records]
    assert info.startswith("shuffle_buffer: 1000 of 6000 utterances, ")
    assert "speakers with 4 utterances, a batch has 10" in warning
    assert "128 neighbours in a shard are of 1." in warning
    assert "Raise shuffle_buffer to about" in warning
    caplog.clear()
    sampler_of(corpus_of([60] * 100, per_shard=600), 10, 4, buffer=1500).explain()
    assert len(caplog.records) == 1


def test_limits_views_and_replay_are_as_from_memory():
    utterances = corpus_of([30] * 20)
    capped = sampler_of(utterances, 4, 2, buffer=100, max_utterances_per_speaker=7)
    memory = SpeakerBatchSampler(
        utterances, group_by_speaker(utterances), 4, 2, 0, max_utterances_per_speaker=7
    )
    assert len(capped) == len(memory)
    for epoch in (0, 1):
        capped.set_epoch(epoch)
        chosen = {key.utterance for key in capped}
        counts = Counter(utterances[index].speaker_id for index in chosen)
        assert max(counts.values()) == 6
    views = {utterance.utterance_id: [i] for i, utterance in enumerate(utterances)}
    sampler = StreamedBatchSampler(utterances, views, 5, 3, 0, shuffle_buffer=100, is_of_views=True)
    seen = [key.utterance for key in sampler]
    assert sorted(seen) == sorted(list(range(600)) * 3)
    replayed = frozenset(f"s{number:03d}" for number in range(5))
    mixed = sampler_of(utterances, 4, 2, buffer=100, replayed=replayed, replay_per_batch=1)
    keys = list(mixed)
    for start in range(0, len(keys), 8):
        speakers = [utterances[key.utterance].speaker_id in replayed for key in keys[start:][:8]]
        assert speakers == [False] * 6 + [True] * 2
