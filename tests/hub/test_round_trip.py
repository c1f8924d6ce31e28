"""Pushed by the real client over HTTP, pulled by a new process, in our form and upstream's."""

import json

import numpy as np
import pytest
from hub_server import WRITE_TOKEN

from speaker_encoder.hub.push import PushOptions, push_folder

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
