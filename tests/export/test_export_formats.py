"""Each format is read as its users read it."""

import json
import pickle

import numpy as np
import pytest
import torch
from tiny_encoders import make_tiny

from speaker_encoder.errors import UserError
from speaker_encoder.export import ExportOptions, embed_corpus
from speaker_encoder.export.formats import FORMATS

ALL_BUT_SPEECHT5 = tuple(name for name in FORMATS if name != "speecht5")


@pytest.fixture
def exported(request, libritts, vctk, export):
    root = {"libritts": libritts, "vctk": vctk}[request.param]
    export(root, formats=ALL_BUT_SPEECHT5, dataset_name={"vctk": "VCTK"}.get(request.param, "auto"))
    files = {
        path.with_suffix("").relative_to(root).as_posix(): torch.load(path, weights_only=True)[0]
        for path in root.rglob("*.ecapa_embedding")
    }
    speakers = {
        path.name.split(".")[0]: torch.load(path, weights_only=True)[0]
        for path in root.rglob("*.ecapa_averaged_embedding")
    }
    return root, files, speakers


both = pytest.mark.parametrize("exported", ["libritts", "vctk"], indirect=True)


@both
def test_every_format_holds_the_same_embeddings(exported):
    root, files, speakers = exported
    check_npy(root, files)
    check_safetensors(root, files, speakers)
    check_parquet(root, files, speakers)
    check_kaldi(root, files, speakers)
    check_coqui(root, files)
    check_cosyvoice(root, files, speakers)


def check_npy(root, files):
    for name, vector in files.items():
        array = np.load(root / f"{name}.ecapa_embedding.npy")
        assert array.shape == (24,) and np.array_equal(array, vector.numpy())


def check_safetensors(root, files, speakers):
    from safetensors import safe_open

    with safe_open(root / "ecapa_safetensors" / "embeddings.safetensors", "pt") as file:
        metadata = json.loads(file.metadata()["ids"])
        utterances, averages = file.get_tensor("utterances"), file.get_tensor("speakers")
    assert metadata["utterance_ids"] == sorted(files)
    assert metadata["speaker_ids"] == sorted(speakers)
    assert set(metadata["speaker_of_utterance"]) == set(speakers)
    for row, name in zip(utterances, metadata["utterance_ids"], strict=True):
        assert torch.equal(row, files[name])
    for row, name in zip(averages, metadata["speaker_ids"], strict=True):
        assert torch.equal(row, speakers[name])


def check_parquet(root, files, speakers):
    from datasets import load_dataset

    def load(name):
        path = str(root / "ecapa_parquet" / name)
        cache = str(root / "hf_cache")
        return load_dataset("parquet", data_files=path, split="train", cache_dir=cache)

    rows = load("utterances.parquet")
    assert rows.column_names == ["utterance_id", "speaker_id", "path", "embedding"]
    assert len(rows) == len(files)
    for row in rows:
        assert np.array_equal(np.float32(row["embedding"]), files[row["utterance_id"]].numpy())
        assert (root / row["path"]).is_file() and row["speaker_id"] in speakers
    averages = load("speakers.parquet")
    assert averages["speaker_id"][:] == sorted(speakers)


def check_kaldi(root, files, speakers):
    kaldiio = pytest.importorskip("kaldiio", reason="pip install kaldiio")
    folder = root / "ecapa_kaldi"
    by_stem = {name.rsplit("/", 1)[-1]: vector for name, vector in files.items()}
    utterances = kaldiio.load_scp(str(folder / "xvector.scp"))
    assert list(utterances) == sorted(by_stem)
    for key, vector in utterances.items():
        assert np.array_equal(vector, by_stem[key].numpy())
    for key, vector in kaldiio.load_ark(str(folder / "spk_xvector.ark")):
        assert np.array_equal(vector, speakers[key].numpy())
    utt2spk = dict(line.split() for line in (folder / "utt2spk").read_text().splitlines())
    assert sorted(utt2spk) == sorted(by_stem) and set(utt2spk.values()) == set(speakers)


def check_coqui(root, files):
    """As TTS.tts.utils.managers.EmbeddingManager reads d_vector_file."""
    embeddings = torch.load(root / "ecapa_coqui" / "speakers.pth", weights_only=True)
    label = "VCTK" if "VCTK" in root.name else "libritts"
    assert set(embeddings) == {f"{label}#{name}" for name in files}
    speakers = sorted({entry["name"] for entry in embeddings.values()})
    assert len(speakers) == 4
    assert len(embeddings[next(iter(embeddings))]["embedding"]) == 24
    for name in speakers:
        mine = [np.array(e["embedding"]) for e in embeddings.values() if e["name"] == name]
        assert np.stack(mine).mean(0).shape == (24,)
    for key, entry in embeddings.items():
        assert np.array_equal(np.float32(entry["embedding"]), files[key.split("#")[1]].numpy())


def check_cosyvoice(root, files, speakers):
    """As CosyVoice's tools/make_parquet_list.py reads them."""
    utt2embedding = torch.load(root / "ecapa_cosyvoice" / "utt2embedding.pt")
    spk2embedding = torch.load(root / "ecapa_cosyvoice" / "spk2embedding.pt")
    for name, vector in files.items():
        assert np.array_equal(np.float32(utt2embedding[name.rsplit("/", 1)[-1]]), vector.numpy())
    assert {name: len(row) for name, row in spk2embedding.items()} == dict.fromkeys(speakers, 24)
    assert pickle.dumps(utt2embedding)


def test_a_fastspeech2_style_dataset_gets_a_vector(libritts, export):
    """As the consumer of the original does: torch.load(path)[0], by utterance and by speaker."""
    export(libritts)
    name = sorted(libritts.rglob("*.wav"))[0].stem
    speaker, chapter = name.split("_")[:2]
    for path in (
        libritts / speaker / f"{speaker}.ecapa_averaged_embedding",
        libritts / speaker / chapter / f"{name}.ecapa_embedding",
    ):
        embedding = torch.load(path, map_location="cpu")[0]
        projected = torch.nn.Linear(24, 64)(embedding)
        assert embedding.shape == (24,) and projected.shape == (64,)


def test_speecht5_reads_its_x_vectors(libritts, make_512, tmp_path):
    outcome = embed_corpus(
        ExportOptions("ecapa", str(libritts), checkpoint=str(make_512), formats=("speecht5",)),
    )
    assert outcome.exit_code == 0
    from datasets import load_dataset

    folder = str(libritts / "ecapa_speecht5")
    rows = load_dataset(folder, split="validation", cache_dir=str(tmp_path / "hf"))
    embeddings = torch.tensor(rows[0]["xvector"]).unsqueeze(0)
    assert embeddings.shape == (1, 512) and len(rows) == 48
    assert rows[0]["filename"].startswith("8887-281471-8887_281471_")


@pytest.fixture
def make_512(tmp_path):
    make_tiny(1, lin_neurons=512).save_pretrained(tmp_path / "wide")
    return tmp_path / "wide"


def test_speecht5_refuses_other_dimensions_before_anything_is_written(libritts, export):
    with pytest.raises(UserError, match="512-dimensional x-vectors; this encoder gives 24"):
        export(libritts, formats=("speecht5",))
    assert not list(libritts.rglob("*embedding*.json"))


def test_a_format_added_later_is_written_without_computing_again(libritts, export):
    export(libritts)
    outcome = export(libritts, formats=("npy", "kaldi"))
    assert outcome.num_computed == 0
    assert len(list(libritts.rglob("*.ecapa_embedding.npy"))) == 48
    assert (libritts / "ecapa_kaldi" / "xvector.scp").is_file()


def test_same_names_in_different_folders_do_not_collide(tmp_path, data_dir, export):
    import shutil

    root = tmp_path / "corpus"
    for number, wav in enumerate(sorted((data_dir / "libritts").rglob("*.wav"))[:4]):
        target = root / "ab"[number // 2] / f"{'xy'[number % 2]}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(wav, target)
    export(root, formats=("pt", "cosyvoice", "coqui", "kaldi"))
    utterances = torch.load(root / "ecapa_cosyvoice" / "utt2embedding.pt")
    assert sorted(utterances) == ["a-x", "a-y", "b-x", "b-y"]
    coqui = torch.load(root / "ecapa_coqui" / "speakers.pth")
    assert sorted(coqui) == ["folders#a/x", "folders#a/y", "folders#b/x", "folders#b/y"]
    assert len((root / "ecapa_kaldi" / "xvector.scp").read_text().splitlines()) == 4
    assert len(list(root.rglob("?.ecapa_embedding"))) == 4
