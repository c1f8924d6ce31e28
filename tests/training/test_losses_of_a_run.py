"""Losses with weights of their own, through the real command: record, checkpoint, resume, model."""

import signal

import pytest
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

# the margin follows from the step: a resumed run must go on with it; one utterance of each speaker
KEYS = {
    "loss": [{"name": "aam_softmax", "sub_centres": 2, "margin_end_step": 4}, {"name": "softmax"}],
    "speakers_per_batch": 12,
    "utterances_per_speaker": 1,
    "gradient_accumulation_steps": 2,
    "max_steps": 4,
}


def test_class_weights_are_resumed_and_never_published(make_run):
    undisturbed = make_run("undisturbed", **KEYS)
    done = undisturbed.run()
    assert "minDCF" in done.stderr and "loss" not in done.stderr.split("minDCF")[1]
    assert all("loss" not in line for line in undisturbed.metrics("validation"))
    assert all(line["loss"] > 0 and "eer" not in line for line in undisturbed.metrics("train"))
    assert "aam_softmax + softmax" in (undisturbed.path / "model/README.md").read_text()

    last = "checkpoint-4/model.safetensors"
    weights = load_file(undisturbed.path / last)
    shapes = {tuple(w.shape) for name, w in weights.items() if name.startswith("loss_fn.")}
    assert shapes == {(24, 2, 24), (24, 24), (24,)}  # training speakers, sub-centres, dimensions
    published = load_file(undisturbed.path / "model/model.safetensors")
    assert not any("loss" in name for name in published)

    killed = make_run("killed", **KEYS)
    assert killed.run_until(2, signal.SIGKILL) == -signal.SIGKILL
    killed.run()
    for path in (last, "checkpoint-4/optimizer.pt", "model/model.safetensors"):
        assert killed.bytes_of(path) == undisturbed.bytes_of(path), path
    wanted = [line["loss"] for line in undisturbed.metrics("train")]
    assert [line["loss"] for line in killed.metrics("train")] == wanted
