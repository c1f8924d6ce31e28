"""`"recipe": "auto"`: what the table gives, what wins over it, and what a run keeps of it."""

import contextlib
import copy
import json
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import pytest
from conftest import REPOSITORY, TINY_ECAPA, TINY_WAVLM
from hypothesis import given, settings

from speaker_encoder.cli.main import main_of
from speaker_encoder.errors import UserError
from speaker_encoder.training import TrainConfig, recipe_table, train
from speaker_encoder.training.config import ConfigError, config_keys
from speaker_encoder.training.recipe import choose, format_entries
from speaker_encoder.training.recipe_facts import CorpusFacts, EncoderFacts, describe_encoder
from speaker_encoder.training.recipe_table import FAMILIES, RECIPE_KEYS, STARTS, TABLE
from speaker_encoder.training.resume import as_started, open_run

LEAST = {"model_name": "dvector", "train_data_root": "demo", "recipe": "auto"}
VALIDATED = {**LEAST, "val_data_root": "demo"}
PRETRAINED_DVECTOR = EncoderFacts("d-vector", "trained", 0.4)


def corpus_of(num_speakers=170, num_utterances=6, seconds=3.0):
    hours = num_speakers * num_utterances * seconds / 3600
    counts = (num_utterances,) * num_speakers
    return CorpusFacts(num_speakers, sum(counts), hours, 0, seconds, counts)


def chosen(values, corpus=None, encoder=PRETRAINED_DVECTOR):
    config = TrainConfig.from_dict(values)
    entries = choose(config, corpus or corpus_of(), encoder)
    return config.completed({entry.key: entry.value for entry in entries}), entries


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.source.label)
def test_every_row_holds_possible_values_of_keys_that_a_recipe_may_fill(row):
    assert row.values.keys() <= set(RECIPE_KEYS)
    assert row.family in (None, *FAMILIES) and row.start in (None, *STARTS)
    for key, value in row.values.items():
        config_keys()[key].metadata["kind"].read(value)


@settings(max_examples=60, deadline=None)
@given(
    family=st.sampled_from(FAMILIES),
    start=st.sampled_from(STARTS),
    counts=st.lists(st.integers(1, 40), min_size=2, max_size=300).map(sorted),
    seconds=st.floats(0.5, 30),
    few_utterances=st.sampled_from(["repeat", "drop"]),
    cap=st.sampled_from([None, 2, 5]),
    processes=st.sampled_from([1, 2]),
    is_validated=st.booleans(),
)
def test_every_encoder_and_corpus_gets_a_batch_and_a_crop_that_it_can_have(
    family, start, counts, seconds, few_utterances, cap, processes, is_validated
):
    values = {
        **(VALIDATED if is_validated else LEAST),
        "pretrained": start != "random weights",
        "few_utterances": few_utterances,
        "max_utterances_per_speaker": cap,
        "data_parallel": list(range(processes)),
    }
    corpus = CorpusFacts(len(counts), sum(counts), sum(counts) * seconds / 3600, 0, seconds, counts)
    config, entries = chosen(values, corpus, EncoderFacts(family, start, 0.4))
    usable = [count for count in counts if count >= config.utterances_per_speaker]
    if few_utterances == "repeat" or len(usable) >= processes:
        found = counts if few_utterances == "repeat" else usable
        assert config.speakers_per_batch <= max(len(found), 2)
    assert config.speakers_per_batch % processes == 0 and config.utterances_per_speaker >= 2
    window = config.window_size_s
    shortest, longest = window if isinstance(window, tuple) else (window, window)
    assert 0.4 <= shortest <= longest <= max(seconds, 0.4)
    assert config.utterances_per_speaker <= (cap or 40)
    keys = {entry.key for entry in entries}
    assert keys >= {"learning_rate_init", "val_every", "save_every"}
    assert len(keys & {"max_steps", "num_epochs"}) == 1
    assert all(entry.why for entry in entries) and not config.left_to_recipe


OTHERS = {
    **{"max_steps": 7, "learning_rate_init": 0.5, "utterances_per_speaker": 3},
    **{"speakers_per_batch": 5, "window_size_s": 0.7, "distillation": 0.0, "val_every": 3},
    **{"save_every": 9, "loss": "triplet"},
}


@pytest.mark.parametrize("key", OTHERS)
def test_what_the_config_or_an_override_gives_wins(key):
    table, _ = chosen(VALIDATED)
    for config, entries in (
        chosen({**VALIDATED, key: OTHERS[key]}),
        chosen({**VALIDATED, key: getattr(table, key)}),
    ):
        assert [entry.why for entry in entries if entry.key == key] in (
            ["given by the config"],
            [],
        )
        differing = {
            name for name in config_keys() if getattr(config, name) != getattr(table, name)
        }
        assert differing <= {key}
    overridden = TrainConfig.from_dict(VALIDATED, [f"{key}={json.dumps(OTHERS[key])}"])
    assert key not in overridden.left_to_recipe
    assert overridden.completed({}) == TrainConfig.from_dict({**VALIDATED, key: OTHERS[key]})


def test_a_default_that_is_given_is_given():
    config, _ = chosen({**VALIDATED, "learning_rate_init": 1e-5, "max_steps": None})
    assert (config.learning_rate_init, config.max_steps) == (1e-5, None)


def test_a_copy_knows_what_is_given():
    config = TrainConfig(**VALIDATED, max_steps=3)
    for copied in (copy.deepcopy(config), copy.copy(config)):
        assert copied == config and copied.left_to_recipe == config.left_to_recipe
    assert len(config.left_to_recipe) == len(RECIPE_KEYS) - 1


def test_epochs_that_are_given_are_not_cut_short_by_steps():
    config, entries = chosen({**VALIDATED, "num_epochs": 3})
    assert (config.num_epochs, config.max_steps) == (3, None)
    assert "num_epochs is given" in [entry.why for entry in entries if entry.key == "max_steps"]


def test_adapters_are_not_given_together_with_what_freezes():
    wavlm = EncoderFacts("self-supervised", "trained", 0.4)
    assert chosen(VALIDATED, encoder=wavlm)[0].freeze_feature_encoder
    config, entries = chosen({**VALIDATED, "lora": {"r": 4}}, encoder=wavlm)
    assert not config.freeze_feature_encoder and config.lora["r"] == 4
    assert "lora is given" in {entry.why for entry in entries}


@pytest.mark.parametrize(
    ("key", "given", "why"),
    [
        (
            "lr_schedule",
            {"training_arguments": {"lr_scheduler_type": "linear"}},
            "lr_scheduler_type of training_arguments is given",
        ),
        ("lr_schedule", {"scheduler_patience": 0}, "scheduler_patience is given"),
        ("lr_schedule", {"scheduler_metrics": "val_eer"}, "scheduler_metrics is given"),
        (
            "optimizer",
            {"training_arguments": {"optim": "adafactor"}},
            "optim of training_arguments is given",
        ),
    ],
)
def test_what_another_key_does_is_not_chosen(key, given, why):
    """The config as a whole is possible, and the key is as it is without a recipe."""
    random = replace(PRETRAINED_DVECTOR, start="random weights")  # has an optimizer and a schedule
    values = {**VALIDATED, "pretrained": False, **given}
    config, entries = chosen(values, encoder=random)
    assert getattr(config, key) == getattr(TrainConfig(**{**values, "recipe": None}), key)
    assert [entry.why for entry in entries if entry.key == key] == [why]
    table, _ = chosen({**VALIDATED, "pretrained": False}, encoder=random)
    assert getattr(table, key) != getattr(config, key)
    others = set(RECIPE_KEYS) - {key}
    assert {getattr(config, name) == getattr(table, name) for name in others} == {True}
    assert why in format_entries("dvector", entries)


def test_without_pretrained_weights_there_is_nothing_to_stay_close_to():
    scratch, _ = chosen(
        {**VALIDATED, "pretrained": False},
        encoder=replace(PRETRAINED_DVECTOR, start="random weights"),
    )
    pretrained, _ = chosen(VALIDATED)
    assert pretrained.distillation > 0 and scratch.distillation == 0
    assert scratch.learning_rate_init > pretrained.learning_rate_init


@pytest.mark.parametrize(
    ("encoder", "num_speakers", "label"),
    [
        (PRETRAINED_DVECTOR, 170, "measured"),
        (PRETRAINED_DVECTOR, 10, "measured"),
        (PRETRAINED_DVECTOR, 9, "transferred"),
        (PRETRAINED_DVECTOR, 5000, "transferred"),
        (EncoderFacts("convolutional", "trained", 0.4), 170, "transferred"),
    ],
)
def test_measured_is_said_only_of_what_was_measured(encoder, num_speakers, label):
    _, entries = chosen(VALIDATED, corpus_of(num_speakers), encoder)
    assert {entry.why for entry in entries if entry.key == "distillation"} == {label}
    others = {
        entry.source.text for entry in entries if entry.source and "measured" not in entry.why
    }
    assert all("not measured" in text or "neither measured" in text for text in others)


def test_facts_count_what_is_trained_on(data_dir):
    from speaker_encoder.corpora import scan

    found = CorpusFacts.of(scan(data_dir / "voxceleb" / "wav").utterances)
    assert (found.num_speakers, found.num_utterances, found.counts) == (24, 96, (4,) * 24)
    assert found.num_sessions == 48 and found.hours == pytest.approx(0.1, abs=0.01)
    assert "24 speakers, 96 utterances (4 of each), 0.10 hours, 48 sessions" in str(found)


@pytest.mark.parametrize(
    ("values", "family", "start"),
    [
        ({"model_name": "ecapa", "encoder_config": TINY_ECAPA}, "convolutional", "random weights"),
        (
            {"model_name": "wavlm-base", "encoder_config": TINY_WAVLM},
            "self-supervised",
            "random weights",
        ),
        ({"model_name": "dvector", "pretrained": True}, "d-vector", "trained"),
    ],
)
def test_encoders_are_told_apart(values, family, start):
    config = TrainConfig.from_dict({**LEAST, "pretrained": False, **values})
    encoder = describe_encoder(config)
    assert (encoder.family, encoder.start) == (family, start) and encoder.least_seconds > 0


def test_a_new_head_on_trained_weights_is_told_from_random_weights(tmp_path):
    from speaker_encoder import SpeakerEncoder

    wavlm = SpeakerEncoder.from_name("wavlm-base", pretrained=False, encoder_config=TINY_WAVLM)
    wavlm.config.untrained_head = False
    wavlm.save_pretrained(tmp_path)
    wanted = {"": "trained", "attentive_statistics": "new head"}
    for head, start in wanted.items():
        values = {**LEAST, "model_name": str(tmp_path), "head": head or None}
        assert describe_encoder(TrainConfig.from_dict(values)).start == start


def test_the_printed_table_says_key_value_and_why():
    corpus = replace(corpus_of(12, 3), counts=(2, *(3,) * 11))
    values = {**VALIDATED, "learning_rate_init": 3e-5, "data_parallel": [0, 1, 2, 3, 4]}
    _, entries = chosen(values, corpus)
    text = format_entries("dvector", entries)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    table = {entry.key: entry for entry in entries}
    batch = next(row for row in TABLE if "speakers_per_batch" in row.values).values
    assert "learning_rate_init 3e-05 given by the config" in lines
    wanted, most = batch["speakers_per_batch"], batch["utterances_per_speaker"]
    assert f"speakers_per_batch 10 12 speakers, 5 processes; else {wanted}, measured" in lines
    bounded = f"half of the speakers have no more than 3; else {most}, measured"
    assert f"utterances_per_speaker 3 {bounded}" in lines
    assert f"measured: {table['distillation'].source.text}" in " ".join(lines)
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"stages": [{}, {}]}, 'recipe: "auto" is for one training, and stages say'),
        ({"stages": [{"recipe": "auto"}]}, "recipe: is said once, outside of stages"),
        ({"views": "halves"}, 'recipe: "auto" is for batches of speakers, found views "halves"'),
        ({"recipe": "best"}, "recipe: "),
    ],
)
def test_what_a_recipe_is_not_for_is_refused(more, problem):
    values = {
        **VALIDATED,
        "recipe": None if "recipe" in str(more.get("stages")) else "auto",
        **more,
    }
    with pytest.raises(ConfigError, match="problem") as caught:
        TrainConfig.from_dict(values)
    assert problem in str(caught.value)


def test_checks_between_keys_are_made_of_the_values_that_are_chosen():
    """The default of 6 speakers cannot be divided over 5 processes, what is chosen can."""
    config, _ = chosen({**VALIDATED, "data_parallel": [0, 1, 2, 3, 4]})
    assert config.speakers_per_batch % 5 == 0
    with pytest.raises(ConfigError, match="cannot be divided"):
        chosen({**VALIDATED, "data_parallel": [0, 1, 2, 3, 4], "speakers_per_batch": 6})


@pytest.fixture
def short_run(make_run):
    """Gives a run of two steps whose batch, crop and rate are left to the recipe."""

    def make(name="a", **keys):
        run = make_run(name, recipe="auto", max_steps=2, val_every=0, save_every=1, **keys)
        values = json.loads(run.config_path.read_text())
        for key in ("learning_rate_init", "speakers_per_batch", "utterances_per_speaker"):
            del values[key]
        run.config_path.write_text(json.dumps(values))
        return run

    return make


def stored(run):
    return json.loads((run.path / "train_config.json").read_text())


def test_a_run_keeps_its_values_although_table_and_corpus_change(short_run, monkeypatch, caplog):
    run = short_run()
    values = json.loads(run.config_path.read_text())
    with caplog.at_level("INFO", logger="speaker_encoder"):
        assert train(TrainConfig.from_dict(values)).results is not None
    assert "speakers_per_batch      24" in caplog.text and "given by the config" in caplog.text
    assert (run.path / "train.log").read_text().count("recipe auto: ecapa") == 1
    first = stored(run)
    assert (first["recipe"], first["speakers_per_batch"]) == ("auto", 24)
    assert (first["learning_rate_init"], first["utterances_per_speaker"]) == (1e-3, 2)
    other = replace(
        TABLE[0], values={"learning_rate_init": 0.5, "speakers_per_batch": 3, "loss": "triplet"}
    )
    monkeypatch.setattr(recipe_table, "TABLE", (other,))
    caplog.clear()
    with caplog.at_level("INFO", logger="speaker_encoder"):
        outcome = train(TrainConfig.from_dict({**values, "max_steps": 3}))
    assert outcome.results.steps == 3 and stored(run) == {**first, "max_steps": 3}
    assert "changed from" not in caplog.text
    assert "recipe auto: the values that the run was started with" in caplog.text
    del values["max_steps"]
    assert as_started(TrainConfig.from_dict(values), outcome.run).max_steps == 3
    longer = as_started(TrainConfig.from_dict({**values, "num_epochs": 5}), outcome.run)
    assert (longer.num_epochs, longer.max_steps) == (5, None)
    again = TrainConfig.from_dict({**stored(run), "run_id": "again"})
    assert not again.left_to_recipe  # a run's own config trains the same again
    with contextlib.ExitStack() as stack, pytest.raises(UserError, match="recipe: was 'auto'"):
        open_run(TrainConfig.from_dict({**values, "recipe": None}), False, stack)


def test_validate_only_shows_what_would_be_chosen(short_run, capfd):
    run = short_run()
    assert main_of("train", ["--config", str(run.config_path), "--validate_only"]) == 0
    out, err = capfd.readouterr()
    assert "recipe auto: ecapa (convolutional, random weights); 24 speakers" in err
    resolved, _ = json.JSONDecoder().raw_decode(out)
    assert (resolved["speakers_per_batch"], resolved["learning_rate_init"]) == (24, 1e-3)
    assert not Path(run.path).exists()


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_have_the_same_values(short_run):
    run = short_run(data_parallel=[0, 1], max_speakers=23, val_data_root=None)
    run.run()
    assert stored(run)["speakers_per_batch"] == 22
    assert run.results()["steps"] == 2


def test_the_documented_table_is_the_one_that_is_used():
    text = (REPOSITORY / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert recipe_table.table_markdown() in text


@pytest.mark.parametrize("num_speakers", [10, 25, 50, 100, 170])
def test_what_is_called_measured_is_what_the_benchmark_trains(num_speakers):
    """`benchmarks/fine_tuning.py` runs this config, with no more speakers in a batch than there."""
    path = REPOSITORY / "configs" / "fine_tuning_default.json"
    values = json.loads(path.read_text())
    trained = {key: value for key, value in values.items() if key in RECIPE_KEYS}
    trained["speakers_per_batch"] = min(num_speakers, trained["speakers_per_batch"])
    config, entries = chosen(VALIDATED, corpus_of(num_speakers))
    named = TrainConfig.from_dict({**VALIDATED, **trained, "recipe": None})
    assert {key: getattr(config, key) for key in RECIPE_KEYS} == {
        key: getattr(named, key) for key in RECIPE_KEYS
    }
    assert {entry.source.label for entry in entries if entry.source} == {"measured"}
