"""Secrets and local paths: taken out of what is written, and searched for before it is sent."""

import pytest

from speaker_encoder.errors import UserError
from speaker_encoder.hub.contents import public_config, public_results
from speaker_encoder.hub.push import PushOptions, push_folder
from speaker_encoder.hub.secrets import known_secrets, refuse_secrets, without_local


def test_public_config(tmp_path):
    config = {
        "model_name": str(tmp_path),
        "train_data_root": str(tmp_path),
        "val_data_root": "demo",
        "augment_noises_paths": ["/data/noise"],
        "output_dir": "runs",
        "comet_key": "secret",
        "hub_token": "secret",
        "learning_rate_init": 1e-5,
        "training_arguments": {"deepspeed": "/home/me/ds.json", "some_api_key": "k", "x": [1]},
    }
    assert public_config(config, ()) == {
        "model_name": tmp_path.name,
        "val_data_root": "demo",
        "learning_rate_init": 1e-5,
        "training_arguments": {"deepspeed": "<removed>", "x": [1]},
    }


def test_public_results():
    results = {"model_name": "ecapa", "unusable_files": {"/home/me/a.wav": "0 bytes"}, "steps": 3}
    assert public_results(results, ()) == {
        "model_name": "ecapa",
        "steps": 3,
        "num_unusable_files": 1,
    }


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
    (tmp_path / "saved" / "README.md").write_text("# A card of one's own")
    push_folder(tmp_path / "saved", options)
    card = hub.repositories["someone/mine"].commits[-1].files["README.md"]
    assert card == b"# A card of one's own"
