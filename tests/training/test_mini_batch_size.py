"""Real runs whose batches are computed by pieces."""

import json
import logging
import signal

import pytest
import torch
from conftest import TINY_ECAPA, TINY_WAVLM
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from speaker_encoder import SpeakerEncoder
from speaker_encoder.errors import UserError
from speaker_encoder.training import piece_size
from speaker_encoder.training.build import check_model
from speaker_encoder.training.config import ConfigError, TrainConfig
from speaker_encoder.training.gradient_cache import split_batch
from speaker_encoder.training.piece_size import graph_bytes, largest_piece

SGD = {"training_arguments": {"optim": "sgd"}, "learning_rate_init": 0.05}
EVERYTHING = {
    "loss": [{"name": "softmax"}, {"name": "angular_prototypical", "weight": 0.5}],
    "freeze_batch_norm": True,
    "gradient_accumulation_steps": 2,
    "l2_sp": 0.1,
    "distillation": 5.0,
    "head_first_steps": 1,
    "interpolate": "off",
    "spec_augment_time_masks": 2,
    "spec_augment_mel_masks": 1,
    "lora": {"r": 2, "alpha": 4, "dropout": 0.0, "target": ["fc.conv", "*.tdnn1.conv.conv"]},
    "max_steps": 3,
}


def largest_difference(one, other, name):
    first, second = load_file(one.path / name), load_file(other.path / name)
    assert set(first) == set(second)
    return max(float((first[n].float() - second[n].float()).abs().max()) for n in first)


@pytest.mark.slow
def test_a_run_by_pieces_is_the_run_at_once(make_run, trained_start, data_dir):
    keys = {**EVERYTHING, **SGD, **trained_start, "augment_noises_paths": [str(data_dir / "noise")]}
    one = make_run("one", **keys)
    one.run()
    pieces = make_run("pieces", **keys, mini_batch_size=5)
    pieces.run()
    assert largest_difference(one, pieces, "checkpoint-3/model.safetensors") <= 1e-5
    for first, second in zip(one.metrics("train"), pieces.metrics("train"), strict=True):
        for name in ("loss", "loss_distillation", "loss_l2_sp", "eer", "mean_cosine"):
            assert second[name] == pytest.approx(first[name], abs=1e-5)
    start = make_run("start", **{**keys, "max_steps": 1, "learning_rate_init": 0.0})
    start.run()
    moved = load_file(one.path / "checkpoint-3/model.safetensors")
    was = load_file(start.path / "checkpoint-1/model.safetensors")
    assert max(float((moved[n].float() - was[n].float()).abs().max()) for n in moved) > 1e-3


@pytest.mark.slow
def test_killed_by_pieces_and_gone_on_is_the_same(make_run):
    keys = {
        "model_name": "wavlm-base",
        "encoder_config": {**TINY_WAVLM, "mask_time_prob": 0.3, "mask_time_length": 2},
        "mini_batch_size": 4,
        "val_data_root": None,
        "save_every": 1,
    }
    undisturbed = make_run("undisturbed", **keys)
    undisturbed.run()
    killed = make_run("killed", **keys)
    assert killed.run_until(2, signal.SIGKILL) == -signal.SIGKILL
    assert not killed.results_exist()
    killed.run()
    for name in ("model.safetensors", "optimizer.pt"):
        path = f"checkpoint-6/{name}"
        assert undisturbed.bytes_of(path) == killed.bytes_of(path)


@pytest.mark.slow
def test_a_resumed_run_keeps_the_pieces_that_were_found(make_run):
    keys = {"mini_batch_size": "auto", "val_data_root": None}
    run = make_run(**keys, max_steps=1)
    run.run()
    progress = run.path / "checkpoint-1" / "progress.json"
    found = json.loads(progress.read_text())
    assert found["mini_batch_size"] == 12  # all of them, on any machine that runs this
    progress.write_text(json.dumps({**found, "mini_batch_size": 5}))
    values = json.loads(run.config_path.read_text())
    run.config_path.write_text(json.dumps({**values, "max_steps": 2}))
    run.run()
    found = json.loads((run.path / "checkpoint-2" / "progress.json").read_text())
    assert found["mini_batch_size"] == 5


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_by_pieces_are_one_at_once(make_run):
    keys = {**SGD, "freeze_batch_norm": True, "val_data_root": None, "max_steps": 3}
    one = make_run("one", **keys)
    one.run()
    two = make_run("two", **keys, mini_batch_size=4, data_parallel=[0, 1])
    two.run(is_fresh=True)
    assert largest_difference(one, two, "checkpoint-3/model.safetensors") <= 1e-5


@pytest.mark.slow
def test_activations_that_are_computed_again_give_the_same_run(make_run):
    keys = {
        "model_name": "wavlm-base",
        "encoder_config": {**TINY_WAVLM, "mask_time_prob": 0.3, "mask_time_length": 2},
        "val_data_root": None,
        "max_steps": 2,
        "mini_batch_size": 4,
    }
    plain = make_run("plain", **keys)
    plain.run()
    again = make_run("again", **keys, training_arguments={"activation_checkpointing": True})
    again.run()
    assert largest_difference(plain, again, "checkpoint-2/model.safetensors") <= 1e-6


WAVLM = {"model_name": "wavlm-base", "encoder_config": TINY_WAVLM}
LEAST = {
    "model_name": "ecapa",
    "pretrained": False,
    "encoder_config": TINY_ECAPA,
    "train_data_root": "demo",
    "speakers_per_batch": 5,
    "utterances_per_speaker": 3,
}


def test_a_piece_of_one_crop_has_no_statistics(caplog):
    with pytest.raises(UserError, match="mini_batch_size: with 2, a piece of the 15 crops"):
        check_model(TrainConfig.from_dict({**LEAST, "mini_batch_size": 2}))
    check_model(TrainConfig.from_dict({**LEAST, "mini_batch_size": 1, "freeze_batch_norm": True}))
    with caplog.at_level(logging.INFO):
        check_model(TrainConfig.from_dict({**LEAST, "mini_batch_size": 4}))
    assert "statistics of each piece" in caplog.text


@pytest.mark.parametrize("value", [0, 1.5, "all", True, "4"])
def test_impossible_sizes_are_refused(value):
    with pytest.raises(ConfigError, match="mini_batch_size"):
        TrainConfig.from_dict({**LEAST, "mini_batch_size": value})


def test_where_weights_are_spread_it_is_refused():
    spread = {"training_arguments": {"fsdp": "full_shard"}}
    with pytest.raises(ConfigError, match="mini_batch_size: given with training_arguments fsdp"):
        TrainConfig.from_dict({**LEAST, "mini_batch_size": 4, **spread})


@pytest.mark.parametrize("name", ["activation_checkpointing", "gradient_checkpointing"])
def test_activations_of_which_no_layer_can_be_computed_again_are_refused(name):
    again = {"training_arguments": {name: True}}
    with pytest.raises(UserError, match=f"{name} is for self-supervised encoders; ecapa"):
        check_model(TrainConfig.from_dict({**LEAST, **again}))
    check_model(TrainConfig.from_dict({**LEAST, **WAVLM, **again}))


def test_looking_for_unused_weights_is_refused():
    looks = {"training_arguments": {"ddp_find_unused_parameters": True}}
    with pytest.raises(ConfigError, match="Leave that out"):
        TrainConfig.from_dict({**LEAST, "mini_batch_size": 4, **looks})
    TrainConfig.from_dict({**LEAST, **looks})


def tiny(name="ecapa", encoder_config=TINY_ECAPA):
    torch.manual_seed(1)
    return SpeakerEncoder.from_name(name, pretrained=False, encoder_config=encoder_config).train()


def test_auto_counts_what_a_graph_holds(monkeypatch):
    encoder = tiny()
    held = [graph_bytes(lambda n: encoder(torch.randn(n, 8000)).embeddings, n) for n in (2, 4, 8)]
    per_crop = (held[1] - held[0]) / 2
    assert (held[2] - held[1]) / 4 == pytest.approx(per_crop, rel=0.05)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    state = torch.get_rng_state()
    for crops in (7, 20):
        monkeypatch.setattr(piece_size, "free_bytes", lambda crops=crops: 4 * per_crop * crops + 9)
        assert largest_piece(encoder, 64, 8000) == crops
    for crops, found in ((3.1, 3), (2.9, 0)):
        monkeypatch.setattr(piece_size, "free_bytes", lambda crops=crops: per_crop * crops)
        assert largest_piece(encoder, 64, 8000) == found
    monkeypatch.undo()
    assert largest_piece(encoder, 64, 8000) == 64
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_auto_halves_what_does_not_fit():
    encoder = tiny()

    def embed(num_crops):
        if num_crops > limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return encoder(torch.randn(num_crops, 8000)).embeddings

    for limit, found in ((100, 40), (39, 20), (12, 10), (4, 3), (3, 3), (2, 0)):  # noqa: B007
        assert piece_size._largest_tried(embed, 40) == found


@given(batch_size=st.integers(2, 500), size=st.integers(3, 500))
def test_what_auto_finds_never_leaves_a_crop_alone(batch_size, size):
    assert all(piece.stop - piece.start > 1 for piece in split_batch(batch_size, size))


def test_auto_waits_for_no_other_process():
    encoder = torch.nn.SyncBatchNorm.convert_sync_batchnorm(tiny())
    # in training such batch norm refuses a CPU, and on a card it would wait for the others
    assert largest_piece(encoder, 16, 8000) == 16
    assert any(
        isinstance(one, torch.nn.SyncBatchNorm) and one.training for one in encoder.modules()
    )
