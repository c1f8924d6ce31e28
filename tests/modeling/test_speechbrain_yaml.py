import pickle
from pathlib import Path

import pytest
import torch

from speaker_encoder import SpeakerEncoder, UserError
from speaker_encoder.modeling.ecapa import NETWORK_DEFAULTS
from speaker_encoder.modeling.speechbrain_yaml import read_hyperparams


@pytest.fixture
def hyperparams_text(speechbrain_folder) -> str:
    return (speechbrain_folder / "hyperparams.yaml").read_text()


def _read(tmp_path: Path, text: str):
    path = tmp_path / "hyperparams.yaml"
    path.write_text(text)
    return read_hyperparams(path, "ecapa", NETWORK_DEFAULTS)


def test_reads_the_architecture_of_the_hub(tmp_path, hyperparams_text):
    hyperparams = _read(tmp_path, hyperparams_text)
    assert hyperparams.weights_name == "embedding_model.ckpt"
    assert hyperparams.encoder_config == {
        "input_size": 80,
        "channels": [64, 64, 64, 64, 192],
        "kernel_sizes": [5, 3, 3, 3, 1],
        "dilations": [1, 2, 3, 4, 1],
        "attention_channels": 128,
        "lin_neurons": 192,
    }


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("bad: !apply:os.system ['touch {flag}']", "!apply:os.system"),
        ("bad: !name:os.system", "!name:os.system"),
        ("bad: !module:os", "!module:os"),
        ("bad: !include:other.yaml", "!include:other.yaml"),
        ("bad: !copy <n_mels>", "!copy"),
        ("bad: !applyref:os.system", "!applyref:os.system"),
        ("bad: !new:subprocess.Popen\n    args: ['touch', '{flag}']", "subprocess.Popen"),
        ("bad: !new:speechbrain.lobes.features.Fbank [80]", "have no names"),
        ("bad: !!python/object/apply:os.system ['touch {flag}']", "python/object/apply:os.system"),
        ("bad: !!python/name:os.system", "python/name:os.system"),
    ],
)
def test_malicious_yaml_is_refused_and_does_not_run(tmp_path, hyperparams_text, line, named):
    flag = tmp_path / "it_ran"
    text = hyperparams_text + "\n" + line.replace("{flag}", str(flag)) + "\n"
    with pytest.raises(UserError, match="is refused") as caught:
        _read(tmp_path, text)
    assert named in str(caught.value)
    assert "nothing in it is executed" in str(caught.value)
    assert not flag.exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("norm_type: sentence", "norm_type: global", "norm_type: sentence"),
        (
            "input_size: !ref <n_mels>",
            "input_size: !ref <n_mels> * 2",
            "reference '<n_mels> \\* 2'",
        ),
        ("input_size: !ref <n_mels>", "input_size: !ref <nowhere>", "<nowhere>"),
        ("n_mels: 80", "n_mels: !ref <n_mels>", "leads back to itself"),
        ("lin_neurons: 192", "lin_neurones: 192", "argument 'lin_neurones'"),
        ("n_mels: !ref <n_mels>", "n_mels: 40", "gives 40 mels, embedding_model takes 80"),
        ("n_mels: !ref <n_mels>", "n_mels: 80\n    deltas: True", "deltas other than False"),
        ("ECAPA_TDNN.ECAPA_TDNN", "Xvector.Xvector", "Xvector.Xvector"),
        ("lin_neurons: 192", "lin_neurons: [", "not readable YAML"),
        ("embedding_model: !new", "other_model: !new", "embedding_model must be !new:"),
    ],
)
def test_other_models_are_refused(tmp_path, hyperparams_text, old, new, message):
    assert old in hyperparams_text
    with pytest.raises(UserError, match=message):
        _read(tmp_path, hyperparams_text.replace(old, new, 1))


def test_weights_outside_the_folder_are_not_followed(tmp_path, hyperparams_text):
    text = hyperparams_text.replace(
        "!ref <pretrained_path>/embedding_model.ckpt", "/etc/secret/other.ckpt"
    )
    assert _read(tmp_path, text).weights_name == "other.ckpt"
    with pytest.raises(UserError, match="leads out of its folder"):
        _read(tmp_path, text.replace("/etc/secret", "../secret"))


class _Malicious:
    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self):
        return Path.touch, (self.flag,)


def _folder_with_weights(folder: Path, hyperparams_text: str) -> Path:
    folder.mkdir()
    (folder / "hyperparams.yaml").write_text(hyperparams_text)
    return folder


def test_malicious_pickle_is_refused_and_does_not_run(tmp_path, hyperparams_text):
    folder = _folder_with_weights(tmp_path / "ecapa", hyperparams_text)
    flag = tmp_path / "it_ran"
    torch.save({"weight": _Malicious(flag)}, folder / "embedding_model.ckpt")
    with pytest.raises(UserError, match=r"embedding_model.ckpt is refused"):
        SpeakerEncoder.from_pretrained(folder)
    (folder / "embedding_model.ckpt").write_bytes(pickle.dumps(_Malicious(flag), protocol=2))
    with pytest.raises(UserError, match=r"embedding_model.ckpt"):
        SpeakerEncoder.from_pretrained(folder)
    assert not flag.exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "There is no .*embedding_model.ckpt"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "embedding_model.ckpt"),
        (lambda path: path.write_bytes(b""), "embedding_model.ckpt"),
        (lambda path: torch.save([1, 2], path), "holds list, not a dict of weights"),
        (lambda path: torch.save({"a": torch.ones(1)}, path), "do not fit its architecture"),
    ],
)
def test_damaged_weights(tmp_path, speechbrain_folder, hyperparams_text, damage, message):
    folder = _folder_with_weights(tmp_path / "ecapa", hyperparams_text)
    path = folder / "embedding_model.ckpt"
    path.write_bytes((speechbrain_folder / "embedding_model.ckpt").read_bytes())
    damage(path)
    with pytest.raises(UserError, match=message):
        SpeakerEncoder.from_pretrained(folder)


def test_weights_of_another_size_are_refused(tmp_path, speechbrain_folder, hyperparams_text):
    text = hyperparams_text.replace("attention_channels: 128", "attention_channels: 64")
    folder = _folder_with_weights(tmp_path / "ecapa", text)
    path = folder / "embedding_model.ckpt"
    path.write_bytes((speechbrain_folder / "embedding_model.ckpt").read_bytes())
    with pytest.raises(UserError, match=r"another shape: network\.asp\.tdnn"):
        SpeakerEncoder.from_pretrained(folder)
