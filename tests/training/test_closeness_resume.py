"""Everything that keeps a run close to its start, at once: killed and resumed, the same bytes."""

import signal

import pytest
import torch


@pytest.mark.slow
def test_killed_while_the_head_learns_alone_and_after(make_run, trained_start, data_dir):
    keys = {
        **trained_start,
        "l2_sp": 0.1,
        "distillation": 5.0,
        "replay_data_root": str(data_dir / "vctk"),
        "replay_share": 0.5,
        "head_first_steps": 2,
        "layer_lr_decay": 0.8,
        "ema_decay": 0.9,
        "gradient_accumulation_steps": 2,
        "spec_augment_time_masks": 2,
        "lora": {"r": 2, "dropout": 0.3, "target": ["*.conv.conv"], "train": ["backbone.*.norm"]},
        "save_every": 1,
        "max_steps": 4,
        "val_every": 0,
        "val_data_root": None,
    }
    undisturbed = make_run("undisturbed", **keys)
    undisturbed.run()
    killed = make_run("killed", **keys)
    for step in (1, 3):
        assert killed.run_until(step, signal.SIGKILL) == -signal.SIGKILL
        assert not killed.results_exist()
    killed.run()
    last = "checkpoint-4"
    for name in ("model.safetensors", "training_weights.safetensors"):
        assert killed.bytes_of(f"{last}/{name}") == undisturbed.bytes_of(f"{last}/{name}"), name
    states = [
        torch.load(run.path / last / "optimizer.pt", weights_only=True)["state"]
        for run in (killed, undisturbed)
    ]
    assert states[0].keys() == states[1].keys()
    for number, state in states[0].items():  # the held parameters have done fewer steps
        for name, value in state.items():
            assert torch.equal(value, states[1][number][name]), (number, name)
    assert {int(state["step"]) for state in states[0].values()} == {2, 4}
    assert killed.bytes_of("model/model.safetensors") == undisturbed.bytes_of(
        "model/model.safetensors"
    )
    parts = ("step", "loss", "loss_distillation", "loss_l2_sp")
    lines = [
        [tuple(one[p] for p in parts) for one in r.metrics("train")] for r in (killed, undisturbed)
    ]
    assert lines[0] == lines[1] and [line[0] for line in lines[0]] == [1, 2, 3, 4]
