"""Weights divided over two processes are trained as whole ones are."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, TINY_WAVLM
from hosts import process_of
from safetensors.torch import load_file

from speaker_encoder.errors import UserError
from speaker_encoder.training import TrainConfig
from speaker_encoder.training.build import build_arguments, build_model
from speaker_encoder.training.config_text import ConfigError
from speaker_encoder.training.run_dir import RunDirectory

SCRIPT = Path(__file__).with_name("several_trainings.py")
FSDP = {"fsdp": True}
BY_LAYER = {"fsdp": True, "fsdp_config": {"transformer_layer_cls_to_wrap": ["WavLMEncoderLayer"]}}
FAMILIES = {
    "wavlm": (
        {"model_name": "wavlm-base", "encoder_config": TINY_WAVLM, "average_best": 2},
        BY_LAYER,
    ),
    "ecapa": ({"freeze_batch_norm": True, "precision": "bf16", "val_data_root": None}, FSDP),
}
SGD = {"learning_rate_init": 0.05, "max_steps": 6, "val_every": 2}


def start(runs, cache) -> subprocess.Popen:
    """Starts the trainings of two processes, one training after the other."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return subprocess.Popen(
        [*launcher, str(SCRIPT), *(str(run.config_path) for run in runs)],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
            "PYTHONPATH": str(REPOSITORY),
            "SPEAKER_ENCODER_CACHE": str(cache),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(condition, process) -> None:
    limit = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.005)


def weights(run, folder):
    return load_file(run.path / folder / "model.safetensors")


def apart(first, second):
    assert set(first) == set(second)
    return max(float((first[n].float() - second[n].float()).abs().max()) for n in first)


@pytest.mark.slow
@pytest.mark.ddp
def test_divided_weights_end_as_whole_ones_also_after_a_kill(make_run, tmp_path):
    runs = {}
    for family, (keys, fsdp) in FAMILIES.items():
        for name, given in (("whole", {}), ("divided", fsdp)):
            arguments = {"optim": "sgd", **given}
            runs[f"{family} {name}"] = make_run(
                f"{family} {name}", **keys, **SGD, training_arguments=arguments
            )
    adam = {**FAMILIES["wavlm"][0], "average_best": None, "max_steps": 20, "val_data_root": None}
    adam["training_arguments"] = BY_LAYER
    undisturbed, killed = make_run("undisturbed", **adam), make_run("killed", **adam)
    trainings = start([*runs.values(), undisturbed, killed], tmp_path / "cache")
    until(lambda: killed.metrics("train"), trainings)
    pid = process_of(killed, rank=1)
    until(lambda: killed.metrics("train")[-1]["step"] >= 11, trainings)  # in the second epoch
    os.kill(pid, signal.SIGKILL)
    trainings.communicate(timeout=60)
    assert not killed.results_exist()

    for family in FAMILIES:
        whole, divided = runs[f"{family} whole"], runs[f"{family} divided"]
        assert (divided.path / "checkpoint-6/pytorch_model_fsdp.bin").is_file()
        for name in ("checkpoint-6", "model"):
            assert apart(weights(whole, name), weights(divided, name)) <= 1e-5
        for split in ("train", "validation"):
            for first, second in zip(whole.metrics(split), divided.metrics(split), strict=True):
                assert second["loss"] == pytest.approx(first["loss"], abs=1e-5)
        before = build_model(TrainConfig.from_json(whole.config_path), num_speakers=24)
        assert apart(weights(whole, "checkpoint-6"), before.state_dict()) > 1e-3

    resumed = start([killed], tmp_path / "cache")
    _, err = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, err
    assert "resuming from" in killed.bytes_of("train.log").decode()
    for name in ("checkpoint-20/model.safetensors", "model/model.safetensors"):
        assert killed.bytes_of(name) == undisturbed.bytes_of(name)
    states = [
        torch.load(run.path / "checkpoint-20/optimizer.bin", weights_only=True)["state"]
        for run in (killed, undisturbed)
    ]
    for name, state in states[0].items():
        for key, value in state.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(states[1][name][key]))


def test_one_process_has_nothing_to_divide_the_weights_over(make_run):
    config = TrainConfig.from_json(make_run(training_arguments=FSDP).config_path)
    with pytest.raises(UserError, match="fsdp divides the weights over processes, and this is one"):
        build_arguments(config, RunDirectory(Path("nowhere")), "cpu")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"ema_decay": 0.999}, "ema_decay: not possible with fsdp"),
        ({"lora": {}}, "lora: not possible with fsdp"),
        ({"mini_batch_size": 4}, "mini_batch_size: given with training_arguments fsdp"),
    ],
)
def test_what_needs_whole_weights_is_refused(keys, message, make_run):
    run = make_run(training_arguments=FSDP, **keys)
    with pytest.raises(ConfigError, match=message):
        TrainConfig.from_json(run.config_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"fsdp": True, "fsdp_config": {"fsdp_state_dict_type": "SHARDED_STATE_DICT"}},
            "fsdp_state_dict_type of fsdp_config is 'SHARDED_STATE_DICT'. Possible is "
            "'FULL_STATE_DICT'",
        ),
        (
            {"fsdp": True, "fsdp_config": {"version": 1}},
            "version of fsdp_config is 1. Possible is 2",
        ),
        ({"fsdp": True, "fsdp_config": "fsdp.json"}, "Write its options as an object"),
        ({"ddp_timeout": 0}, "ddp_timeout is 0. Give seconds, more than 0"),
    ],
)
def test_options_that_would_go_wrong_later_are_refused(arguments, message, make_run):
    run = make_run(training_arguments=arguments)
    with pytest.raises(ConfigError, match=message):
        TrainConfig.from_json(run.config_path)
