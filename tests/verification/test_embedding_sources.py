"""Embeddings are read back from every form that the exporter writes."""

import shutil

import numpy as np
import pytest

from speaker_encoder.errors import UserError
from speaker_encoder.export import ExportOptions, embed_corpus
from speaker_encoder.export.formats import FORMATS
from speaker_encoder.verification.sources import read_embeddings

TINY = {"channels": [16, 16, 16, 16, 48], "attention_channels": 8, "lin_neurons": 512}


@pytest.fixture(scope="module")
def exported(tmp_path_factory, data_dir):
    """LibriTTS exported once in every form: elsewhere, and as single files beside the audio."""
    import torch

    from speaker_encoder import SpeakerEncoder

    torch.manual_seed(1)
    encoder = SpeakerEncoder.from_name("ecapa", pretrained=False, encoder_config=TINY)
    encoder.config.untrained_head = False
    folder = tmp_path_factory.mktemp("exported")
    root = folder / "LibriTTS"
    shutil.copytree(data_dir / "libritts", root, ignore=shutil.ignore_patterns("*.npz", "*.txt"))
    for formats, output_dir in ((tuple(FORMATS), folder / "out"), (("pt",), None)):
        options = ExportOptions(
            "ecapa", str(root), formats=formats, show_progress=False,
            output_dir=None if output_dir is None else str(output_dir),
        )  # fmt: skip
        assert embed_corpus(options, encoder=encoder).exit_code == 0
    return root, folder / "out"


FILES = {
    "ecapa_parquet/utterances.parquet": "full",
    "ecapa_safetensors/embeddings.safetensors": "full",
    "ecapa_coqui/speakers.pth": "full",
    "ecapa_kaldi/xvector.scp": "short",
    "ecapa_cosyvoice/utt2embedding.pt": "short",
    "ecapa_speecht5/validation.parquet": "flat",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("is_folder", [False, True])
def test_every_table_gives_the_same(exported, name, is_folder):
    root, out = exported
    wanted = read_embeddings(root)
    assert len(wanted) == 48 and wanted.embeddings.shape == (48, 512)
    assert wanted.embeddings.dtype == np.float32
    stored = read_embeddings((out / name).parent if is_folder else out / name)
    as_named = {
        "full": lambda text: text,
        "short": lambda text: text.rsplit("/", 1)[-1],
        "flat": lambda text: text.replace("/", "-"),
    }[FILES[name]]
    found = dict(zip(stored.utterance_ids, stored.embeddings, strict=True))
    assert sorted(found) == sorted(map(as_named, wanted.utterance_ids))
    for utterance_id, vector in zip(wanted.utterance_ids, wanted.embeddings, strict=True):
        assert np.array_equal(found[as_named(utterance_id)], vector)
    if "cosyvoice" in name or "speecht5" in name:
        assert stored.speaker_ids is None
    else:
        speaker_of = dict(zip(stored.utterance_ids, stored.speaker_ids, strict=True))
        for utterance_id in wanted.utterance_ids:
            assert speaker_of[as_named(utterance_id)] == utterance_id.split("/")[0]


def test_files_beside_the_audio_tell_speakers_and_audio(exported):
    root, _ = exported
    stored = read_embeddings(root)
    assert sorted(set(stored.speaker_ids)) == ["8887", "9022", "9023", "9026"]
    for utterance_id, path in zip(stored.utterance_ids, stored.paths, strict=True):
        assert path == str(root / f"{utterance_id}.wav")


def test_single_files_elsewhere_have_no_audio(exported, tmp_path):
    root, out = exported
    shutil.copytree(out, tmp_path / "single", ignore=shutil.ignore_patterns("ecapa_*", ".emb*"))
    for pattern in ("*.ecapa_embedding", "*.ecapa_embedding.npy"):
        stored = read_embeddings(tmp_path / "single")
        assert stored.paths is None and len(set(stored.speaker_ids)) == 4
        assert np.array_equal(stored.embeddings, read_embeddings(root).embeddings)
        for path in (tmp_path / "single").rglob(pattern):
            path.unlink()


def test_the_output_folder_of_all_forms_is_read_by_the_one_that_tells_most(exported):
    _, out = exported
    stored = read_embeddings(out)
    assert stored.paths is not None and stored.paths[0].endswith(".wav")


def test_a_moved_kaldi_folder_is_read(exported, tmp_path):
    _, out = exported
    shutil.copytree(out / "ecapa_kaldi", tmp_path / "moved")
    scp = (tmp_path / "moved" / "xvector.scp").read_text()
    (tmp_path / "moved" / "xvector.scp").write_text(scp.replace(str(out), "/nowhere"))
    assert len(read_embeddings(tmp_path / "moved")) == 48


def test_several_models_must_be_told_apart(exported, tmp_path):
    _, out = exported
    for tag in ("ecapa", "other"):
        shutil.copytree(out / "ecapa_parquet", tmp_path / f"{tag}_parquet")
    with pytest.raises(UserError, match=r"of several models: ecapa, other. Name one, as .*:ecapa"):
        read_embeddings(tmp_path)
    assert len(read_embeddings(f"{tmp_path}:other")) == 48
    with pytest.raises(UserError, match="holds no embeddings of 'third'; of ecapa, other"):
        read_embeddings(f"{tmp_path}:third")


def test_the_reference_archive_is_read(data_dir):
    stored = read_embeddings(data_dir / "libritts" / "ecapa_voxceleb_embeddings.npz")
    assert stored.embeddings.shape == (48, 192) and len(stored.paths) == 48


def test_what_cannot_be_read_is_named(exported, tmp_path):
    root, out = exported
    with pytest.raises(UserError, match="no such file or folder"):
        read_embeddings(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"holds no embeddings. Wanted what"):
        read_embeddings(tmp_path)
    (tmp_path / "some.txt").write_text("x")
    with pytest.raises(UserError, match="is no file of embeddings that is known here"):
        read_embeddings(tmp_path / "some.txt")
    with pytest.raises(UserError, match="holds one embedding"):
        read_embeddings(next(root.rglob("*.ecapa_embedding")))
    for name in FILES:
        damaged = tmp_path / "damaged" / name
        damaged.parent.mkdir(parents=True)
        damaged.write_bytes((out / name).read_bytes()[:100])
        with pytest.raises(UserError, match="Cannot read embeddings from"):
            read_embeddings(damaged)


def test_embeddings_that_are_not_finite_are_refused(tmp_path):
    embeddings = np.ones((3, 4), dtype=np.float32)
    embeddings[1, 2] = np.nan
    np.savez(tmp_path / "x.npz", embeddings=embeddings, utterance_ids=["a", "b", "c"])
    with pytest.raises(UserError, match=r"1 of 3 embeddings .* not finite, the first of 'b'"):
        read_embeddings(tmp_path / "x.npz")
