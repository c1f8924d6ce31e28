"""Runs with every kind of augmentation, and on views of utterances."""

import json
import math

import pytest
import torch

from speaker_encoder.training import TrainConfig, train
from speaker_encoder.training.data import load_data

SHORT = {"max_steps": 2, "val_every": 0, "save_every": 0, "val_data_root": None}


@pytest.fixture
def everything(data_dir):
    return {
        **SHORT,
        "augment_policy": "each",
        "augment_noises_paths": [str(data_dir / "noise")],
        "augment_musics_paths": [str(data_dir / "music")],
        "augment_reverbs_paths": [str(data_dir / "rirs")],
        "augment_babbles_paths": "training",
        "augment_pitch_p": 0.5,
        "augment_codec_p": 0.5,
        "augment_bank_seconds": 60,
        "spec_augment_time_masks": 2,
        "spec_augment_mel_masks": 1,
        "speed_perturbation": [0.9, 1.1],
        "max_speakers": 4,
        "max_utterances_per_speaker": 3,
        "augment_babble_voices": [2, 3],
        "loss": "softmax",
    }


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_the_command_with_everything_on(make_run, everything):
    run = make_run(num_workers=1, **everything)
    run.run()
    assert [math.isfinite(line["loss"]) for line in run.metrics("train")] == [True, True]
    assert run.results()["num_train_speakers"] == 12
    log = (run.path / "train.log").read_text()
    assert "max_speakers: 4 of 24 training speakers, chosen with seed 0: id1" in log
    for kind in ("music", "noise", "impulse responses", "voices"):
        assert f" {kind}: " in log


@pytest.mark.slow
def test_gone_on_with_other_workers_it_ends_with_the_same_weights(make_run, everything, one_thread):
    straight = make_run("straight", **{**everything, "max_steps": 5, "num_workers": 2})
    train(TrainConfig.from_json(straight.config_path))
    parts = make_run("parts", **everything)  # an epoch has 3 steps: the next stops within one
    for max_steps in (2, 5):
        train(TrainConfig.from_json(parts.config_path, [f"max_steps={max_steps}"]))
    assert len(parts.metrics("train")) == 5
    name = "model/model.safetensors"
    assert parts.bytes_of(name) == straight.bytes_of(name)


def test_a_run_on_views_of_utterances(make_run):
    run = make_run(
        loss={"name": "nt_xent", "pairs": [[0, 1], [0, 2], [1, 3]]},
        views="halves",
        utterances_per_speaker=4,
        window_size_s=0.5,
        augment_pitch_semitones=[1, 6],
        **SHORT,
    )
    config = TrainConfig.from_json(run.config_path)
    assert config.use_data_augmentation is True
    outcome = train(config)
    assert outcome.exit_code == 0
    assert [math.isfinite(line["loss"]) for line in run.metrics("train")] == [True, True]
    assert run.results()["num_train_speakers"] == 24
    stored = json.loads((run.path / "train_config.json").read_text())
    groups = load_data(TrainConfig.from_dict(stored)).training.groups
    assert sorted(groups.values()) == [[index] for index in range(len(groups))]
