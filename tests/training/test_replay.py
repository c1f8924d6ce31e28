"""Speakers of a second corpus in every batch: how many, which, and with which labels."""

from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from speaker_encoder.corpora import Utterance
from speaker_encoder.errors import UserError
from speaker_encoder.training import train
from speaker_encoder.training.config import ConfigError, TrainConfig
from speaker_encoder.training.data import Split, load_data
from speaker_encoder.training.loss_weights import LOSS_NAME
from speaker_encoder.training.replay import num_replay_speakers, with_replay
from speaker_encoder.training.sampler import SpeakerBatchSampler, group_by_speaker


def split_of(name, counts, prefix):
    utterances = tuple(
        Utterance(f"u{n}", f"{prefix}{speaker}", None, f"/{prefix}{speaker}/u{n}.wav", 16000, 16000)
        for speaker, count in enumerate(counts)
        for n in range(count)
    )
    groups = group_by_speaker(utterances)
    return Split(name, SimpleNamespace(), utterances, groups, groups)


def sampler_of(split, size, num_replayed, seed=0, cap=None):
    return SpeakerBatchSampler(
        split.utterances,
        split.groups,
        *size,
        seed,
        cap,
        replayed=split.replayed,
        replay_per_batch=num_replayed,
    )


def batches_of(sampler, epoch):
    sampler.set_epoch(epoch)
    keys = list(sampler)
    first = epoch * len(keys)
    assert [key.position for key in keys] == list(range(first, first + len(keys)))
    size = sampler.batch_size
    return [[key.utterance for key in keys[i : i + size]] for i in range(0, len(keys), size)]


counts = st.lists(st.integers(1, 6), min_size=1, max_size=9)


@settings(max_examples=80, deadline=None)
@given(
    training=counts.filter(lambda found: len(found) > 1),
    replay=counts,
    share=st.floats(0.001, 0.99),
    size=st.integers(2, 9),
    num_utterances=st.integers(1, 4),
    seed=st.integers(0, 99),
    cap=st.sampled_from([None, 4]),
)
def test_every_batch_has_its_share_and_the_rest_is_as_without_replay(
    training, replay, share, size, num_utterances, seed, cap
):
    values = {"replay_data_root": "/r", "replay_share": share, "speakers_per_batch": size}
    num_replayed = num_replay_speakers(values)
    assert num_replay_speakers({**values, "replay_data_root": None}) == 0
    assert 1 <= num_replayed < size
    assert abs(num_replayed - share * size) <= 0.5 or num_replayed in (1, size - 1)
    if len(training) < size - num_replayed or len(replay) < num_replayed:
        return
    alone, other = split_of("training", training, "s"), split_of("replay", replay, "r")
    mixed = with_replay(alone, other)
    ours = sampler_of(mixed, (size, num_utterances), num_replayed, seed, cap)
    without = sampler_of(alone, (size - num_replayed, num_utterances), 0, seed, cap)
    jumped = sampler_of(mixed, (size, num_utterances), num_replayed, seed, cap)
    found = [batches_of(ours, epoch) for epoch in range(3)]
    assert batches_of(jumped, 2) == found[2]
    num_trained = (size - num_replayed) * num_utterances
    for epoch, batches in enumerate(found):
        plain = batches_of(without, epoch)
        assert [batch[:num_trained] for batch in batches] == plain
        for batch in batches:
            speakers = [mixed.utterances[index].speaker_id for index in batch]
            assert all(name.startswith("r") for name in speakers[num_trained:])
            assert len(set(speakers)) == size
            assert set(Counter(speakers).values()) == {num_utterances}
    replayed = [index for batches in found for batch in batches for index in batch[num_trained:]]
    names = Counter(mixed.utterances[index].speaker_id for index in replayed)
    # all speakers of the replay corpus come up before any comes up again, over epochs
    assert max(names.values()) - min([names[f"r{n}"] for n in range(len(replay))]) <= num_utterances


def test_labels_are_of_all_speakers_in_sorted_order():
    mixed = with_replay(split_of("training", [2, 1], "m"), split_of("replay", [1, 2], "a"))
    assert list(mixed.groups) == ["a0", "a1", "m0", "m1"] == list(mixed.speakers)
    for name, members in mixed.groups.items():
        assert {mixed.utterances[index].speaker_id for index in members} == {name}
    assert sorted(index for members in mixed.groups.values() for index in members) == list(range(6))
    assert mixed.replayed == {"a0", "a1"}


def test_views_of_the_same_name_stay_apart():
    training, replay = split_of("training", [1], "m"), split_of("replay", [1, 1], "a")
    of_views = {"u0": [0]}, {"u0": [0], "u1": [1]}
    training, replay = (
        Split(one.name, one.corpus, one.utterances, one.speakers, groups)
        for one, groups in zip((training, replay), of_views, strict=True)
    )
    mixed = with_replay(training, replay)
    assert mixed.groups == {"u0": [0], "replay/u0": [1], "replay/u1": [2]}
    assert mixed.replayed == {"replay/u0", "replay/u1"}


LEAST = {"model_name": "ecapa", "window_size_s": 0.8, "speakers_per_batch": 6}
REFUSED = {
    "speakers of training": ({}, "24 speakers are in both training and replay data: .*replay_list"),
    "speakers of validation": (
        {"replay_data_root": "libritts"},
        "4 speakers are in both training and validation data",
    ),
    "speakers of the reference": (
        {"replay_data_root": "vctk", "reference_data_root": "vctk"},
        "speakers are in both training and reference data",
    ),
    "too few of them": (
        {"replay_data_root": "vctk", "replay_share": 0.9},
        "A replay batch needs 5 different speakers, found 4. Add speakers, or lower replay_share",
    ),
}


def config_of(data_dir, **keys):
    folders = {"train_data_root": "voxceleb/wav", "val_data_root": "libritts"}
    folders |= {"replay_data_root": "voxceleb/wav"}
    values = {**LEAST, **folders, **keys}
    return TrainConfig.from_dict(
        {k: str(data_dir / v) if k.endswith("_root") and v else v for k, v in values.items()}
    )


@pytest.mark.parametrize("name", REFUSED)
def test_a_speaker_has_one_part(data_dir, name):
    keys, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        load_data(config_of(data_dir, **keys))
    if name == "speakers of validation":
        assert load_data(config_of(data_dir, **keys, allow_speaker_overlap=True)).replay


def test_a_list_without_its_folder_is_refused(tmp_path):
    (tmp_path / "list").write_text("a b.wav\n")
    values = {"model_name": "ecapa", "train_data_root": "demo"}
    with pytest.raises(ConfigError, match="replay_list: given without replay_data_root"):
        TrainConfig.from_dict({**values, "replay_list": str(tmp_path / "list")})


def test_a_run_learns_both_corpora_and_says_so(make_run, data_dir):
    run = make_run(
        replay_data_root=str(data_dir / "vctk"),
        replay_share=0.5,
        loss="aam_softmax",
        max_steps=2,
        val_every=0,
        val_data_root=None,
    )
    outcome = train(TrainConfig.from_json(run.config_path))
    assert "96 utterances of 24 speakers and 4 of replay" in outcome.message
    results = run.results()
    assert (results["num_train_speakers"], results["num_replay_speakers"]) == (24, 4)
    assert run.metrics("train")[0]["epoch"] == pytest.approx(1 / (96 // (2 * 3)))
    assert "some of 4 speakers of another corpus" in (run.path / "model/README.md").read_text()
    assert (run.path / LOSS_NAME).is_file()
    weights = load_file(run.path / "checkpoint-2/model.safetensors")
    assert weights["loss_fn.loss.weight"].shape[0] == 24 + 4
