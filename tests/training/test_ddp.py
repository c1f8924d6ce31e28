"""Two processes give the loss and the weights of one."""

import signal
import sys
import time

import pytest
from conftest import TINY_WAVLM
from safetensors.torch import load_file

pytestmark = [pytest.mark.slow, pytest.mark.ddp]

NO_DROPOUT = {
    **TINY_WAVLM,
    **dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout"), 0.0),
    **dict.fromkeys(("feat_proj_dropout", "layerdrop", "mask_time_prob"), 0.0),
}
FAMILIES = {
    "wavlm": {"model_name": "wavlm-base", "encoder_config": NO_DROPOUT},
    "ecapa": {  # which stays close to a trained one
        "freeze_batch_norm": True,
        "l2_sp": 0.1,
        "distillation": 5.0,
        "head_first_steps": 1,
        "replay_share": 0.5,
        "interpolate": "off",
    },
}


def largest_difference(one, other, checkpoint):
    first = load_file(one.path / checkpoint / "model.safetensors")
    second = load_file(other.path / checkpoint / "model.safetensors")
    assert set(first) == set(second)
    return max(float((first[n].float() - second[n].float()).abs().max()) for n in first)


@pytest.mark.parametrize("family", FAMILIES)
def test_two_processes_equal_one(make_run, family, trained_start, data_dir):
    # SGD, whose step is the gradient itself: Adam would turn rounding into whole steps
    keys = {
        **FAMILIES[family],
        "training_arguments": {"optim": "sgd"},
        "learning_rate_init": 0.05,
        "max_steps": 5,
        "val_every": 5,
        "window_size_s": [0.6, 1.0],
    }
    if family == "ecapa":
        keys |= {**trained_start, "replay_data_root": str(data_dir / "vctk")}
    one = make_run("one", **keys)
    one.run()
    two = make_run("two", **keys, data_parallel=[0, 1])
    two.run(is_fresh=True)
    assert largest_difference(one, two, "checkpoint-5") <= 1e-5
    for first, second in zip(one.metrics("train"), two.metrics("train"), strict=True):
        assert second["loss"] == pytest.approx(first["loss"], abs=1e-5)
        if family == "ecapa":  # the tiny WavLM's cosines differ by less than rounding
            assert second["eer"] == pytest.approx(first["eer"], abs=1e-6)
            assert second["mean_cosine"] == pytest.approx(first["mean_cosine"], abs=1e-5)
            for part in ("loss_distillation", "loss_l2_sp"):
                assert second[part] == pytest.approx(first[part], abs=1e-6)
                assert (first["step"] == 1) == (abs(first[part]) < 1e-6)
    for first, second in zip(one.metrics("validation"), two.metrics("validation"), strict=True):
        assert second["loss"] == pytest.approx(first["loss"], abs=1e-4)
        if family == "ecapa":
            assert second["eer"] == pytest.approx(first["eer"], abs=1e-3)
    untouched = make_run("untouched", **{**keys, "max_steps": 1, "learning_rate_init": 0.0})
    untouched.run()
    moved = load_file(one.path / "checkpoint-5/model.safetensors")
    start = load_file(untouched.path / "checkpoint-1/model.safetensors")
    assert max(float((moved[n].float() - start[n].float()).abs().max()) for n in moved) > 1e-3


def test_torchrun_by_hand_and_a_stop_that_both_processes_agree_on(make_run):
    run = make_run(max_steps=200, val_data_root=None)
    launcher = (
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
        "train_encoder.py",
    )
    process = run.start(command=launcher)
    limit = time.monotonic() + 120
    while not run.metrics("train") and time.monotonic() < limit:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    done = len(run.metrics("train"))
    assert 0 < done < 200
    assert (run.path / f"checkpoint-{done}").is_dir()


def test_an_error_in_the_processes_is_exit_code_2(make_run):
    run = make_run(data_parallel=[0, 1], speakers_per_batch=5)
    failed = run.run(expect=2, is_fresh=True)
    assert "speakers_per_batch" in failed.stderr and "Traceback" not in failed.stderr
    missing = make_run("missing", data_parallel=[0, 1], val_speakers_per_batch=40)
    failed = missing.run(expect=2, is_fresh=True)
    assert "validation batch needs 40 different speakers" in failed.stderr
