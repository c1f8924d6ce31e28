"""Exports in the space of the encoder before fine-tuning, and maps that cannot be trusted."""

import json
import os

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from scipy.stats import ortho_group
from tiny_encoders import make_tiny

from speaker_encoder import SpeakerEncoder, UserError
from speaker_encoder.cli.main import main
from speaker_encoder.corpora import scan
from speaker_encoder.export import load_space
from speaker_encoder.export.manifest import read_manifest
from speaker_encoder.export.model import weights_digest
from speaker_encoder.training.pretrained_space import measure_space
from speaker_encoder.verification.procrustes import row_cosines
from speaker_encoder.verification.sources import read_embeddings

NAME = "pretrained_space.safetensors"


@pytest.fixture
def finetuned(tmp_path):
    """A model folder whose map is some rotation; gives the folder and the rotation."""
    encoder = make_tiny(1)
    encoder.save_pretrained(tmp_path / "model")
    rotation = ortho_group.rvs(24, random_state=0).astype(np.float32)
    facts = {"mapped": weights_digest(encoder), "pretrained": "0" * 64}
    write(tmp_path / "model", {"rotation": rotation}, facts)
    return tmp_path / "model", rotation


def write(folder, tensors, facts) -> None:
    save_file(tensors, folder / NAME, metadata={"weights_sha256": json.dumps(facts)})


def test_mapped_files_have_the_same_names_and_are_the_rotated_ones(libritts, export, finetuned):
    folder, rotation = finetuned
    formats = ("pt", "npy", "safetensors", "parquet", "kaldi", "coqui", "cosyvoice")
    roots = {}
    for space in ("own", "pretrained"):
        roots[space] = folder.parent / space
        options = {"checkpoint": str(folder), "output_dir": str(roots[space]), "space": space}
        assert export(libritts, formats=formats, **options).exit_code == 0
    names = [
        sorted(str(p.relative_to(r)) for p in r.rglob("*") if ".embeddings" not in p.parts)
        for r in roots.values()
    ]
    assert names[0] == names[1]
    tables = ["ecapa_safetensors/embeddings.safetensors", "ecapa_parquet/utterances.parquet",
              "ecapa_kaldi/xvector.scp", "ecapa_coqui/speakers.pth",
              "ecapa_cosyvoice/utt2embedding.pt"]  # fmt: skip
    for name in tables:
        own, mapped = (read_embeddings(root / name).embeddings for root in roots.values())
        np.testing.assert_allclose(mapped, own @ rotation, atol=1e-6)
    for path in roots["own"].rglob("*_embedding"):  # utterances and averages
        own, mapped = (
            torch.load(root / path.relative_to(roots["own"]), weights_only=True).numpy()
            for root in roots.values()
        )
        np.testing.assert_allclose(mapped, own @ rotation, atol=1e-6)
    entry = read_manifest(roots["pretrained"])["ecapa"]["embedding"]
    assert entry["space"] == "pretrained"
    assert entry["space_of_weights_sha256"] == "0" * 64
    assert read_manifest(roots["own"])["ecapa"]["embedding"]["space"] == "own"
    report = json.loads((roots["pretrained"] / "ecapa_embeddings.report.json").read_text())
    assert report["options"]["space"] == "pretrained"


def test_an_export_goes_on_in_its_own_space_only(vctk, export, finetuned, embeddings_of):
    folder, _ = finetuned
    for path in sorted(vctk.rglob("*.flac"))[8:]:
        path.unlink()
    values = {"checkpoint": str(folder), "windows_seconds": 1.0}
    assert export(vctk, **values).num_computed == 8
    own = embeddings_of(vctk)
    with pytest.raises(UserError, match="space: there 'own', now 'pretrained'"):
        export(vctk, **values, space="pretrained")
    assert embeddings_of(vctk) == own
    # Embeddings of before there were spaces are gone on with.
    manifest = vctk / "embeddings.manifest.json"
    content = json.loads(manifest.read_text())
    del content["models"]["ecapa"]["embedding"]["space"]
    manifest.write_text(json.dumps(content))
    assert export(vctk, **values).num_computed == 0

    assert export(vctk, **values, space="pretrained", overwrite=True).num_computed == 8
    assert embeddings_of(vctk) != own
    assert export(vctk, **values, space="pretrained").num_computed == 0
    with pytest.raises(UserError, match="space: there 'pretrained', now 'own'"):
        export(vctk, **values)
    other = ortho_group.rvs(24, random_state=1).astype(np.float32)
    facts = {"mapped": weights_digest(make_tiny(1)), "pretrained": "0" * 64}
    write(folder, {"rotation": other}, facts)
    with pytest.raises(UserError, match="space_sha256: there"):
        export(vctk, **values, space="pretrained")


def test_a_model_without_a_map_says_how_to_get_one(vctk, encoder_dir, capsys):
    given = ["--dataset_dir", str(vctk), "--model_name", "ecapa", "--model_device", "cpu"]
    given += ["--checkpoint", str(encoder_dir)]
    assert main(["embed", *given, "--space", "pretrained"]) == 2
    shown = capsys.readouterr().err
    assert f"There is no {NAME} in {encoder_dir}" in shown
    assert "give that run as --checkpoint" in shown
    assert main(["embed", *given, "--space", "pretraind"]) == 2
    assert "Unknown --space 'pretraind'. Known: own, pretrained" in capsys.readouterr().err


def eye(**changes):
    return {"rotation": np.eye(24, dtype=np.float32), **changes}


@pytest.mark.parametrize(
    ("tensors", "facts", "text"),
    [
        (eye(rotation=np.eye(23, dtype=np.float32)), {}, r"shape \[23, 23\]"),
        (eye(rotation=np.eye(24)), {}, "type F64"),
        (eye(rotation=np.ones(24, dtype=np.float32)), {}, r"shape \[24\]"),
        (eye(rotation=np.full((24, 24), np.nan, dtype=np.float32)), {}, "not finite"),
        (eye(rotation=1.001 * np.eye(24, dtype=np.float32)), {}, r"max \|R R\^T - I\| is 0.002"),
        (eye(rotation=np.full((24, 24), 3e38, dtype=np.float32)), {}, "not orthogonal"),
        (eye(more=np.zeros(3, dtype=np.float32)), {}, "found .*more"),
        (eye(), {"mapped": "1" * 64}, "belongs to other weights"),
        (eye(), {"mapped": None}, "does not say whose"),
        (eye(), [], "cannot be read"),
    ],
)
def test_a_map_that_cannot_be_trusted_is_refused(finetuned, tensors, facts, text):
    folder, _ = finetuned
    encoder = SpeakerEncoder.from_pretrained(folder)
    known = {"mapped": weights_digest(encoder), "pretrained": "0" * 64}
    write(folder, tensors, {**known, **facts} if isinstance(facts, dict) else facts)
    with pytest.raises(UserError, match=text):
        load_space(folder, encoder)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 64, b"\x80\x04N.", None])
def test_a_damaged_map_is_refused(finetuned, content):
    folder, _ = finetuned
    encoder = SpeakerEncoder.from_pretrained(folder)
    whole = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(whole[:-9] if content is None else content)
    with pytest.raises(UserError, match=r"is no map of 24-dimensional embeddings: it cannot be"):
        load_space(folder, encoder)
    os.remove(folder / NAME)
    with pytest.raises(UserError, match="has no map"):
        load_space(folder, encoder)


def test_a_real_encoder_that_moved_is_mapped_back(data_dir, tmp_path):
    """Resemblyzer's d-vector, its weights disturbed: mapped on speakers the map never heard."""
    old = SpeakerEncoder.from_pretrained("dvector")
    moved = SpeakerEncoder.from_pretrained("dvector")
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in moved.parameters():
            weight.add_(0.3 * weight.std() * torch.randn_like(weight))
    moved.save_pretrained(tmp_path / "model")
    training = scan(data_dir / "vctk").utterances[::2]
    facts = measure_space("dvector", tmp_path / "model", training, max_seconds=3)
    assert (facts.num_utterances, facts.num_speakers) == (len(training), 4)

    encoder = SpeakerEncoder.from_pretrained(tmp_path / "model")
    unheard = [u.path for u in scan(data_dir / "libritts").utterances][::3]
    before, after = old.encode(unheard).numpy(), encoder.encode(unheard).numpy()
    mapped = load_space(tmp_path / "model", encoder).map(after)
    plain, turned = row_cosines(after, before).mean(), row_cosines(mapped, before).mean()
    assert facts.training_cosine > turned > plain + 0.05
    np.testing.assert_allclose(mapped @ mapped.T, after @ after.T, atol=1e-5)
