"""Pushed by the real client over HTTP, pulled by a new process, in our form and upstream's."""

import json
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
from hub_server import WRITE_TOKEN
from huggingface_hub import ModelCard

from speaker_encoder.hub.push import PushOptions, push_folder
from speaker_encoder.hub.upstream_forms import write_speechbrain_form, write_transformers_form
from speaker_encoder.training import TrainConfig
from speaker_encoder.training.build import build_model

EMBED = """
import sys, numpy as np
import speaker_encoder
from speaker_encoder.hub.check import embed_forms
import speaker_encoder.hub.check as check
kind, repository = sys.argv[1:3]
waveforms = list(np.load("utterances.npz").values())
forms = embed_forms(repository, kind, waveforms)
from transformers import AutoFeatureExtractor, AutoModel
model = AutoModel.from_pretrained(repository)
extractor = AutoFeatureExtractor.from_pretrained(repository)
rows = []
for waveform in waveforms:
    batch = extractor(waveform, sampling_rate=16000, return_tensors="pt")
    rows.append(model(**batch).embeddings[0].detach().numpy())
rows = np.stack(rows)
forms["AutoModel"] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
np.savez("found.npz", **forms)
"""
FORMS = {"ecapa": 4, "wavlm": 3, "dvector": 2}
UPSTREAM_FILES = {
    "ecapa": {
        "hyperparams.yaml",
        "embedding_model.ckpt",
        "mean_var_norm_emb.ckpt",
        "classifier.ckpt",
        "label_encoder.txt",
    },
    "wavlm": {
        "transformers/config.json",
        "transformers/model.safetensors",
        "transformers/preprocessor_config.json",
    },
    "dvector": set(),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ecapa", "wavlm", "dvector"])
def test_push_new_process_pull(hub, kind, make_encoder, utterances, run_python, tmp_path):
    encoder = make_encoder(kind)
    encoder.save_pretrained(tmp_path / "saved")
    outcome = push_folder(tmp_path / "saved", PushOptions("someone/mine", private=kind != "ecapa"))
    assert outcome.url == f"{hub.url}/someone/mine"
    assert len(outcome.differences) == FORMS[kind] - 1  # without AutoModel
    assert max(outcome.differences.values()) <= 1e-5
    repository = hub.repositories["someone/mine"]
    assert repository.private == (kind != "ecapa")  # SpeechBrain sends no token by itself
    files = repository.commits[-1].files
    own = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"}
    assert own | UPSTREAM_FILES[kind] <= set(files)
    assert not any(name.startswith("loss") for name in files)
    assert len(repository.commits) == 2  # the empty one, and one with everything

    np.savez(tmp_path / "utterances.npz", *utterances)
    run_python(EMBED, kind, "someone/mine")
    wanted = encoder.encode(utterances).numpy()
    with np.load(tmp_path / "found.npz") as found:
        assert len(found.files) == FORMS[kind]
        for form in found.files:
            assert np.abs(found[form] - wanted).max() <= 1e-5, form
    # Again without a server, from the cache.
    hub.stop()
    (tmp_path / "found.npz").unlink()
    run_python(EMBED, kind, "someone/mine", HF_HUB_OFFLINE="1")
    with np.load(tmp_path / "found.npz") as found:
        assert max(np.abs(found[form] - wanted).max() for form in found.files) <= 1e-5


def test_push_again_is_one_commit_more_and_without_what_is_stale(hub, make_encoder, unchecked):
    make_encoder("ecapa").push_to_hub("someone/mine")
    make_encoder("dvector").push_to_hub("someone/mine", token=WRITE_TOKEN)
    commits = hub.repositories["someone/mine"].commits
    assert len(commits) == 3
    text = commits[1].files["hyperparams.yaml"].decode()
    assert "\npretrained_path: someone/mine\n" in text and "speechbrain/spkrec" not in text
    assert "hyperparams.yaml" in commits[1].files and "hyperparams.yaml" not in commits[2].files
    assert json.loads(commits[2].files["config.json"])["encoder_kind"] == "dvector"


FOREIGN_CARD = b"""---
license: other
license_name: voices-1.0
license_link: LICENSE
---
"""


def _train(model_name: str, folder: Path, **changes: object) -> None:
    """Leaves in a folder what a run of no steps would."""
    config = TrainConfig(model_name=model_name, train_data_root="demo", **changes)
    encoder = build_model(config, num_speakers=2)
    encoder.save_pretrained(folder)
    (folder / "train_config.json").write_text(json.dumps(config.to_dict()))


@pytest.mark.parametrize("kind", ["ecapa", "wavlm"])
def test_second_generation_knows_base_and_license(
    hub, kind, make_encoder, unchecked, tmp_path, monkeypatch
):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    write = {"ecapa": write_speechbrain_form, "wavlm": write_transformers_form}
    write[kind](make_encoder(kind), tmp_path / "foreign")
    (tmp_path / "foreign" / "README.md").write_bytes(FOREIGN_CARD)
    files = {path.name: path.read_bytes() for path in (tmp_path / "foreign").iterdir()}
    hub.publish("other/encoder", files)

    generations = [("other/encoder", "someone/first"), ("someone/first", "someone/second")]
    for base, name in generations:
        _train(base, tmp_path / name)
        push_folder(tmp_path / name, PushOptions(name))
        pushed = hub.repositories[name].commits[-1].files
        data = ModelCard(pushed["README.md"].decode()).data
        assert (data.base_model, data.license) == (base, "other")
        assert data.license_name == "voices-1.0"
        assert data.license_link == "https://huggingface.co/other/encoder/blob/main/LICENSE"
        config = json.loads(pushed["config.json"])
        assert (config["base_model_name"], config["source_license_name"]) == (base, "voices-1.0")
        assert json.loads(pushed["train_config.json"])["model_name"] == base

    # Into the repository that it came from: that is not its base.
    _train("someone/first", tmp_path / "again", hub_model_id="someone/first", push_to_hub=True)
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert config["base_model_name"] == "other/encoder"


def test_license_of_a_user_stays_with_random_weights(
    hub, make_encoder, unchecked, tmp_path, monkeypatch
):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    encoder = make_encoder("dvector")
    encoder.config.base_model_name = None
    encoder.push_to_hub("someone/first", license="mit")
    assert encoder.config.source_license is None  # what is in memory stays as it is
    _train("someone/first", tmp_path / "second")
    push_folder(tmp_path / "second", PushOptions("someone/second"))
    card = hub.repositories["someone/second"].commits[-1].files["README.md"].decode()
    assert ModelCard(card).data.license == "mit"
    assert ModelCard(card).data.base_model == "someone/first"


def test_folder_of_a_relative_path_is_no_repository(
    hub, make_encoder, unchecked, tmp_path, monkeypatch
):
    """A push from elsewhere does not take "models/mine" for a repository's name."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    make_encoder("dvector").save_pretrained("models/mine")
    _train("models/mine", Path("run"))
    monkeypatch.chdir("elsewhere")
    push_folder("../run", PushOptions("someone/mine"))
    files = hub.repositories["someone/mine"].commits[-1].files
    assert not any(b"models/mine" in content for content in files.values())
    assert json.loads(files["train_config.json"])["model_name"] == "mine"


def test_figures_and_pictures_of_other_weights_stay_here(hub, make_encoder, unchecked, tmp_path):
    run = tmp_path / "run"
    for name in ("model", "checkpoint-1"):
        make_encoder("dvector").save_pretrained(run / name)
    measured = {"step": 2, "eer": 0.1, "eer_interval": [0.1, 0.2]}
    measured |= {"min_dcf": 0.1, "min_dcf_interval": [0.1, 0.2]}
    results = {"before": measured, "after": measured, "eer_difference_interval": [0.0, 0.1]}
    results |= dict.fromkeys(
        ("steps", "num_train_utterances", "num_train_speakers", "train_hours"), 1
    )
    results |= dict.fromkeys(("num_val_speakers", "num_targets", "num_nontargets"), 1)
    (run / "train_config.json").write_text("{}")
    (run / "results.json").write_text(json.dumps(results))
    (run / "plots").mkdir()
    for name in ("det", "interpolation", "val_umap_000002", "val_umap_000003"):
        (run / "plots" / f"{name}.png").write_bytes(name.encode())

    def pushed(folder: Path) -> dict[str, bytes]:
        push_folder(folder, PushOptions("someone/mine"))
        return hub.repositories["someone/mine"].commits[-1].files

    files = pushed(run)
    assert files["plots/umap.png"] == b"val_umap_000002" and files["plots/det.png"] == b"det"
    assert files["plots/interpolation.png"] == b"interpolation"
    assert b"](plots/interpolation.png)" in files["README.md"]
    assert b"| after | 2 |" in files["README.md"] and "results.json" in files
    files = pushed(run / "checkpoint-1")
    assert files["plots/umap.png"] == b"val_umap_000003"
    assert b"Embeddings of speakers at step 3, UMAP" in files["README.md"]
    assert b"Not measured" in files["README.md"]
    of_the_result = {"plots/det.png", "plots/interpolation.png", "results.json"}
    assert not of_the_result & set(files)  # nor that of the push before
    # Another program's file of this name.
    (run / "results.json").write_text(json.dumps({"before": 1, "after": 2, "eer": 0.5}))
    files = pushed(run)
    assert b"Not measured" in files["README.md"]
    assert not of_the_result & set(files)


@pytest.mark.slow
def test_stored_as_bfloat16(hub, make_encoder, utterances, run_python, tmp_path):
    encoder = make_encoder("wavlm")
    encoder.push_to_hub("someone/half", dtype="bfloat16")
    encoder.save_pretrained(tmp_path / "full")
    size = len(hub.repositories["someone/half"].commits[-1].files["model.safetensors"])
    assert size < 0.6 * (tmp_path / "full" / "model.safetensors").stat().st_size
    np.savez(tmp_path / "utterances.npz", *utterances)
    run_python(EMBED, "wavlm", "someone/half")
    wanted = encoder.encode(utterances).numpy()
    with np.load(tmp_path / "found.npz") as found:
        for form in found.files:
            distance = 1 - (found[form] * wanted).sum(axis=1)
            assert 0 < distance.max() < 1e-2, form


SPEECHBRAIN_PRIVATE = """
import numpy as np, torch
import speaker_encoder
from speechbrain.inference import EncoderClassifier
from speechbrain.utils.fetching import FetchConfig
model = EncoderClassifier.from_hparams(
    source="someone/mine", savedir="savedir", fetch_config=FetchConfig(token=True)
)
waveform = torch.from_numpy(np.load("utterances.npz")["arr_0"])
np.save("found.npy", model.encode_batch(waveform[None])[0].numpy())
print(model.hparams.pretrained_path, model.classify_batch(waveform[None])[3])
"""


@pytest.mark.slow
def test_private_repository_through_speechbrain(
    hub, make_encoder, utterances, run_python, tmp_path, unchecked
):
    encoder = make_encoder("ecapa")
    encoder.push_to_hub("someone/mine", private=True)
    np.savez(tmp_path / "utterances.npz", *utterances)
    said = run_python(SPEECHBRAIN_PRIVATE)
    assert "someone/mine ['unknown']" in said
    found = np.load(tmp_path / "found.npy")
    found /= np.linalg.norm(found)
    assert np.abs(found - encoder.encode(utterances[:1]).numpy()).max() <= 1e-5
