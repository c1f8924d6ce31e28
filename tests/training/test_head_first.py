"""The head learns first, and alone, in weights and in statistics."""

import pytest
import torch
from conftest import TINY_ECAPA
from safetensors.torch import load_file

from speaker_encoder import SpeakerEncoder
from speaker_encoder.errors import UserError
from speaker_encoder.training import train
from speaker_encoder.training.config import ConfigError, TrainConfig
from speaker_encoder.training.freezing import freeze_parameters
from speaker_encoder.training.head_first import HeadFirst

LORA = {"r": 2, "target": ["*.tdnn1.conv.conv"], "train": ["backbone.network.fc"]}
HEAD = ("backbone.network.asp.", "backbone.network.asp_bn.", "backbone.network.fc.")


def changed(one, other):
    return {name for name in one if not torch.equal(one[name], other[name])}


@pytest.mark.parametrize("keys", [{"optimizer": "adamw", "weight_decay": 0.1}, {"lora": LORA}])
def test_only_the_head_and_its_statistics_change_at_first(make_run, keys):
    run = make_run(
        head_first_steps=2,
        max_steps=3,
        save_every=1,
        backup_every=1,
        backup_keep=9,
        val_data_root=None,
        val_every=0,
        gradient_accumulation_steps=2,
        **keys,
    )
    config = TrainConfig.from_json(run.config_path)
    train(config)
    steps = [load_file(run.path / f"checkpoint-{n}/model.safetensors") for n in (1, 2, 3)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        start = SpeakerEncoder.from_name("ecapa", False, TINY_ECAPA).state_dict()
    start |= {name: tensor for name, tensor in steps[0].items() if name.startswith("loss_fn.")}
    found = changed(start, steps[0]) | changed(steps[0], steps[1])
    loss = {name for name in found if name.startswith("loss_fn.")}
    assert loss and all(name.startswith(HEAD) for name in found - loss)
    assert "backbone.network.fc.conv.weight" in found
    assert ("backbone.network.asp_bn.norm.running_mean" in found) == ("lora" not in keys)
    later = {name for name in changed(steps[1], steps[2]) if not name.startswith(HEAD)} - loss
    assert "backbone.network.blocks.1.tdnn1.conv.conv.weight" in later
    assert any("running_mean" in name for name in later) == ("lora" not in keys)


def test_a_head_that_does_not_learn_is_refused():
    model = SpeakerEncoder.from_name("ecapa", False, TINY_ECAPA)
    freeze_parameters(model, [name.removesuffix(".") for name in HEAD])
    with pytest.raises(UserError, match="head_first_steps: nothing of the head is trained"):
        HeadFirst(model, 3)
    with pytest.raises(ConfigError, match="head_first_steps: not possible with deepspeed"):
        TrainConfig.from_dict(
            {"model_name": "ecapa", "train_data_root": "demo", "head_first_steps": 1}
            | {"training_arguments": {"deepspeed": {"zero_optimization": {}}}}
        )
