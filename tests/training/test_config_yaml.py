"""A YAML config is read as its JSON twin is, by the rules of YAML 1.2."""

import json
from pathlib import Path

import pytest
import yaml

from speaker_encoder.training.config import ConfigError, TrainConfig
from speaker_encoder.training.config_text import read_config

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = """
# a comment
model_name: ecapa
train_data_root: demo
learning_rate_init: 1e-5   # YAML 1.1 would read a text
weight_decay: .5
max_steps: 010             # and here 8
comet: off                 # and false
trim_silence: "off"
use_data_augmentation: null
augment_snr_db: [0, 15.0]
loss: {name: ge2e, variant: softmax}
run_id: 2024-01-01
stages:
  - max_steps: 3
    freeze: [backbone.network.*]
  - learning_rate_init: 1.0E-6
"""


def written(tmp_path, text, name="config.yaml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_values_are_those_of_json(tmp_path):
    values = read_config(written(tmp_path, TEXT))
    assert values["learning_rate_init"] == 1e-5 and values["weight_decay"] == 0.5
    assert values["max_steps"] == 10 and values["comet"] == "off"
    assert values["run_id"] == "2024-01-01" and values["use_data_augmentation"] is None
    twin = written(tmp_path, json.dumps(values), "twin.json")
    from_yaml = TrainConfig.from_json(tmp_path / "config.yaml", ["seed=4"])
    assert from_yaml == TrainConfig.from_json(twin, ["seed=4"])
    assert from_yaml.stages[1] == {"learning_rate_init": 1e-6}


@pytest.mark.parametrize("suffix", [".yaml", ".YML"])
def test_every_config_of_the_repository_is_the_same_as_yaml(suffix, tmp_path):
    for source in sorted([REPOSITORY / "train_config.json", *REPOSITORY.glob("configs/*.json")]):
        values = json.loads(source.read_text(encoding="utf-8"))
        path = written(tmp_path, yaml.safe_dump(values, sort_keys=False), f"{source.stem}{suffix}")
        assert read_config(path) == values


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("seed: 1\nloss:\n  name: ge2e\n  name: x\nseed: 2\n", ["seed: stands twice, in line 1"]),
        ("loss:\n  name: ge2e\n  name: x\n", ["name: stands twice, in line 2 and line 3"]),
        ("a: [1, 2\nb: 3", ["line 2", "not YAML"]),
        ("comet_key: 'SECRET\n", ["not YAML"]),
        ("\tcomet_key: SECRET", ["line 1", "not YAML"]),
        ("comet_key: *SECRET", ["not YAML"]),
        ("a: !!python/object/apply:os.system ['true']", ["not YAML"]),
        ("a: 1\n---\nb: 2\n", ["more than one document"]),
        ("1: x\n", ["line 1: a key that is no text"]),
        ("- a\n", ["does not hold an object"]),
        ("", ["does not hold an object"]),
        ("a: &a\n  b: *a\n", ["not plain data"]),
        ("a: \x00", ["not YAML"]),
        ("comet_key: !!binary U0VDUkVU", ["line 1: not YAML of plain data: a tag", "!!binary"]),
        ("b: 1\na: !!timestamp 2024-01-01", ["line 2", "plain data: a tag"]),
        ("a: [1, !!set {b, c}]", ["plain data: a tag"]),
        ("a: !!int SECRET", ["line 1", "plain data: a tag"]),
        ("a: !!bool SECRET", ["line 1", "plain data: a tag"]),
        ("a: !!float {b: SECRET}", ["line 1", "plain data: a tag"]),
    ],
)
def test_what_is_wrong_is_said_and_never_shown(text, parts, tmp_path):
    with pytest.raises(ConfigError) as caught:
        read_config(written(tmp_path, text))
    for part in parts:
        assert part in str(caught.value)
    assert "SECRET" not in str(caught.value)
