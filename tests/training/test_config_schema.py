"""The JSON schema says what the reader says."""

import json
from pathlib import Path

import hypothesis.strategies as st
import jsonschema
import pytest
from hypothesis import given, settings

from speaker_encoder.training.config import ConfigError, TrainConfig, config_keys
from speaker_encoder.training.config_tables import ALIASES
from speaker_encoder.training.schema import config_schema, keys_table, main, schema_text

REPOSITORY = Path(__file__).resolve().parents[2]
LEAST = {"model_name": "ecapa", "train_data_root": "demo"}
# what depends on other keys or on the machine is not the schema's
ONLY_THE_READER = (
    "does not exist",
    "which is not a file",
    "no variable",
    "whose first number is larger",
    "given with",
    "given without",
    "given together with",
    "not possible with",
    "no validation data",
    "none of augment_noises_paths",
    "cannot be divided",
    "which is not among",
    "training_arguments: transformers",
    "loss: Unknown option",
    "loss: its options",
    "loss: GE2E",
    "needs at least 2 utterances of each speaker in a batch",
    "is GE2E's, and loss names no ge2e",
    "which is a file, not a folder",
)


@pytest.fixture(scope="module")
def validator():
    schema = config_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_file_is_what_the_code_says():
    text = (REPOSITORY / "train_config.schema.json").read_text(encoding="utf-8")
    assert text == schema_text(), "run: python -m speaker_encoder.training.schema"


def test_the_command_writes_the_file(tmp_path):
    main(["--output", str(tmp_path / "s.json")])
    assert (tmp_path / "s.json").read_text(encoding="utf-8") == schema_text()


def test_defaults_fit_their_own_kind(validator):
    properties = config_schema()["properties"]
    for name, schema in properties.items():
        if "default" in schema:
            jsonschema.validate(schema["default"], schema)
            assert name in config_keys()


def test_the_table_has_every_key():
    table = keys_table()
    assert all(f"| `{name}` |" in table for name in config_keys())


def test_the_resolved_config_fits(validator):
    assert validator.is_valid(TrainConfig.from_dict(LEAST).to_dict())
    assert validator.is_valid({**LEAST, "$schema": "./train_config.schema.json"})


def test_an_alias_beside_its_key(validator):
    for alias, name in ALIASES.items():
        value = (
            False if config_keys()[name].metadata["kind"].schema().get("type") == "boolean" else []
        )
        assert validator.is_valid({**LEAST, alias: value})
        assert not validator.is_valid({**LEAST, alias: value, name: value})


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("stages", [{"max_steps": 3, "loss": "ge2e"}, {}], [{"seed": 1}]),
        ("stages", [{"annotate_point": True}], [{"max_steps": 0}]),
        ("stages", None, [{"unknown": 1}]),
        ("lr_schedule", {"name": "cosine", "period": 3}, {"name": "cosine", "perod": 3}),
        ("lr_schedule", "constant", {"period": 3}),
        ("optimizer", {"name": "sgd", "nesterov": True}, {"name": "adam", "nesterov": True}),
        ("lora", {"r": 4, "target": "fc"}, {"r": 0}),
        ("freeze", ["backbone.*"], [""]),
        ("report_to", ["wandb"], ["mlflow"]),
    ],
)
def test_objects_inside_are_checked_by_both(validator, key, good, bad):
    TrainConfig.from_dict({**LEAST, key: good})
    assert validator.is_valid({**LEAST, key: good})
    with pytest.raises(ConfigError):
        TrainConfig.from_dict({**LEAST, key: bad})
    assert not validator.is_valid({**LEAST, key: bad})


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.sampled_from([0.0, 0.5, 1.0, 2.0, 2.5, -1.0, 16000, 16000.0, 1e-4, 1e12]),
    st.sampled_from(["", "demo", "cpu", "cuda:1", "cuda:x", "repeat", "1e-4", "auto", "a/b", ".x"]),
    st.sampled_from(
        ["val_eer", "train_loss", "ge2e", "sup_con", "offline", "adamw", "relu", "bf16", "vctk"]
    ),
    st.lists(st.one_of(st.integers(-1, 5), st.sampled_from(["demo", "", 1.5, None])), max_size=3),
    st.dictionaries(
        st.sampled_from(["name", "variant", "seed", "adam_beta2", "weight", "x"]),
        st.sampled_from(["ge2e", "softmax", "hard", 1, None]),
        max_size=2,
    ),
)
KEYS = st.sampled_from([*config_keys(), *ALIASES, "$schema", "unknown", "seed "])


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=3), st.sampled_from([None, *LEAST]))
def test_reader_and_schema_agree(validator, changes, left_out):
    values = {**LEAST, **changes}
    if left_out and left_out not in changes:
        del values[left_out]
    values = json.loads(json.dumps(values))
    try:
        TrainConfig.from_dict(values)
    except ConfigError as error:
        own = [p for p in error.problems if not any(part in p for part in ONLY_THE_READER)]
        if own:
            assert not validator.is_valid(values), own
    else:
        if not isinstance(values.get("$schema", ""), str):
            return
        assert validator.is_valid(values), list(validator.iter_errors(values))
