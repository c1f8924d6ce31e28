"""Secrets and local paths: taken out of what is written, and searched for before it is sent."""

import json

import pytest

from speaker_encoder.errors import UserError
from speaker_encoder.hub.contents import public_config, public_results
from speaker_encoder.hub.push import PushOptions, push_folder
from speaker_encoder.hub.secrets import known_secrets, lend_token, refuse_secrets, without_local


def test_public_config(tmp_path):
    config = {
        "model_name": "models/mine",
        "train_data_root": str(tmp_path),
        "val_data_root": "demo",
        "augment_noises_paths": ["/data/noise"],
        "output_dir": "runs",
        "comet_key": "secret",
        "hub_token": "secret",
        "learning_rate_init": 1e-5,
        "training_arguments": {"deepspeed": "/home/me/ds.json", "some_api_key": "k", "x": [1]},
    }
    config["training_arguments"]["logging_dir"] = "runs/logs"
    public = {
        "model_name": "mine",
        "val_data_root": "demo",
        "learning_rate_init": 1e-5,
        "training_arguments": {"deepspeed": "<removed>", "logging_dir": "<removed>", "x": [1]},
    }
    assert public_config(config, ()) == public
    assert public_config({**config, "model_name": str(tmp_path / "mine")}, ()) == public
    assert public_config({**config, "model_name": "ecapa"}, ())["model_name"] == "ecapa"
    assert public_config(config, (), ("models/mine",)) == {**public, "model_name": "models/mine"}


def test_public_results():
    results = {"model_name": "../mine", "unusable_files": {"/home/me/a.wav": "0 bytes"}, "steps": 3}
    public = {"model_name": "mine", "steps": 3, "num_unusable_files": 1}
    assert public_results(results, ()) == public
    assert public_results(public, ()) == public  # of a folder that was pulled


@pytest.mark.parametrize(
    "text",
    ["/data/x", "~/x", "../x", "C:\\x", "C:/x", "a\\b", "hf_" + "a" * 34, "is planted12 here"],
)
def test_texts_that_are_removed(text):
    assert without_local(["ecapa", {"a": text}], {"planted12"}) == ["ecapa", {"a": "<removed>"}]


def test_names_of_the_hub_stay():
    values = {"model_name": "someone/encoder", "loss": {"name": "ge2e"}, "n": None, "b": True}
    assert without_local(values) == values


@pytest.mark.parametrize("name", ["README.md", "weights.ckpt", "plots/umap.png"])
def test_secret_in_any_file_stops_the_push(tmp_path, monkeypatch, name):
    monkeypatch.setenv("COMET_API_KEY", "planted-comet-key")
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x" * (4 << 20) + b"planted-comet-key")
    with pytest.raises(UserError, match=r"Nothing was pushed: .*a secret of this machine"):
        refuse_secrets(tmp_path, known_secrets())


@pytest.mark.parametrize(
    "secret", ["/planted/base64+key==", "a/planted/key", 'planted\nkey"x', "planted" * 300]
)
def test_secrets_of_any_form_are_found(tmp_path, monkeypatch, secret):
    monkeypatch.setenv("SOME_API_KEY", secret)
    text = json.dumps({"note": secret})
    (tmp_path / "config.json").write_text("x" * ((4 << 20) - len(text) // 2) + text)
    with pytest.raises(UserError, match=r"config.json holds a secret of this machine"):
        refuse_secrets(tmp_path, known_secrets())


def test_path_of_a_key_file_is_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY_FILE", str(tmp_path))
    assert str(tmp_path) not in known_secrets()


def test_secret_in_the_message_of_the_commit(hub, make_encoder, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "planted-key")
    with pytest.raises(UserError, match="commit_message holds a secret") as caught:
        make_encoder("dvector").push_to_hub("someone/mine", commit_message="with planted-key")
    assert "planted" not in str(caught.value) and not hub.received


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {"HF_TOKEN": "of the config"}),
        ({"HF_TOKEN": " "}, {"HF_TOKEN": "of the config"}),
        ({"HF_TOKEN": "own"}, {"HF_TOKEN": "own"}),
        ({"HUGGING_FACE_HUB_TOKEN": "own"}, {"HUGGING_FACE_HUB_TOKEN": "own"}),
    ],
)
def test_token_of_the_environment_wins(environment, expected):
    lend_token(environment, "of the config")
    assert environment == expected
    lend_token(environment, None)
    assert environment == expected


def test_home_and_tokens_in_a_card_stop_the_push(tmp_path, monkeypatch, hub, make_encoder):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    make_encoder("dvector").save_pretrained(tmp_path / "saved")
    options = PushOptions("someone/mine")
    monkeypatch.setattr("speaker_encoder.hub.push.check_contents", lambda *_: None)
    for text, what in (
        (f"trained in {tmp_path / 'home'}/runs", "a path of your home folder"),
        ("hf_" + "q" * 34, "what looks like an access token"),
    ):
        (tmp_path / "saved" / "README.md").write_text(text)
        with pytest.raises(UserError, match=f"README.md holds {what}"):
            push_folder(tmp_path / "saved", options)
    assert not hub.received
