"""`speaker-encoder compare-embeddings` on real exports in the forms that exist."""

import json

import numpy as np
import pytest
import torch

from speaker_encoder import SpeakerEncoder
from speaker_encoder.verification.sources import read_embeddings

FORMATS = ("pt", "safetensors", "parquet", "kaldi", "coqui", "cosyvoice")


@pytest.fixture(scope="module")
def exports(tmp_path_factory, tiny_model, data_dir):
    """The same LibriTTS files by two encoders, each in every form."""
    from speaker_encoder.cli.main import main

    folder = tmp_path_factory.mktemp("exports")
    moved = SpeakerEncoder.from_pretrained(tiny_model)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in moved.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    moved.save_pretrained(folder / "moved")
    for name, model in {"old": tiny_model, "new": folder / "moved"}.items():
        given = ["embed", "--model_name", "ecapa", "--dataset_dir", data_dir / "libritts"]
        given += ["--checkpoint", model, "--output_dir", folder / name, "--model_device", "cpu"]
        given += [word for form in FORMATS for word in ("--format", form)]
        assert main([str(word) for word in given]) == 0
    return folder


def test_two_exports_are_compared_and_reported(command, exports, tmp_path):
    report = tmp_path / "comparison.json"
    old, new = exports / "old", exports / "new"
    pair = (f"{old}/ecapa_parquet", f"{new}/ecapa_parquet")
    shown = command("compare-embeddings", *pair, "--report", report)
    assert shown.code == 0 and not shown.err
    found = json.loads(report.read_text())
    rows = [read_embeddings(place).embeddings for place in pair]
    cosines = (rows[0] * rows[1]).sum(axis=1)
    assert found["cosine"]["mean"] == pytest.approx(cosines.mean(), abs=1e-5)
    assert found["num_matched"] == 48 and found["error_rates"]["num_speakers"] == 4
    assert f"cosine of A and B           mean {cosines.mean():.3f}" in shown.out
    assert f"A with rotated B  {found['error_rates']['rotated']['eer']:>7.2%}  [" in shown.out
    assert found["cosine"]["worst_utterances"][0][0] in shown.out
    assert found["cosine"]["lowest"] == pytest.approx(np.min(cosines), abs=1e-5)


@pytest.mark.parametrize("form", FORMATS)
def test_every_form_is_compared_with_every_other(command, exports, form):
    place = exports / "new" / f"ecapa_{form}"
    if form == "pt":  # the folder of all forms: the files of single utterances, alone
        place = exports / "single"
        for path in (exports / "new").rglob("*.ecapa_*embedding"):
            target = place / path.relative_to(exports / "new")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    for pair in ((exports / "old" / "ecapa_safetensors", place), (place, exports / "new")):
        shown = command("compare-embeddings", *pair)
        assert shown.code == 0, shown.err
        assert "48 utterances are in both\n" in shown.out and "only in" not in shown.out
        assert "EER of 264 target and 864 nontarget trials, 4 speakers" in shown.out
    assert "cosine of A and B           mean 1.000, lowest 1.000" in shown.out


def test_what_is_no_export_is_refused(command, exports, tmp_path):
    old = exports / "old"
    for wrong, text in {
        tmp_path / "nowhere": "There are no embeddings at",
        tmp_path: "holds no embeddings",
        f"{old}:wavlm": "holds no embeddings of 'wavlm'; of ecapa",
    }.items():
        shown = command("compare-embeddings", old, wrong)
        assert shown.code == 2 and text in shown.err and not shown.out
    shown = command("compare-embeddings", old, old, "--report", tmp_path)
    assert shown.code == 2 and "is a folder; name a file" in shown.err
