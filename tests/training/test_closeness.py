"""Staying close to the encoder that a run starts from: the sums, what is pulled, real runs."""

import math

import pytest
import torch
from conftest import TINY_ECAPA, TINY_WAVLM
from safetensors.torch import load_file

from speaker_encoder import SpeakerEncoder
from speaker_encoder.errors import UserError
from speaker_encoder.training import run as run_module
from speaker_encoder.training import train
from speaker_encoder.training.build import check_model
from speaker_encoder.training.closeness import Closeness, build_closeness, starting_encoder
from speaker_encoder.training.config import ConfigError, TrainConfig
from speaker_encoder.training.lora import add_lora, without_adapters

LEAST = {"model_name": "ecapa", "train_data_root": "demo", "val_data_root": "demo"}
LORA = {
    "r": 2,
    "alpha": 4,
    "dropout": 0.0,
    "target": ["fc.conv", "*.tdnn1.conv.conv"],
    "train": ["backbone.network.asp_bn"],
}


def tiny(name="ecapa", encoder_config=TINY_ECAPA):
    torch.manual_seed(1)
    encoder = SpeakerEncoder.from_name(name, pretrained=False, encoder_config=encoder_config)
    encoder.config.untrained_head = False
    return encoder


def move(model):
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)


def squared_distance(one, other):
    """Between two plain encoders, naively, in float64."""
    weights = dict(one.named_parameters())
    return math.fsum(
        ((weights[name].double() - wanted.double()) ** 2).sum().item()
        for name, wanted in other.named_parameters()
    )


def test_the_parts_are_the_sums_of_the_papers():
    model = tiny()
    closeness = Closeness(model, starting_encoder(model), l2_sp=0.3, distillation=5.0)
    move(model)
    waveforms = torch.randn(6, 16000)
    embeddings = model(waveforms).embeddings.detach().requires_grad_()
    wanted = closeness.embed(waveforms)
    parts = closeness.parts(embeddings, wanted)
    naive = 0.0
    for one, other in zip(embeddings.tolist(), tiny()(waveforms).embeddings.tolist(), strict=True):
        dot = math.fsum(a * b for a, b in zip(one, other, strict=True))
        naive += 1 - dot / math.hypot(*one) / math.hypot(*other)
    assert parts["loss_distillation"].item() == pytest.approx(5.0 * naive / 6, rel=1e-4)
    (gradient,) = torch.autograd.grad(parts["loss_distillation"], embeddings)
    for one, other, found in zip(embeddings, wanted, gradient, strict=True):
        a, b = (row.detach().double() for row in (one, other))
        unit = a / a.norm()
        across = -5.0 / 6 * (b / b.norm() - (unit @ b) / b.norm() * unit) / a.norm()
        assert (found.double() - across).norm() < 1e-3 * across.norm()
    whole = squared_distance(model, tiny())
    assert parts["loss_l2_sp"].item() == pytest.approx(0.15 * whole, rel=1e-5)
    parts["loss_l2_sp"].backward()
    weight, was = (m.backbone.network.fc.conv.weight for m in (model, tiny()))
    assert torch.allclose(weight.grad, 0.3 * (weight - was), atol=1e-7)
    assert not any(parameter.requires_grad for parameter in closeness.start.parameters())


def test_with_adapters_the_merged_weights_are_pulled():
    model = tiny()
    add_lora(model, LORA)
    closeness = Closeness(model, starting_encoder(model), l2_sp=2.0, distillation=0.0)
    assert torch.equal(
        closeness.start.backbone.network.fc.conv.weight,
        model.backbone.network.fc.conv.base_layer.weight,
    )
    move(model)
    found = closeness.parts(torch.zeros(1, 24), None)["loss_l2_sp"]
    expected = squared_distance(without_adapters(model), tiny())
    assert expected > 1 and found.item() == pytest.approx(expected, rel=1e-5)
    found.backward()
    learns = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learns == {name for name, p in model.named_parameters() if p.grad is not None}


def test_a_new_head_and_what_is_frozen_are_not_pulled():
    model = tiny("wavlm-base", TINY_WAVLM)
    model.enlarge_head()
    model.backbone.wavlm.feature_extractor.requires_grad_(False)
    closeness = Closeness(model, starting_encoder(model), l2_sp=2.0, distillation=0.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    num_pulled = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if name.startswith("backbone.wavlm.") and parameter.requires_grad
    )
    found = closeness.parts(torch.zeros(1, 4), None)["loss_l2_sp"]
    assert num_pulled and found.item() == pytest.approx(num_pulled, rel=1e-4)


@pytest.mark.parametrize("key", ["l2_sp", "distillation"])
def test_without_a_trained_start_it_is_refused(key, tmp_path):
    with pytest.raises(ConfigError, match=f"{key}: given with pretrained false"):
        TrainConfig.from_dict({**LEAST, "pretrained": False, key: 1.0})
    new = tiny("wavlm-base", TINY_WAVLM)
    new.enlarge_head()
    new.save_pretrained(tmp_path)
    config = TrainConfig.from_dict({**LEAST, "model_name": str(tmp_path), key: 1.0})
    if key == "l2_sp":  # all below the head is pulled
        check_model(config)
        config = TrainConfig.from_dict({**config.to_dict(), "train_only_head": True})
        with pytest.raises(UserError, match="l2_sp: nothing of what is trained has pretrained"):
            check_model(config)
    else:
        with pytest.raises(UserError, match=r"distillation: .* starts with random weights"):
            check_model(config)


def test_a_stage_may_stay_close_to_a_head_that_one_before_has_trained(tmp_path):
    new = tiny("wavlm-base", TINY_WAVLM)
    new.enlarge_head()
    new.save_pretrained(tmp_path)
    for name in ("ecapa", str(tmp_path)):
        values = {**LEAST, "model_name": name, "l2_sp": 0.1, "distillation": 1.0}
        values["interpolate"] = 0.5
        check_model(TrainConfig.from_dict(values), is_stage=True)
    model = tiny()  # what that stage has left, in whose run there is no pretrained encoder
    closeness = build_closeness(TrainConfig.from_dict(values), model, tmp_path / "pretrained")
    weight = model.backbone.network.fc.conv.weight
    assert torch.equal(closeness.start.backbone.network.fc.conv.weight, weight)


@pytest.fixture
def trainers(monkeypatch):
    """The trainers of the runs that this test makes in its own process."""
    made = []
    build = run_module.build_trainer

    def keep(*arguments, **keywords):
        made.append(build(*arguments, **keywords))
        return made[-1]

    monkeypatch.setattr(run_module, "build_trainer", keep)
    return made


@pytest.fixture
def train_here(make_run, trained_start, trainers):
    """Gives train_here(name, **keys): a short run from the pretrained encoder, finished."""

    def start(name, **keys):
        values = {
            **trained_start,
            "max_steps": 3,
            "val_every": 0,
            "val_data_root": None,
            "save_every": 1,
        }
        run = make_run(
            name,
            **{**values, "backup_every": 1, "backup_keep": 9, "learning_rate_init": 0.01, **keys},
        )
        train(TrainConfig.from_json(run.config_path))
        return run

    return start


def weights_at(run, step):
    return load_file(run.path / f"checkpoint-{step}/model.safetensors")


def distance_of_files(weights, start):
    return math.fsum(
        ((weights[name].double() - start[name].double()) ** 2).sum().item()
        for name, _ in tiny().named_parameters()
    )


def test_a_run_adds_both_and_keeps_the_first_encoder_to_itself(train_here, trainers, trained_start):
    start = load_file(f"{trained_start['model_name']}/model.safetensors")
    keys = {"loss": "sup_con", "freeze_batch_norm": True}
    plain = train_here("plain", **keys)
    close = train_here("close", **keys, l2_sp=0.1, distillation=5.0)
    lines = close.metrics("train")
    assert lines[0]["loss"] == pytest.approx(plain.metrics("train")[0]["loss"], abs=1e-5)
    assert lines[2]["loss_l2_sp"] == pytest.approx(
        0.05 * distance_of_files(weights_at(close, 2), start), rel=1e-4
    )
    batch = trainers[-1].last_batch
    heard = SpeakerEncoder.from_pretrained(trained_start["model_name"])(
        batch.input_values
    ).embeddings
    cosines = torch.nn.functional.cosine_similarity(batch.embeddings.double(), heard.double())
    assert lines[2]["loss_distillation"] == pytest.approx(5 * (1 - cosines.mean().item()), rel=1e-4)
    own = trainers[-1].encoder.loss_fn(batch.embeddings, batch.labels).item()
    added = lines[2]["loss_distillation"] + lines[2]["loss_l2_sp"]
    assert added > 0.01 and lines[2]["loss"] == pytest.approx(own + added, rel=1e-5)
    assert not any(name.startswith("loss_") for name in plain.metrics("train")[2])

    first = trainers[-1]._closeness.start
    assert not first.training
    assert all(torch.equal(tensor, start[name]) for name, tensor in first.state_dict().items())
    of_model = {id(parameter) for parameter in trainers[-1].model.parameters()}
    assert not of_model & {id(parameter) for parameter in first.parameters()}
    assert set(weights_at(close, 3)) == set(weights_at(plain, 3))
    files = [
        sorted(p.name for p in (run.path / "checkpoint-3").iterdir()) for run in (close, plain)
    ]
    assert files[0] == files[1]


COMBINED = {
    "lora": {"lora": LORA, "ema_decay": 0.9},
    "frozen": {
        "freeze": ["backbone.network.blocks.0.*"],
        "freeze_batch_norm": True,
        "layer_lr_decay": 0.8,
        "optimizer": "adamw",
        "weight_decay": 0.1,
    },
    "half precision": {"precision": "bf16", "gradient_accumulation_steps": 2},
    "views": {"views": "utterance", "loss": "nt_xent", "utterances_per_speaker": 2},
    "masked": {"spec_augment_time_masks": 2, "loss": "aam_softmax"},
}


@pytest.mark.parametrize("name", COMBINED)
def test_all_keys_go_together(train_here, trainers, trained_start, data_dir, name):
    run = train_here(
        "run",
        l2_sp=0.1,
        distillation=2.0,
        head_first_steps=1,
        replay_data_root=str(data_dir / "libritts"),
        **COMBINED[name],
    )
    start = load_file(f"{trained_start['model_name']}/model.safetensors")
    line = run.metrics("train")[2]
    assert math.isfinite(line["loss"]) and line["loss_distillation"] > 1e-6
    if "ema_decay" in COMBINED[name]:
        distance = squared_distance(without_adapters(trainers[-1].encoder), tiny())
        assert distance > 0 and line["loss_l2_sp"] > 0
    else:  # before the third step
        distance = distance_of_files(weights_at(run, 2), start)
        assert distance > 0 and line["loss_l2_sp"] == pytest.approx(0.05 * distance, rel=1e-4)


def test_a_second_stage_stays_close_to_what_the_first_started_from(train_here, trained_start):
    start = load_file(f"{trained_start['model_name']}/model.safetensors")
    stages = [{"max_steps": 2}, {"max_steps": 1, "distillation": 1.0, "l2_sp": 0.1}]
    run = train_here("run", stages=stages)
    (line,) = [line for line in run.metrics("train") if line["stage"] == 2]
    moved = load_file(run.path / "stage_1/model/model.safetensors")
    distance = distance_of_files(moved, start)
    assert distance > 0 and line["loss_l2_sp"] == pytest.approx(0.05 * distance, rel=1e-4)
    assert line["loss_distillation"] > 1e-6
