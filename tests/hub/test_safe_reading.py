"""Repositories that attack: each has a real payload that would create a file; none does."""

import json
import pickle
import re
import zipfile
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
        ({"attn_implementation": "evil/kernel"}, "'attn_implementation', which makes a loader"),
        ({"use_kernels": True}, "'use_kernels', which makes a loader"),
        ({"custom_pipelines": {"x": {"impl": "evil.Evil"}}}, "'custom_pipelines', which makes"),
        ({"trust_remote_code": True}, "the unknown setting 'trust_remote_code'"),
        ({"transformers_weights": "../x.safetensors"}, "the unknown setting 'transformers_wei"),
        ({"id2label": "x"}, "made to do harm"),
        ({"dtype": "load"}, "made to do harm"),
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


def _speechbrain(make_encoder, folder: Path) -> Path:
    write_speechbrain_form(make_encoder("ecapa"), folder, "evil/encoder")
    return folder


def test_old_pickles(attack, make_encoder, tmp_path):
    folder = _speechbrain(make_encoder, tmp_path / "form")
    (folder / "embedding_model.ckpt").write_bytes(pickle.dumps({"weight": Payload(attack.flag)}))
    assert "embedding_model.ckpt is refused" in attack(folder)
    payload = {"weight": Payload(attack.flag)}
    torch.save(payload, folder / "embedding_model.ckpt", _use_new_zipfile_serialization=False)
    assert "embedding_model.ckpt is refused" in attack(folder)


def test_compiled_program_in_place_of_weights(attack, make_encoder, tmp_path):
    folder = _speechbrain(make_encoder, tmp_path / "form")
    program = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    torch.jit.save(program, str(folder / "embedding_model.ckpt"))
    assert "embedding_model.ckpt is refused" in attack(folder)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"x": torch.zeros(1).expand(10**12)}, "larger than the bytes that it was stored with"),
        ({"x": torch.eye(3).to_sparse()}, "has a tensor that is sparse"),
        ({"x": [{"y": torch.zeros(3, device="meta")}]}, "has a tensor that is sparse, or larger"),
        ({5: torch.zeros(3)}, "damaged, or were made to do harm"),
        ({"x": 5}, "damaged, or were made to do harm"),
        ("text", "holds str, not a dict of weights"),
    ],
)
def test_tensors_that_are_none(attack, make_encoder, tmp_path, weights, message):
    folder = tmp_path / "form"
    write_transformers_form(make_encoder("wavlm"), folder)
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    if message.startswith("damaged") and "x" in weights:  # an unused weight is nobody's trouble
        weights["wavlm.encoder.layer_norm.weight"] = weights.pop("x")
        torch.save(weights, folder / "pytorch_model.bin")
    assert message in attack(folder)


def test_weights_that_unfold_in_memory(attack, make_encoder, tmp_path):
    folder = _speechbrain(make_encoder, tmp_path / "form")
    path = folder / "embedding_model.ckpt"
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, bytes(50_000_000) if name.endswith("data/0") else content)
    assert path.stat().st_size < 1_000_000
    assert "embedding_model.ckpt is refused: it is compressed" in attack(folder)


_UNFOLDING = "".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 10)}]\n" for n in range(1, 12))
_REFERRING = "".join(f"r{n}: [{', '.join([f'!ref <r{n - 1}>'] * 10)}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("was", "now", "message"),
    [
        ("[1, 1, 1, 1, 1]", f"*b11\nb0: &b0 [1]\n{_UNFOLDING}", "it has an alias"),
        ("n_mels: 80", f"n_mels: 80\nb0: &b0 [1]\n{_UNFOLDING}", "it has an alias"),
        ("groups: [1, 1, 1, 1, 1]", "groups: !ref <r11>", "a list in a list"),
        ("lin_neurons: 24", "lin_neurons: 1000000000000", "a number beyond 65536"),
        ("n_fft: 400", "n_fft: 100000000000", "a number beyond 65536"),
        ("lin_neurons: 24", "lin_neurons: 60000", "do not fit its architecture"),
        ("lin_neurons: 24", "lin_neurons: -24", "must be at least 1"),
        ("[16, 16, 16, 16, 48]", "[a, b, c, d, e]", "must be whole numbers"),
        ("n_mels: 80", f"n_mels: 80\ndeep: {'[' * 100_000}", "is not readable YAML"),
    ],
)
def test_hyperparams_that_fill_the_memory(attack, make_encoder, tmp_path, was, now, message):
    folder = _speechbrain(make_encoder, tmp_path / "form")
    path = folder / "hyperparams.yaml"
    text = path.read_text()
    assert was in text
    path.write_text(text.replace(was, now, 1) + f"\nr0: [1]\n{_REFERRING}")
    assert message in attack(folder)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ((2**63).to_bytes(8, "little"), "header too large"),
        ({"x": {"dtype": "F32", "shape": [25 * 10**9], "data_offsets": [0, 10**11]}}, "cannot be"),
        ({"x": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}, "cannot be"),
        ("[" * 100_000, "cannot be loaded"),
    ],
)
def test_safetensors_that_say_too_much(attack, make_encoder, tmp_path, header, message):
    make_encoder("dvector").save_pretrained(tmp_path / "form")
    if not isinstance(header, bytes):
        text = (header if isinstance(header, str) else json.dumps(header)).encode()
        header = len(text).to_bytes(8, "little") + text
    (tmp_path / "form" / "model.safetensors").write_bytes(header)
    assert message in attack(tmp_path / "form")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", '{"weight_map": []}', "\xff"])
def test_damaged_or_deep_json(attack, make_encoder, tmp_path, name, text):
    make_encoder("dvector").save_pretrained(tmp_path / "form")
    (tmp_path / "form" / name).write_bytes(text.encode("latin-1"))
    (tmp_path / "form" / "model.safetensors").rename(tmp_path / "form" / "model-1.safetensors")
    assert re.search(r"is not a JSON object|is damaged|cannot be loaded|no speaker|is refused",
                     attack(tmp_path / "form"))  # fmt: skip


def test_adapter_of_another_repository(hub, attack, make_encoder, tmp_path):
    pytest.importorskip("peft", reason="transformers reads adapters with it alone")
    make_encoder("dvector").save_pretrained(tmp_path / "form")
    contents = {p.name: p.read_bytes() for p in (tmp_path / "form").iterdir()}
    hub.publish("evil/other", contents)
    adapter = {"base_model_name_or_path": "evil/other", "peft_type": "LORA",
               "target_modules": ["linear"]}  # fmt: skip
    (tmp_path / "form" / "adapter_config.json").write_text(json.dumps(adapter))
    assert "adapter_config.json is refused" in attack(tmp_path / "form")
    assert not [request for request in hub.received if "evil/other" in request.path]


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
