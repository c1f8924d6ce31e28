"""Stages of one recipe, and a kill in one with everything that has a state: the same result."""

import contextlib
import json
import signal
import time
from pathlib import Path

import pytest
import torch

from speaker_encoder import SpeakerEncoder
from speaker_encoder.errors import UserError
from speaker_encoder.training import run as run_module
from speaker_encoder.training import train
from speaker_encoder.training.callbacks import StopRequest
from speaker_encoder.training.config import ConfigError, TrainConfig
from speaker_encoder.training.loss_weights import carry_loss, save_loss
from speaker_encoder.training.resume import open_run
from speaker_encoder.training.run_dir import RunDirectory

LEAST = {"model_name": "ecapa", "train_data_root": "demo", "val_data_root": "demo"}
EVERYTHING = {
    "optimizer": "radam",
    "lr_schedule": {"name": "cosine", "period": 2, "multiplier": 2, "gamma": 0.5},
    "warmup_steps": 1,
    "layer_lr_decay": 0.8,
    "ema_decay": 0.9,
    "average_best": 3,
    "lora": {
        "r": 2,
        "dropout": 0.3,
        "target": ["*.tdnn?.conv.conv", "fc.conv"],
        "train": ["backbone.network.asp_bn"],
    },
    "max_steps": 6,
}


RECIPE = {
    "val_every": 2,
    "save_every": 1,
    "stages": [{"max_steps": 2, "freeze": ["backbone.network.blocks.*"]}, EVERYTHING],
}


def test_each_stage_is_a_run_with_its_own_keys():
    config = TrainConfig.from_dict(
        {**LEAST, "val_every": 7, "enlarge_head": True, "push_to_hub": True}
        | {"hub_model_id": "a/b", "scheduler_metrics": "train_loss"}
        | {"stages": [{"val_every": 3, "annotate_point": True}, {"loss": {"name": "ge2e"}}]}
    )
    first, second = config.stage_configs()
    assert (first.val_every, first.scheduler_metrics_avg_every) == (3, 3)  # not that of the whole
    assert (second.val_every, second.scheduler_metrics_avg_every) == (7, 7)
    assert first.annote_point and not second.annote_point
    assert (first.model_name, first.enlarge_head) == ("ecapa", True)
    assert (second.model_name, second.enlarge_head) == ("runs/ecapa_run/stage_1/model", False)
    assert (first.output_dir, first.run_id) == ("runs/ecapa_run", "stage_1")
    assert not first.push_to_hub and not first.stages
    assert TrainConfig.from_dict(LEAST).stage_configs() == ()
    again = TrainConfig.from_dict(config.to_dict())
    assert [one.run_id for one in again.stage_configs()] == ["stage_1", "stage_2"]


def test_all_stages_are_checked_at_once():
    stages = [{"max_steps": 0, "sped": 1}, {"seed": 3}, {"window_size_s": 1}]
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_dict({**LEAST, "stages": stages})
    text = str(caught.value)
    assert "stage 1: sped: an unknown key" in text and "stage 2: seed: is said once" in text
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_dict({**LEAST, "stages": [{}, {"max_steps": 0}, {"optimizer": "x"}]})
    text = str(caught.value)
    assert "stage 2: max_steps: found 0" in text and "stage 3: optimizer: found" in text
    with pytest.raises(ConfigError, match="stages: found"):
        TrainConfig.from_dict({**LEAST, "stages": {"a": 1}})


def test_validate_only_looks_at_every_stage(make_run):
    run = make_run(stages=[{}, {"window_size_s": 0.02}, {"freeze": ["no.such"]}])
    refused = run.run("--validate_only", expect=2)
    assert "stage 2: model_name: window_size_s" in refused.stderr
    assert "stage 3: model_name: freeze: no parameter" in refused.stderr
    assert not run.path.exists()


def linear(bias=True):
    torch.manual_seed(3)
    return torch.nn.Linear(4, 3, bias=bias)


def test_the_loss_is_carried_where_it_is_the_same(tmp_path):
    speakers, kind = ["a", "b", "c"], {"name": "aam_softmax", "margin": 0.2}
    learned = linear()
    learned.weight.data.fill_(7.0)
    save_loss(learned, tmp_path, kind, speakers)

    def is_carried(loss, kind, speakers):
        before = loss.weight.detach().clone()
        done = carry_loss(loss, tmp_path, kind, speakers)
        assert torch.equal(loss.weight, learned.weight if done else before)
        return done

    assert is_carried(linear(), {"name": "aam_softmax", "margin": 0.5}, speakers)
    assert not is_carried(linear(), {"name": "softmax"}, speakers)
    assert not is_carried(linear(), [kind, {"name": "ge2e"}], speakers)
    assert not is_carried(linear(), kind, ["a", "c", "b"])
    assert not is_carried(linear(bias=False), kind, speakers)
    assert not carry_loss(linear(), tmp_path / "none", kind, speakers)
    whole = (tmp_path / "loss.safetensors").read_bytes()
    for length in (0, len(whole) // 2, len(whole) - 1):
        (tmp_path / "loss.safetensors").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"loss\.safetensors are damaged.*Delete the file"):
            carry_loss(linear(), tmp_path, kind, speakers)


@pytest.fixture
def recipe(tmp_path):
    """Gives the config of a finished recipe of two stages, of which only the records are there."""
    own = [{"max_steps": 1}, {"max_steps": 2, "learning_rate_init": 1e-4}]
    values = {**LEAST, "output_dir": str(tmp_path), "run_id": "run", "stages": own}
    config = TrainConfig.from_dict(values)
    for one in (*config.stage_configs(), config):
        run = RunDirectory(Path(one.output_dir) / one.run_id)
        run.path.mkdir(exist_ok=True, parents=True)
        run.config_path.write_text(json.dumps(one.to_dict()))
        run.results_path.write_text("{}")
    return values


def files_below(values):
    folder = Path(values["output_dir"])
    found = [p for p in folder.rglob("*") if p.is_file() and p.name not in (".lock", "train.log")]
    return {path: path.read_bytes() for path in found}


def opened(values):
    with contextlib.ExitStack() as stack:
        return open_run(TrainConfig.from_dict(values), overwrite=False, stack=stack)


REFUSED = {
    "another rate": (lambda own: [{**own[0], "learning_rate_init": 1.0}, own[1]], "Stage 1 in.*wa"),
    "another loss": (lambda own: [own[0], {**own[1], "loss": "softmax"}], "Stage 2 in.*loss: was"),
    "one more before": (lambda own: [{"warmup_steps": 1}, *own], "Stage 1 in .* is finished"),
    "one more between": (lambda own: [own[0], {"warmup_steps": 1}, own[1]], "Stage 2 in.*stage_2"),
    "swapped": (lambda own: own[::-1], "Stage 1 in .* is finished"),
    "longer": (lambda own: [{"max_steps": 5}, own[1]], "Stage 1 is to be trained further.*stage_2"),
    "the first left out": (lambda own: own[1:], "Stage 1 in .* is finished"),
    "the last left out": (lambda own: own[:1], "has 1 stages, and there is .*Delete stage_2"),
    "all left out": (lambda own: [], "a recipe of stages, and the config now has no stages"),
}


@pytest.mark.parametrize("is_finished", [True, False])
@pytest.mark.parametrize("name", REFUSED)
def test_changed_stages_are_refused_and_nothing_is_lost(recipe, name, is_finished):
    if not is_finished:  # stopped between the last stage and the results of the whole
        (Path(recipe["output_dir"]) / "run" / "results.json").unlink()
    change, message = REFUSED[name]
    before = files_below(recipe)
    with pytest.raises(UserError, match=message):
        opened({**recipe, "stages": change(recipe["stages"])})
    assert files_below(recipe) == before


def test_another_seed_of_an_unfinished_recipe_is_refused(recipe):
    (Path(recipe["output_dir"]) / "run" / "results.json").unlink()
    with pytest.raises(UserError, match="seed: was 0, now 3"):
        opened({**recipe, "seed": 3})


def test_one_more_stage_at_the_end_or_another_machine_is_no_change(recipe):
    before = files_below(recipe)
    machine = {"num_workers": 0, "aug_device": "cuda", "hub_model_id": "a/b", "push_to_hub": True}
    assert opened({**recipe, **machine}).is_finished
    assert files_below(recipe) == before
    more = {**recipe, **machine, "stages": [*recipe["stages"], {"max_steps": 3}]}
    assert not opened(more).is_finished
    kept = [path for path in before if path.parent.name.startswith("stage_")]
    assert len(kept) == 4 and all(path.read_bytes() == before[path] for path in kept)


def test_a_signal_stops_the_recipe_in_its_stage_or_between_two(make_run, monkeypatch):
    wanted = {"stop": True}
    monkeypatch.setattr(StopRequest, "__enter__", lambda self: self)
    monkeypatch.setattr(
        StopRequest,
        "is_wanted",
        property(lambda self: wanted["stop"], lambda self, value: None),
        raising=False,
    )
    run = make_run(stages=[{"max_steps": 1}, {"max_steps": 1}], val_every=0)
    config = TrainConfig.from_json(run.config_path)
    outcome = train(config)
    assert outcome.message.startswith("stage 1 of 2: stopped before the first step")
    assert outcome.results is None and outcome.exit_code == 0
    wanted["stop"] = False
    finish = run_module.finish_run_folder

    def finish_and_stop(*arguments):
        finish(*arguments)
        wanted["stop"] = True

    monkeypatch.setattr(run_module, "finish_run_folder", finish_and_stop)
    outcome = train(config)
    assert outcome.message.startswith("stopped after stage 1 of 2") and outcome.results is None
    assert not (run.path / "stage_2").exists() and not run.results_exist()


@pytest.mark.slow
def test_killed_in_a_stage_with_everything_that_has_a_state(make_run):
    undisturbed = make_run("undisturbed", **RECIPE)
    said = undisturbed.run()
    assert "stage 1 of 2" in said.stderr and "stage 2 of 2" in said.stderr
    check_whole(undisturbed)
    check_last_stage(undisturbed)
    run = make_run("killed", **RECIPE)
    process = run.start()
    metrics = run.path / "stage_2" / "metrics.jsonl"
    while '"step": 5,' not in (metrics.read_text() if metrics.is_file() else ""):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not run.results_exist()
    resumed = run.run()
    assert "stage_1 is finished" in resumed.stderr and "resuming from" in resumed.stderr
    last = "stage_2/checkpoint-6"
    for name in (
        "model/model.safetensors",
        "stage_1/loss.safetensors",
        *(f"{last}/{name}" for name in ("model.safetensors", "training_weights.safetensors")),
        *(f"{last}/{name}" for name in ("optimizer.pt", "scheduler.pt", "progress.json")),
    ):
        assert run.bytes_of(name) == undisturbed.bytes_of(name), name
    for key in ("before", "after", "verdict", "steps", "averaged_steps"):
        assert run.results()[key] == undisturbed.results()[key]
    assert run.results()["seconds"] is None and undisturbed.results()["seconds"] > 0
    config = json.loads(run.config_path.read_text())
    config["stages"][0]["max_steps"] = 4
    with pytest.raises(UserError, match=r"Stage 1 is to be trained further.*stage_2"):
        train(TrainConfig.from_dict(config))


def check_whole(run):
    results = run.results()
    stages = [json.loads(run.bytes_of(f"stage_{n}/results.json")) for n in (1, 2)]
    assert results["steps"] == 8 and results["model_name"] == "ecapa"
    assert results["before"] == stages[0]["before"]
    assert results["after"]["eer"] == stages[1]["after"]["eer"]
    assert stages[1]["before"]["eer"] == stages[0]["after"]["eer"]
    assert [line["step"] for line in run.metrics("train")] == [*range(1, 9)]
    assert [line["stage"] for line in run.metrics("train")] == [1] * 2 + [2] * 6
    model = run.bytes_of("model/model.safetensors")
    assert model == run.bytes_of("stage_2/model/model.safetensors")
    for name in ("model/README.md", "plots/det.png", "plots/curve.png", "train.log"):
        assert (run.path / name).is_file()
    config = json.loads(run.bytes_of("model/train_config.json"))
    assert len(config["stages"]) == 2 and config["run_id"] == "run"


def check_last_stage(run):
    lines = [json.loads(line) for line in run.bytes_of("stage_2/metrics.jsonl").splitlines()]
    rates = [line["learning_rate"] for line in lines if line["split"] == "train"]
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4, 4.2677669e-4, 2.5e-4])
    scores = {
        line["step"]: (line["eer"], line["min_dcf"])
        for line in lines
        if line["split"] == "validation"
    }
    ranking = sorted(scores, key=lambda step: (*scores[step], step))
    results = json.loads(run.bytes_of("stage_2/results.json"))
    after = (results["after"]["eer"], results["after"]["min_dcf"])
    assert after <= scores[ranking[0]] <= (results["before"]["eer"], results["before"]["min_dcf"])
    assert results["averaged_steps"] in ([], sorted(ranking[:3]))
    kept = {path.name for path in (run.path / "stage_2" / ".best").iterdir()}
    assert kept == {f"step_{step:06d}" for step in ranking[:3]}
    for folder in ("model", "stage_2/model", "stage_2/checkpoint-6"):
        assert b"lora" not in run.bytes_of(f"{folder}/config.json")
        names = SpeakerEncoder.from_pretrained(run.path / folder).state_dict()
        assert not any("lora" in name or "base_layer" in name for name in names)
