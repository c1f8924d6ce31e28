"""`convert` writes folders that the other libraries load themselves, or nothing."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from exported_encoders import make_noise, make_variant

from speaker_encoder.cli.main import main
from speaker_encoder.errors import UserError
from speaker_encoder.hub import convert as conversion
from speaker_encoder.hub.convert import convert


def unit(rows) -> np.ndarray:
    rows = np.asarray(rows)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.slow
def test_speechbrain_loads_what_was_converted(tmp_path, capsys):
    from speechbrain.inference import EncoderClassifier

    encoder = make_variant("ecapa")
    encoder.save_pretrained(tmp_path / "model")
    folder = tmp_path / "speechbrain"
    assert main(["convert", str(tmp_path / "model"), "--to", "speechbrain", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "read back with SpeechBrain's EncoderClassifier.from_hparams: largest" in shown
    assert "read back with SpeechBrain's SpeakerRecognition.from_hparams: largest" in shown
    assert "read back with SpeakerEncoder.from_pretrained: largest" in shown
    assert "hyperparams.yaml" in shown
    classifier = EncoderClassifier.from_hparams(source=str(folder), savedir=str(tmp_path / "s"))
    waveform = make_noise(30_000)
    embedding = classifier.encode_batch(torch.from_numpy(waveform)[None])[0, 0]
    np.testing.assert_allclose(unit(embedding), encoder.encode(waveform)[0], atol=1e-5)
    assert not [path for path in folder.iterdir() if path.is_symlink() or path.is_dir()]


@pytest.mark.slow
def test_transformers_loads_what_was_converted(tmp_path, capsys):
    from transformers import WavLMForXVector

    encoder = make_variant("wavlm-base-sv")
    encoder.save_pretrained(tmp_path / "model")
    folder = tmp_path / "transformers"
    assert main(["convert", str(tmp_path / "model"), "--to", "transformers", str(folder)]) == 0
    assert "read back with transformers' WavLMForXVector" in capsys.readouterr().out
    model = WavLMForXVector.from_pretrained(folder).eval()
    waveform = make_noise(30_000)
    with torch.no_grad():
        embedding = model(torch.from_numpy(waveform)[None]).embeddings[0]
    np.testing.assert_allclose(unit(embedding), encoder.encode(waveform)[0], atol=1e-5)


@pytest.mark.slow
def test_the_onnx_readmes_code_runs(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    encoder = make_variant("dvector")
    written = convert(encoder, "onnx", tmp_path / "onnx")
    assert written.files == ("README.md", "model.onnx", "preprocessor_config.json")
    waveform = make_noise(30_000)
    soundfile.write(tmp_path / "onnx" / "a.wav", waveform, 16000, subtype="FLOAT")
    code = (tmp_path / "onnx" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    code += "numpy.save('found.npy', embeddings)\n"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path / "onnx")
    found = np.load(tmp_path / "onnx" / "found.npy")
    np.testing.assert_allclose(found, encoder.encode(waveform).numpy(), atol=1e-5)


def test_what_comes_out_wrong_is_not_written(tmp_path, monkeypatch):
    def write_damaged(encoder, folder, *_):
        (Path(folder) / "hyperparams.yaml").write_text("nothing")
        raise UserError("other embeddings")

    monkeypatch.setitem(conversion.FORMS, "speechbrain", write_damaged)
    with pytest.raises(UserError, match="other embeddings"):
        convert(make_variant("ecapa"), "speechbrain", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_other_weights_in_the_folder_are_noticed(tmp_path, monkeypatch):
    from speaker_encoder.hub import upstream_forms

    write = upstream_forms.write_transformers_form

    def write_another(encoder, folder, **options):
        other = make_variant("wavlm-base-sv")
        other.backbone.feature_extractor.weight.data += 0.01
        write(other, folder, **options)

    monkeypatch.setattr(upstream_forms, "write_transformers_form", write_another)
    with pytest.raises(UserError, match="Nothing was published or kept: read back"):
        convert(make_variant("wavlm-base-sv"), "transformers", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("onyx", "Unknown form 'onyx'. Did you mean 'onnx'? Known: "),
        ("speechbrain", "SpeechBrain's form is that of an ECAPA-TDNN"),
        ("transformers", "transformers' form is that of a WavLM"),
    ],
)
def test_forms_that_cannot_be(tmp_path, capsys, form, reason):
    make_variant("dvector").save_pretrained(tmp_path / "model")
    folder = tmp_path / "out"
    assert main(["convert", str(tmp_path / "model"), "--to", form, str(folder)]) == 2
    assert reason in capsys.readouterr().err
    assert not folder.exists()


def test_a_folder_with_files_is_left_alone(tmp_path, capsys, monkeypatch):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["convert", "dvector", "--to", "onnx", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main(["convert", "dvector", "--to", "onnx", str(tmp_path / "mine.txt")]) == 2
    assert "is a file" in capsys.readouterr().err
    monkeypatch.setattr("speaker_encoder.hub.check.check_contents", lambda *_, **options: {})
    convert(make_variant("ecapa"), "speechbrain", tmp_path, overwrite=True)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert (tmp_path / "hyperparams.yaml").is_file()
