"""The map to the pretrained encoder's space goes to the Hub and comes back with the model."""

import numpy as np
import pytest
from scipy.stats import ortho_group

from speaker_encoder import SpeakerEncoder, UserError
from speaker_encoder.export import ExportOptions, PretrainedSpace, embed_corpus, load_space
from speaker_encoder.export.model import weights_digest
from speaker_encoder.hub.push import PushOptions, push_folder
from speaker_encoder.verification.sources import read_embeddings

NAME = "pretrained_space.safetensors"


@pytest.fixture
def saved(make_encoder, tmp_path, monkeypatch):
    """A model folder with a map."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SPEAKER_ENCODER_CACHE", str(tmp_path / "own_cache"))
    make_encoder("dvector").save_pretrained(tmp_path / "saved")
    digest = weights_digest(SpeakerEncoder.from_pretrained(tmp_path / "saved"))
    rotation = ortho_group.rvs(24, random_state=0).astype(np.float32)
    PretrainedSpace(rotation, digest, "0" * 64).save(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_map_is_pushed_pulled_and_used(
    hub, unchecked, saved, utterances, dtype, tmp_path, data_dir
):
    outcome = push_folder(saved, PushOptions("someone/mine", dtype=dtype))
    assert NAME in outcome.files
    files = hub.repositories["someone/mine"].commits[-1].files
    assert 'load_space("someone/mine", encoder)' in files["README.md"].decode()
    pulled = SpeakerEncoder.from_pretrained("someone/mine")
    space = load_space("someone/mine", pulled)
    there = load_space(saved, SpeakerEncoder.from_pretrained(saved))
    assert np.array_equal(space.rotation, there.rotation)
    rows = pulled.encode(utterances).numpy()
    np.testing.assert_allclose(space.map(rows), rows @ there.rotation, atol=1e-6)

    speaker = next(path for path in sorted((data_dir / "libritts").iterdir()) if path.is_dir())
    for name, options in {"own": {}, "mapped": {"space": "pretrained"}}.items():
        target = str(tmp_path / name)
        embed_corpus(ExportOptions("someone/mine", str(speaker), output_dir=target, **options))
    own, mapped = (read_embeddings(tmp_path / name).embeddings for name in ("own", "mapped"))
    np.testing.assert_allclose(mapped, own @ there.rotation, atol=1e-6)


def test_a_model_without_a_map_takes_the_old_one_away(hub, unchecked, saved, make_encoder):
    digest = weights_digest(SpeakerEncoder.from_pretrained(saved))
    PretrainedSpace(np.eye(24, dtype=np.float32), digest, digest).save(saved)
    assert NAME in push_folder(saved, PushOptions("someone/mine")).files
    files = hub.repositories["someone/mine"].commits[-1].files
    assert "load_space" not in files["README.md"].decode()  # it is the pretrained one itself
    (saved / NAME).unlink()
    assert NAME not in push_folder(saved, PushOptions("someone/mine")).files
    files = hub.repositories["someone/mine"].commits[-1].files
    assert NAME not in files
    assert "load_space" not in files["README.md"].decode()


def test_a_map_of_other_weights_is_not_pushed(hub, saved, make_encoder):
    make_encoder("dvector", seed=12).save_pretrained(saved)  # the map of before stays there
    with pytest.raises(UserError, match="belongs to other weights"):
        push_folder(saved, PushOptions("someone/mine"))
    assert "someone/mine" not in hub.repositories
