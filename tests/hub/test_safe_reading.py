"""Repositories that attack: each has a real payload that would create a file; none does."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from transformers import AutoFeatureExtractor, AutoModel

from speaker_encoder import SpeakerEncoder, UserError
from speaker_encoder.hub.upstream_forms import write_speechbrain_form, write_transformers_form


@pytest.fixture
def attack(hub, tmp_path, monkeypatch):
    """Publishes a folder and loads it; gives the refusal, after a look for what the payload did."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    flag = tmp_path / "it_ran"

    def load(folder: Path, **extra: bytes) -> str:
        files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
        contents = {name: path.read_bytes() for name, path in files.items()}
        hub.publish("evil/encoder", {**contents, **extra})
        with pytest.raises(UserError) as caught:
            SpeakerEncoder.from_pretrained("evil/encoder")
        assert not flag.exists()
        return str(caught.value)

    load.flag = flag
    return load


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self):
        return Path.touch, (self.flag,)


def test_the_payload_works(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "it_ran")))  # noqa: S301 (it must run)
    assert (tmp_path / "it_ran").exists()


def test_malicious_pickle_in_a_speechbrain_folder(attack, make_encoder, tmp_path):
    write_speechbrain_form(make_encoder("ecapa"), tmp_path / "form", "evil/encoder")
    torch.save({"weight": Payload(attack.flag)}, tmp_path / "form" / "embedding_model.ckpt")
    assert "embedding_model.ckpt is refused" in attack(tmp_path / "form")


def test_malicious_pickle_in_a_transformers_folder(attack, make_encoder, tmp_path):
    folder = tmp_path / "form"
    write_transformers_form(make_encoder("wavlm"), folder)
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Payload(attack.flag)}, folder / "pytorch_model.bin")
    assert "pytorch_model.bin is refused" in attack(folder)


def test_pickle_in_place_of_our_own_weights_is_not_read(attack, make_encoder, tmp_path):
    folder = tmp_path / "form"
    make_encoder("dvector").save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Payload(attack.flag)}, folder / "pytorch_model.bin")
    assert "cannot be loaded" in attack(folder)


@pytest.mark.parametrize(
    "line",
    [
        "evil: !new:os.mkdir\n    path: {flag}",
        "evil: !apply:os.mkdir [{flag}]",
        "evil: !apply:pathlib.Path.touch [{flag}]",
        "evil: !name:os.mkdir\n    path: {flag}",
        "evil: !module:os",
        "evil: !include:{flag}",
        "evil: !!python/object/apply:os.mkdir [{flag}]",
        "evil: !copy <n_mels>",
    ],
)
def test_hyperparams_that_run_something(attack, make_encoder, tmp_path, line):
    folder = tmp_path / "form"
    write_speechbrain_form(make_encoder("ecapa"), folder, "evil/encoder")
    path = folder / "hyperparams.yaml"
    path.write_text(path.read_text() + "\n" + line.format(flag=attack.flag) + "\n")
    message = attack(folder)
    assert "hyperparams.yaml is refused: it " in message
    assert "nothing in it is executed" in message


def test_weights_named_outside_of_the_folder(attack, make_encoder, tmp_path):
    folder = tmp_path / "form"
    write_speechbrain_form(make_encoder("ecapa"), folder, "evil/encoder")
    path = folder / "hyperparams.yaml"
    path.write_text(path.read_text() + "    paths:\n        embedding_model: ../../other.ckpt\n")
    assert "'../../other.ckpt', which leads out of its folder" in attack(folder)


@pytest.mark.parametrize("name", ["../../../evil.json", "a/../../../../../evil.json"])
def test_file_names_that_lead_out(attack, make_encoder, tmp_path, name):
    make_encoder("dvector").save_pretrained(tmp_path / "form")
    message = attack(tmp_path / "form", **{name: b"evil"})
    assert "refused, for the repository has file names that lead out of its folder" in message
    assert not [path for path in tmp_path.rglob("evil.json") if "form" not in path.parts]


def test_index_that_names_weights_outside(attack, make_encoder, tmp_path):
    folder = tmp_path / "form"
    make_encoder("dvector").save_pretrained(folder)
    index = {"metadata": {}, "weight_map": {"backbone.x": "../../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "names the file '../../secret.safetensors', which leads out" in attack(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"auto_map": {"AutoModel": "evil.Evil"}}, "'auto_map', which makes a loader fetch or run"),
        ({"_attn_implementation": "evil/kernel"}, "'_attn_implementation', which makes a loader"),
        ({"quantization_config": {"quant_method": "evil"}}, "'quantization_config', which makes"),
        ({"something_new": 1}, "the unknown setting 'something_new'"),
        ({"encoder_kind": "os:system"}, "Unknown encoder_kind 'os:system'"),
        ({"encoder_config": {"activation": "os.system"}}, "Unknown key 'activation'"),
        ({"sampling_rate": "16000; touch it"}, "cannot be loaded"),
    ],
)
def test_settings_that_are_unknown_or_run_code(attack, make_encoder, tmp_path, changes, message):
    folder = tmp_path / "form"
    make_encoder("dvector").save_pretrained(folder)
    _change(folder / "config.json", changes)
    (folder / "evil.py").write_text(f"open({str(attack.flag)!r}, 'w')\nclass Evil: pass\n")
    assert message in attack(folder)


def _change(path: Path, changes: dict) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_code_beside_a_wavlm(attack, make_encoder, tmp_path):
    folder = tmp_path / "form"
    write_transformers_form(make_encoder("wavlm"), folder)
    _change(folder / "config.json", {"auto_map": {"AutoModel": "evil.Evil"}})
    (folder / "evil.py").write_text(f"open({str(attack.flag)!r}, 'w')\nclass Evil: pass\n")
    assert "'auto_map'" in attack(folder)


@pytest.mark.parametrize("trust", [None, True])
def test_code_through_the_auto_classes(attack, make_encoder, tmp_path, trust):
    folder = tmp_path / "form"
    make_encoder("dvector").save_pretrained(folder)
    code = {"AutoModel": "evil.Evil", "AutoFeatureExtractor": "evil.Evil"}
    _change(folder / "config.json", {"auto_map": {"AutoConfig": "evil.Evil", **code}})
    _change(folder / "preprocessor_config.json", {"auto_map": code})
    (folder / "evil.py").write_text(f"open({str(attack.flag)!r}, 'w')\nclass Evil: pass\n")
    attack(folder)
    if trust is None:
        with pytest.raises(UserError, match="'auto_map'"):
            AutoModel.from_pretrained("evil/encoder")
        AutoFeatureExtractor.from_pretrained("evil/encoder")
    assert not attack.flag.exists()
