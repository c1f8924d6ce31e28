"""The config: meaning of its keys, aliases, overrides, secrets."""

import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from speaker_encoder.errors import UserError
from speaker_encoder.training.config import ConfigError, TrainConfig, config_keys
from speaker_encoder.training.config_tables import RESERVED_ARGUMENTS, known_arguments

LEAST = {"model_name": "ecapa", "train_data_root": "demo"}

# the original's file, its keys and values as published
ORIGINAL = {
    "model_name": "wavlm-base-plus-sv",
    "run_id": "wavlm-base-plus-sv_run",
    "train_data_root": "demo",
    "val_data_root": "demo",
    "multi_rec_session": False,
    "model_sample_rate": 16000,
    "window_size_s": 2,
    "num_epochs": 100,
    "comet_key": "a-key",
    "comet_project": "a-project",
    "vis_train_art_every": 5,
    "vis_train_metrics_every": 1,
    "val_every": 25,
    "vis_val_art_every": 5,
    "val_max_epochs": 1,
    "backup_every": 50,
    "save_every": 25,
    "scheduler_factor": 0.6,
    "scheduler_patience": 3,
    "weight_decay": 0,
    "force_restart": True,
    "device": "cpu",
    "aug_device": "cpu",
    "num_workers": 2,
    "speakers_per_batch": 8,
    "utterances_per_speaker": 8,
    "learning_rate_init": 1e-6,
    "val_speakers_per_batch": 4,
    "val_utterances_per_speaker": 8,
    "activation_function": None,
    "use_data_augmentation": True,
    "augment_noises_paths": ["NOISE", "NOISE"],
    "augment_musics_paths": ["NOISE"],
    "augment_reverbs_paths": ["NOISE"],
    "data_parallel": [0, 1, 2, 3],
    "annote_point": False,
    # accepted by the original, absent from its file
    "train_only_head": False,
    "scheduler_metrics": "train_loss",
    "scheduler_metrics_avg_every": None,
    "enlarge_head": False,
    "accumalate_gradient_every_scheduler": False,
}


def write(folder: Path, values: object) -> Path:
    path = folder / "train_config.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return path


def test_every_key_of_the_original_works(tmp_path):
    values = {
        key: [str(tmp_path)] * len(value) if key.endswith("s_paths") else value
        for key, value in ORIGINAL.items()
    }
    config = TrainConfig.from_json(write(tmp_path, values))
    assert config.augment_noises_paths == (str(tmp_path),)
    assert config.data_parallel == (0, 1, 2, 3)
    assert config.scheduler_metrics == "train_loss"
    assert config.scheduler_metrics_avg_every == 25
    assert config.window_size_s == 2.0


def test_two_keys_are_enough_and_what_follows_is_filled_in():
    config = TrainConfig.from_dict(LEAST)
    assert (config.run_id, config.device, config.seed) == ("ecapa_run", "best", 0)
    assert (config.scheduler_metrics, config.scheduler_metrics_avg_every) == ("train_loss", 25)
    assert config.loss == {"name": "ge2e", "variant": "softmax"}
    assert config.use_data_augmentation is False and config.augment_snr_db == (10.0, 15.0)


def test_validation_data_changes_what_the_schedule_watches():
    config = TrainConfig.from_dict({**LEAST, "val_data_root": "demo"})
    assert (config.scheduler_metrics, config.scheduler_metrics_avg_every) == ("val_eer", 1)


def test_val_every_is_the_window_of_training_metrics():
    config = TrainConfig.from_dict({**LEAST, "val_every": 7})
    assert config.scheduler_metrics_avg_every == 7
    assert TrainConfig.from_dict({**LEAST, "val_every": 0}).scheduler_metrics_avg_every == 25


def test_accumulation_up_to_the_schedule():
    values = {**LEAST, "accumulate_gradient_every_scheduler": True, "val_every": 4}
    config = TrainConfig.from_dict(values)
    assert config.gradient_accumulation_steps == 4
    assert config.scheduler_metrics_avg_every == 1
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_augmentation_is_on_when_paths_are_given(tmp_path):
    config = TrainConfig.from_dict({**LEAST, "augment_noise_paths": str(tmp_path)})
    assert config.use_data_augmentation is True
    assert config.augment_noises_paths == (str(tmp_path),)


def test_empty_data_parallel_is_off():
    assert TrainConfig.from_dict({**LEAST, "data_parallel": []}).data_parallel is None
    assert TrainConfig.from_dict({**LEAST, "data_parallel": [3]}).data_parallel == (3,)


def test_paths_are_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("CORPORA", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "train").mkdir()
    values = {**LEAST, "train_data_root": "${CORPORA}/train", "val_data_root": "~/train"}
    config = TrainConfig.from_dict({**values, "output_dir": "~/runs"})
    assert config.train_data_root == config.val_data_root == str(tmp_path / "train")
    assert config.output_dir == str(tmp_path / "runs")


def test_what_is_written_is_read_again_without_change(tmp_path):
    values = {
        **LEAST,
        "window_size_s": [1.5, 3],
        "loss": "ge2e",
        "comet_key": "planted",
        "training_arguments": {"adam_beta2": 0.98},
        "data_parallel": [0, 1],
    }
    config = TrainConfig.from_dict(values)
    written = json.loads(json.dumps(config.to_dict()))
    again = TrainConfig.from_dict(written)
    assert again == dataclasses.replace(config, comet_key=None)
    assert again.to_dict() == written == config.to_dict()
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301
    written["loss"]["name"] = "changed"
    assert config.loss["name"] == "ge2e"


def test_secrets_are_shown_nowhere(tmp_path, monkeypatch):
    values = {**LEAST, "comet_key": "planted-1", "hub_token": "planted-2"}
    config = TrainConfig.from_json(write(tmp_path, values))
    assert config.comet_api_key == "planted-1"
    shown = f"{config!r} {config} {json.dumps(config.to_dict())}"
    assert "planted" not in shown and "comet_key" not in config.to_dict()
    monkeypatch.setenv("COMET_API_KEY", "planted-3")
    fresh = TrainConfig.from_dict(LEAST)
    assert fresh.comet_api_key == "planted-3"
    assert "planted" not in f"{fresh!r} {fresh.to_dict()} {vars(fresh)}"


@pytest.mark.parametrize(
    "text",
    [
        '{"model_name": "ecapa", "comet_key": ["planted"], "comet_kye": "planted"}',
        '{"comet_key": "planted",}',
        '{"comet_key": "planted", "comet_key": "planted"}',
        '{"comet_key": "planted" "model_name": 3}',
    ],
)
def test_errors_never_show_a_secret(tmp_path, text):
    with pytest.raises(UserError) as caught:
        TrainConfig.from_json(write(tmp_path, text), ["comet_key:planted", "hub_token=[1]"])
    assert "planted" not in str(caught.value)


def test_overrides(tmp_path):
    path = write(tmp_path, {**LEAST, "loss": "ge2e", "augment_noise_paths": [str(tmp_path)]})
    config = TrainConfig.from_json(
        path,
        [
            "learning_rate_init=1e-4",
            "run_id=5",
            "model_name=wavlm-base",
            "loss.variant=contrast",
            "training_arguments.adam_beta2=0.98",
            "augment_noises_paths=null",
            "window_size_s=[1, 2]",
            "max_steps=5",
            "max_steps=6",
        ],
    )
    assert config.learning_rate_init == 1e-4
    assert (config.run_id, config.model_name) == ("5", "wavlm-base")
    assert config.loss == {"name": "ge2e", "variant": "contrast"}
    assert config.training_arguments == {"adam_beta2": 0.98}
    assert config.augment_noises_paths == ()
    assert (config.window_size_s, config.max_steps) == ((1.0, 2.0), 6)


def test_override_inside_an_encoder_config():
    values = {**LEAST, "pretrained": False, "encoder_config": {"channels": [8], "lin_neurons": 4}}
    config = TrainConfig.from_dict(values, ["encoder_config.lin_neurons=16"])
    assert config.encoder_config == {"channels": [8], "lin_neurons": 16}
    assert values["encoder_config"]["lin_neurons"] == 4


def test_schema_key_is_accepted_and_ignored():
    config = TrainConfig.from_dict({**LEAST, "$schema": "./train_config.schema.json"})
    assert "$schema" not in config.to_dict()


def test_reserved_arguments_are_arguments_of_the_trainer():
    assert {name for name, _ in RESERVED_ARGUMENTS} <= set(known_arguments())


def test_reading_a_config_needs_no_torch(tmp_path):
    path = write(tmp_path, LEAST)
    code = (
        "import sys\n"
        "from speaker_encoder.training import TrainConfig\n"
        f"TrainConfig.from_json({str(path)!r})\n"
        "assert not {'torch', 'transformers', 'comet_ml'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_config_error_survives_pickling():
    error = ConfigError("x.json", ["a: b"])
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert str(again) == str(error) == "x.json has 1 problem:\n  a: b"


def test_every_key_has_a_meaning():
    assert len(config_keys()) > 60
    assert all(len(field.metadata["help"]) > 5 for field in config_keys().values())


def test_a_sum_of_losses_has_weights_and_is_read_again_alike():
    given = ["softmax", {"name": "ge2e", "weight": 0.5, "init_w": 3.0}]
    config = TrainConfig.from_dict({**LEAST, "loss": given})
    assert config.loss == [
        {"name": "softmax", "weight": 1.0},
        {"name": "ge2e", "weight": 0.5, "variant": "softmax", "init_w": 3.0},
    ]
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    one = TrainConfig.from_dict({**LEAST, "loss": "aam_softmax"}, ["loss.margin=0.3"])
    assert one.loss == {"name": "aam_softmax", "margin": 0.3}


def test_a_written_recipe_is_the_same_recipe(tmp_path):
    own = [
        {"augment_noises_paths": [str(tmp_path)], "augment_snr_db": [0, 5]},
        {"scheduler_metrics": "train_loss", "val_every": 3},
        {"accumulate_gradient_every_scheduler": True, "scheduler_metrics": "train_loss"},
    ]
    config = TrainConfig.from_dict({**LEAST, "val_data_root": "demo", "stages": own})
    written = json.loads(json.dumps(config.to_dict()))
    again = TrainConfig.from_dict(written)
    assert again == config and again.to_dict() == written
    assert again.stage_configs() == config.stage_configs()
    noisy, fast, third = again.stage_configs()
    assert noisy.use_data_augmentation and noisy.augment_noise_snr_db == (0.0, 5.0)
    assert not fast.use_data_augmentation and fast.scheduler_metrics_avg_every == 3
    assert third.gradient_accumulation_steps == 25
