"""Every error of the config by its text."""

import json

import pytest

from speaker_encoder.training.config import ConfigError, TrainConfig
from speaker_encoder.training.devices import check_devices

LEAST = {"model_name": "ecapa", "train_data_root": "demo"}


def problems(values, overrides=()):
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_dict(values, overrides)
    return list(caught.value.problems)


def only_problem(values, overrides=()):
    found = problems(values, overrides)
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize(
    "address",
    [
        "https://joe:PW@host/{0..1}.tar",
        "https://joe:${PASSWORD}@host/0.tar",
        "https://h/a.tar?s=PW",
    ],
)
@pytest.mark.parametrize("key", ["train_data_root", "replay_data_root", "val_list"])
def test_a_secret_in_an_address_is_not_shown(key, address, monkeypatch):
    monkeypatch.setenv("PASSWORD", "PW")
    problem = only_problem({**LEAST, key: address})
    assert "holds a " in problem and "PW" not in problem


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("learning_rate_init", "1e-4", ['"1e-4"', "without quotes: 1e-4", "at least 0"]),
        ("learning_rate_init", -1, ["found -1", "at least 0"]),
        ("speakers_per_batch", 1, ["found 1", "at least 2"]),
        ("utterances_per_speaker", 1, ["found 1", "at least 2"]),
        ("utterances_per_speaker", 0, ["found 0", "at least 1"]),
        ("val_speakers_per_batch", 1, ["at least 2"]),
        ("val_utterances_per_speaker", 0, ["at least 2"]),
        ("speakers_per_batch", 2.5, ["found 2.5", "whole number"]),
        ("speakers_per_batch", True, ["found true", "whole number"]),
        ("augment_noise_p", 1.5, ["found 1.5", "at least 0 and at most 1"]),
        ("augment_snr_db", [15, 10], ["[15, 10]", "larger than its second"]),
        ("augment_snr_db", [1, 2, 3], ["[1, 2, 3]", "[least, most]"]),
        ("window_size_s", 0, ["found 0", "above 0"]),
        ("window_size_s", [3, 2], ["larger than its second"]),
        ("window_size_s", None, ["found null"]),
        ("train_data_root", "/not/there", ["/not/there", "does not exist", '"demo"']),
        ("val_data_root", "${UNSET_VARIABLE}/x", ["no variable UNSET_VARIABLE"]),
        ("val_trials", "demo", ["does not exist"]),
        ("augment_musics_paths", ["/not/there"], ["/not/there", "does not exist"]),
        ("augment_musics_paths", {"a": 1}, ["a list of folders or files"]),
        ("model_sample_rate", 8000, ["found 8000", "16000"]),
        ("layout", "vtck", ['"vtck"', '"vctk"', '"auto"']),
        ("short_utterances", "loop", ['"repeat", "zero_pad"']),
        ("few_utterances", 3, ['"repeat", "drop", "error"']),
        ("scheduler_metrics", "loss", ['"train_loss"', '"val_eer"']),
        ("optimizer", {"name": ["sgd"]}, ['found {"name": ["sgd"]}', '"radam", "sgd"']),
        ("lr_schedule", {"name": {}}, ['found {"name": {}}', '"plateau"']),
        ("head", {"name": []}, ['found {"name": []}', '"mhfa"']),
        ("head", {}, ["found {}", '"mhfa"']),
        ("lora", {"target": []}, ["its option target is empty"]),
        ("loss", {"name": ["ge2e"]}, ['found {"name": ["ge2e"]}', '"ge2e"']),
        ("loss", {"name": "aam_softmax", "easy_margin": "off"}, ["easy_margin", "true or false"]),
        ("loss", {"name": "triplet", "seed": 1.5}, ["seed", "a whole number", "found 1.5"]),
        ("loss", {"name": "aam_softmax", "margin": "x"}, ["margin", "a number", "found 'x'"]),
        ("optimizer", "lion", ['"adam", "adamw", "radam", "sgd"']),
        ("optimizer", {"name": "adam", "momentum": 0.5}, ['"momentum"', "of adam are none"]),
        ("optimizer", {"name": "sgd", "momentum": 2}, ["its option momentum", "at most 1"]),
        ("optimizer", {"name": "sgd", "momentum": 0, "nesterov": True}, ["momentum above 0"]),
        ("lr_schedule", "linear", ['"noam"', '"cosine"']),
        ("lr_schedule", "noam", ["warmup_steps"]),
        ("lr_schedule", {"name": "step", "every": 3}, ["period, unit, gamma"]),
        ("freeze", [3], ["patterns of parameters' names"]),
        ("lora", {"rank": 3}, ['"rank"', "r, alpha, dropout, target, train"]),
        ("lora", {"r": 0}, ["its option r", "at least 1"]),
        ("ema_decay", 1.0, ["at most 0.999999"]),
        ("average_best", 3, ["without validation data"]),
        ("report_to", ["comet"], ['a list of trackers among "wandb"']),
        ("precision", 16, ['"float32", "bf16", "fp16"']),
        ("device", "gpu", ['"best", "cpu", "cuda" or "cuda:<number>"']),
        ("device", "cpu\n", ["possible is"]),
        ("data_parallel", [0, 0], ["different whole numbers"]),
        ("data_parallel", 2, ["a list"]),
        ("run_id", "a/b", ["without /"]),
        ("run_id", "..", ["without /"]),
        ("run_id", "", ["without /"]),
        ("loss", "ge3e", ['"ge2e"']),
        ("loss", {"name": "ge2e", "variant": "hard"}, ['"softmax", "contrast"']),
        ("loss", {"name": "ge2e", "margin": 1}, ["margin", "Known"]),
        ("loss", {"name": "ge2e", "init_w": -1}, ["positive init_w"]),
        ("loss", {"name": "aam_softmax", "margn": 1}, ["'margn'", "Did you mean 'margin'?"]),
        ("loss", {"name": "ge2e", "activation": []}, ["its options", "are refused"]),
        ("loss", {"name": "softmax", "weight": 2}, ["option of the loss 'softmax': 'weight'"]),
        ("loss", [], ["found []", '"weight" in their sum']),
        ("loss", ["softmax", "ge3e"], ['"ge3e"', '"ge2e"']),
        ("loss", [{"name": "softmax", "weight": 0}], ["the weight of softmax", "above 0"]),
        ("loss", ["softmax", {"name": "triplet", "mining": "x"}], ["minings batch_hard"]),
        ("loss", "nt_xent", ['Set views to "utterance" or "halves"']),
        ("seed", -1, ["at least 0"]),
        ("seed", 10**400, ["at most"]),
        ("num_epochs", float("inf"), ["a number"]),
        ("comet", True, ['"auto", "online", "offline", "off"']),
        ("encoder_config", [1], ["an object"]),
        ("training_arguments", {"seed": 1}, ["seed: write seed outside"]),
        ("training_arguments", {"output_dir": "x"}, ["write output_dir and run_id"]),
        ("training_arguments", {"adam_bta2": 1}, ["'adam_bta2'", "Did you mean adam_beta2?"]),
        ("encoder_config", {"channels": [8]}, ["Set pretrained to false"]),
        ("val_list", __file__, ["without val_data_root"]),
        ("val_trials", __file__, ["without val_data_root"]),
        ("scheduler_metrics", "val_eer", ["no validation data"]),
        ("early_stopping_patience", 3, ["without validation data"]),
        ("use_data_augmentation", True, ["augment_noises_paths"]),
        ("output_dir", __file__, ["is a file, not a folder"]),
        ("data_parallel", [0, 1, 2, 3], ["6 speakers", "multiple of 4"]),
        ("augment_noises_path", "x", ["unknown key", "Did you mean augment_noises_paths?"]),
        ("zzzzzzzzz", 1, ["unknown key", "Known keys: model_name"]),
        ("train_only_heads", True, ["Did you mean train_only_head?"]),
    ],
)
def test_one_wrong_key(key, value, parts):
    problem = only_problem({**LEAST, key: value})
    name = "speakers_per_batch" if "multiple" in str(parts) else key
    assert problem.startswith(f"{name}: ")
    for part in parts:
        assert part in problem


@pytest.mark.parametrize("name", ["sgd", {"name": "adamw"}])
def test_two_optimizers(name):
    arguments = {"training_arguments": {"optim": "adamw_torch"}}
    problem = only_problem({**LEAST, **arguments, "optimizer": name})
    assert problem.startswith("optimizer: found") and "has optim. Keep one" in problem
    TrainConfig.from_dict({**LEAST, **arguments})


def test_all_problems_at_once():
    found = problems(
        {"model_nam": "x", "train_data_root": "/not/there", "val_every": -1},
        ["speakers_per_batch=1", "sped=3"],
    )
    text = "\n".join(found)
    for part in ("model_nam:", "model_name: missing", "/not/there", "val_every", "sped", "batch"):
        assert part in text
    assert len(found) == 6


def test_an_alias_and_its_key_together(tmp_path):
    paths = [str(tmp_path)]
    values = {**LEAST, "augment_noise_paths": paths, "augment_noises_paths": paths}
    problem = only_problem(values)
    assert "given twice, as augment_noises_paths and augment_noise_paths" in problem


def test_activation_in_two_places():
    values = {**LEAST, "activation_function": "relu"}
    assert TrainConfig.from_dict(values).activation_function == "relu"
    assert "loss names no ge2e" in only_problem({**values, "loss": "softmax"})
    loss = {"name": "ge2e", "activation": "tanh"}
    assert "Give one of them" in only_problem({**values, "loss": loss})


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("seed", "write it as key=value"),
        ("seed.x=1", "seed is no object"),
        ("sede=1", "Did you mean seed?"),
        ("=1", "write it as key=value"),
    ],
)
def test_wrong_overrides(override, part):
    assert part in only_problem(LEAST, [override])


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('{\n  "seed": 1,\n}', "line 2 column 12: a trailing comma"),
        ('{"data_parallel": [0, 1, ]}', "line 1 column 24: a trailing comma"),
        ('{"seed": 1\n "run_id": "x"}', "line 2 column 2: not JSON"),
        (
            '{\n"seed": 1,\n"run_id": "seed: \\" {",\n"seed": 2}',
            "seed: stands twice, in line 2 and line 4",
        ),
        ('{"loss": {"name": "ge2e",\n"name": "x"}}', "name: stands twice, in line 1 and line 2"),
        ('{"seed": NaN}', "NaN is not a JSON number"),
        ("[1]", "does not hold an object"),
        ("", "line 1 column 1: not JSON"),
        ("[" * 100_000, "not plain JSON"),
    ],
)
def test_bad_json(tmp_path, text, part):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_json(path)
    assert part in str(caught.value) and str(path) in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        TrainConfig.from_json(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="directory"):
        TrainConfig.from_json(tmp_path)
    (tmp_path / "b.json").write_bytes(b'{"seed": "\xff"}')
    with pytest.raises(ConfigError, match="UTF-8"):
        TrainConfig.from_json(tmp_path / "b.json")


def test_byte_order_mark_and_other_letters_are_fine(tmp_path):
    path = tmp_path / "c.json"
    path.write_text("\ufeff" + json.dumps({**LEAST, "run_id": "запуск 1"}), encoding="utf-8")
    assert TrainConfig.from_json(path).run_id == "запуск 1"


def test_devices_that_are_not_there():
    import torch

    beyond = torch.cuda.device_count() + 7
    config = TrainConfig.from_dict(
        {**LEAST, "device": "cuda", "data_parallel": [beyond], "aug_device": f"cuda:{beyond}"}
    )
    found = check_devices(config)
    assert any(p.startswith("data_parallel: ") and str(beyond) in p for p in found)
    assert any(p.startswith("aug_device: ") for p in found)
    assert check_devices(TrainConfig.from_dict({**LEAST, "device": "cpu"})) == []
    on_cpu = TrainConfig.from_dict({**LEAST, "device": "cpu", "data_parallel": [0, 1]})
    assert check_devices(on_cpu) == []
    half = TrainConfig.from_dict({**LEAST, "device": "cpu", "precision": "fp16"})
    assert check_devices(half)[0].startswith("precision: ")


def test_a_loss_that_needs_another_batch():
    shape = {"utterances_per_speaker": 1}
    assert TrainConfig.from_dict({**LEAST, **shape, "loss": "aam_softmax"}).utterances_per_speaker
    problem = only_problem({**LEAST, **shape, "loss": ["softmax", "angular_prototypical"]})
    assert "angular_prototypical needs at least 2 utterances of each speaker" in problem
    watched = {"loss": "softmax", "scheduler_metrics": "train_eer"}
    assert "a batch has no two utterances" in only_problem({**LEAST, **shape, **watched})
    views = {"views": "utterance", "utterances_per_speaker": 4}
    problem = only_problem({**LEAST, **views, "loss": "nt_xent"})
    assert problem.startswith("utterances_per_speaker: nt_xent's pairs name 2 views")
    pairs = {"name": "nt_xent", "pairs": [[0, 1], [0, 2], [1, 3]]}
    assert TrainConfig.from_dict({**LEAST, **views, "loss": pairs}).loss == pairs


def test_a_validation_loss_that_does_not_exist():
    values = {**LEAST, "val_data_root": "demo", "scheduler_metrics": "val_loss"}
    assert TrainConfig.from_dict({**values, "loss": "triplet"}).scheduler_metrics == "val_loss"
    problem = only_problem({**values, "loss": [{"name": "softmax", "weight": 0.5}, "triplet"]})
    assert problem.startswith("scheduler_metrics: ")
    assert (
        'the loss 0.5 softmax + triplet has no meaning on validation speakers. Watch "val_eer"'
        in (problem)
    )


def test_a_push_before_it_is_known_what_is_better():
    values = {**LEAST, "push_to_hub": True, "hub_model_id": "a/b", "hub_strategy": "every_save"}
    compared = {**values, "val_data_root": "demo"}
    said = only_problem(compared)
    assert said.startswith('hub_strategy: found "every_save" with allow_worse false')
    assert said.endswith('Set it to "end", or allow_worse to true')
    for allowed in (
        values,
        {**compared, "allow_worse": True},
        {**compared, "pretrained": False},
        {**compared, "push_to_hub": False},
        {**compared, "hub_strategy": "end"},
    ):
        TrainConfig.from_dict(allowed)
