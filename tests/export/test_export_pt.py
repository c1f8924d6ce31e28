"""The original's files: what lies where, and what is in them."""

import importlib.util
import json
import shutil
import sys
import zipfile

import numpy as np
import pytest
import soundfile
import torch

from speaker_encoder import SpeakerEncoder
from speaker_encoder.errors import UserError

EXTENSION = ".ecapa_embedding"


def read_vector(path) -> np.ndarray:
    return torch.load(path, weights_only=True)[0].numpy()


def test_files_have_the_names_and_form_of_the_original(libritts, data_dir, export):
    outcome = export(libritts, dataset_name="LibriTTS")
    assert (outcome.exit_code, outcome.num_utterances, outcome.num_speakers) == (0, 48, 4)
    wavs = sorted(libritts.rglob("*.wav"))
    for wav in wavs:
        tensor = torch.load(wav.with_suffix(EXTENSION), weights_only=True)
        assert tensor.shape == (1, 24) and tensor.dtype == torch.float32
        assert tensor.device.type == "cpu" and not tensor.requires_grad
        assert float(tensor.norm()) == pytest.approx(1, abs=1e-6)
    originals = sorted((data_dir / "original_embeddings").rglob("*_embedding"))
    assert len(originals) == 6
    for path in originals:
        original = torch.load(path, weights_only=True, map_location="cpu")
        assert (original.ndim, original.shape[0], original.dtype) == (2, 1, torch.float32)
    ours = libritts / "8887" / "8887.ecapa_averaged_embedding"
    assert next(p.name for p in originals if "averaged" in p.name) == ours.name
    rows = [read_vector(p) for p in sorted((libritts / "8887").rglob(f"*{EXTENSION}"))]
    assert len(rows) == 12
    np.testing.assert_allclose(read_vector(ours), np.mean(rows, axis=0), atol=1e-7)
    assert np.linalg.norm(read_vector(ours)) < 0.9999


def test_a_file_holds_plain_cpu_storage(libritts, export):
    export(libritts)
    path = next(libritts.rglob(f"*{EXTENSION}"))
    with zipfile.ZipFile(path) as archive:
        pickle = archive.read(next(n for n in archive.namelist() if n.endswith("data.pkl")))
    assert b"cuda" not in pickle and b"FloatStorage" in pickle


def test_vctk_with_the_published_arguments(vctk, run_command):
    done = run_command(vctk, "--dataset_name", "VCTK", launcher=(sys.executable,))
    assert done.returncode == 0, done.stderr
    speaker = vctk / "wav48_silence_trimmed" / "p225"
    assert read_vector(speaker / "p225.ecapa_averaged_embedding").shape == (24,)
    assert len(list(speaker.glob(f"*{EXTENSION}"))) == 10
    assert "40 utterances of 4 speakers" in done.stdout


@pytest.mark.parametrize("batch_seconds", [0.0, 12.0])
def test_every_embedding_equals_encode_alone(libritts, encoder_dir, export, batch_seconds):
    outcome = export(libritts, batch_seconds=batch_seconds, num_workers=1 if batch_seconds else 0)
    report = json.loads(outcome.report_path.read_text())["this_run"]
    assert report["padding_share"] <= 0.05
    assert (report["batches"] < 48) == bool(batch_seconds)
    encoder = SpeakerEncoder.from_pretrained(encoder_dir)
    for wav in sorted(libritts.rglob("*.wav")):
        alone = encoder.encode(wav)[0].numpy()
        assert np.abs(alone - read_vector(wav.with_suffix(EXTENSION))).max() <= 1e-5


def test_a_real_pretrained_encoder_tells_speakers_apart_and_names_a_mislabelled_file(
    libritts, export
):
    if importlib.util.find_spec("resemblyzer") is None:
        pytest.skip("the package resemblyzer, which ships a real encoder, is not installed")
    stray = next((libritts / "9022").rglob("*.wav"))
    target = libritts / "8887" / "281471" / "8887_281471_999999_000000.wav"
    shutil.copy(stray, target)
    outcome = export(libritts, model_name="dvector", checkpoint=None, average="robust")
    report = json.loads(outcome.report_path.read_text())["speakers"]["8887"]
    assert report["least_similar"][0]["utterance"].endswith("8887_281471_999999_000000")
    assert [row["utterance"] for row in report["outliers"]] == [
        "8887/281471/8887_281471_999999_000000"
    ]
    assert report["num_utterances"] == 13 and 0 < report["dispersion"] < 0.5
    rows = [
        read_vector(path)
        for path in sorted((libritts / "8887").rglob("*.dvector_embedding"))
        if "999999" not in path.name
    ]
    averaged = read_vector(libritts / "8887" / "8887.dvector_averaged_embedding")
    np.testing.assert_allclose(averaged, np.mean(rows, axis=0), atol=1e-6)


def test_output_dir_mirrors_the_tree_and_leaves_the_corpus_alone(libritts, tmp_path, export):
    before = sorted(libritts.rglob("*"))
    out = tmp_path / "out"
    export(libritts, output_dir=str(out))
    assert sorted(libritts.rglob("*")) == before
    wav = next(libritts.rglob("*.wav")).relative_to(libritts)
    assert (out / wav).with_suffix(EXTENSION).is_file()
    assert (out / "8887" / "8887.ecapa_averaged_embedding").is_file()


def test_manifest_says_what_the_embeddings_are_and_nothing_of_the_machine(
    libritts, encoder_dir, export
):
    export(libritts, trim_silence="energy", average="normalized")
    text = (libritts / "embeddings.manifest.json").read_text()
    entry = json.loads(text)["models"]["ecapa"]
    assert entry["model"]["sampling_rate"] == 16000
    assert len(entry["model"]["weights_sha256"]) == 64
    assert entry["embedding"]["trim_silence"] == "energy"
    assert entry["speakers"]["average"] == "normalized"
    assert entry["counts"]["utterances"] == 48 and entry["failures"] == []
    assert entry["packages"]["torch"] == torch.__version__
    assert str(libritts) not in text and str(encoder_dir.parent) not in text
    average = read_vector(libritts / "8887" / "8887.ecapa_averaged_embedding")
    assert np.linalg.norm(average) == pytest.approx(1, abs=1e-6)


def test_windows_give_the_normalised_mean_of_the_windows(libritts, encoder_dir, export):
    export(libritts, windows_seconds=1.0, hop_seconds=0.5)
    encoder = SpeakerEncoder.from_pretrained(encoder_dir)
    wav = next(libritts.rglob("*.wav"))
    from speaker_encoder.audio import read_audio

    waveform = read_audio(wav, 16000)
    starts = [*range(0, len(waveform) - 16000, 8000), len(waveform) - 16000]
    rows = encoder.encode([waveform[start : start + 16000] for start in starts])
    mean = rows.mean(0)
    difference = (mean / mean.norm()).numpy() - read_vector(wav.with_suffix(EXTENSION))
    assert np.abs(difference).max() <= 1e-5


def test_lengths_that_are_not_wanted_are_left_out_and_counted(libritts, export):
    outcome = export(libritts, min_seconds=3.0, max_seconds=4.0)
    report = json.loads(outcome.report_path.read_text())
    assert outcome.exit_code == 0
    left_out = report["counts"]["left_out"]
    assert sum(left_out.values()) == 48 - outcome.num_utterances
    assert set(left_out) == {"shorter than 3 s", "longer than 4 s"}
    with pytest.raises(UserError, match=r"No utterance of .* is between 100 and inf s"):
        export(libritts, min_seconds=100.0)


def test_trimming_changes_the_embedding_of_what_has_silence(tmp_path, libritts, export):
    speech, rate = soundfile.read(next(libritts.rglob("*.wav")), dtype="float32")
    root = tmp_path / "padded"
    for name, silence in (("ann", 0), ("bob", rate)):
        (root / name).mkdir(parents=True)
        padded = np.concatenate([np.zeros(silence, np.float32), speech * 0.9])
        soundfile.write(root / name / "a.wav", padded, rate)
    distance = {}
    for method in ("off", "energy", "vad"):
        out = tmp_path / method
        export(root, trim_silence=method, output_dir=str(out))
        rows = [read_vector(out / name / f"a{EXTENSION}") for name in ("ann", "bob")]
        distance[method] = float(np.abs(rows[0] - rows[1]).max())
    assert distance["energy"] < distance["off"] / 5 and distance["vad"] < distance["off"]


def test_bfloat16_is_near_and_written_as_float32(libritts, tmp_path, export):
    export(libritts)
    export(libritts, dtype="bfloat16", output_dir=str(tmp_path / "half"))
    for path in list(libritts.rglob(f"*{EXTENSION}"))[:5]:
        half = torch.load(tmp_path / "half" / path.relative_to(libritts), weights_only=True)
        assert half.dtype == torch.float32
        assert float(half[0] @ torch.load(path, weights_only=True)[0]) > 0.99


def test_dry_run_writes_nothing(libritts, export):
    before = sorted(libritts.rglob("*"))
    outcome = export(libritts, dry_run=True)
    assert "48 utterances of 4 speakers, layout libritts; 48 to embed" in outcome.message
    assert sorted(libritts.rglob("*")) == before


def test_the_number_of_threads_changes_no_bit(libritts, tmp_path, export, embeddings_of):
    num_threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            export(libritts, output_dir=str(tmp_path / str(count)))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(num_threads)
    assert embeddings_of(tmp_path / "1") == embeddings_of(tmp_path / "3")


def test_a_hub_id_as_the_checkpoint(vctk, export, encoder_dir, embeddings_of, monkeypatch):
    """From the Hub's own cache, as it is after a download, without a network."""
    import huggingface_hub

    cache = vctk.parent / "hub"
    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = cache / "models--someone--encoder"
    shutil.copytree(encoder_dir, repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    export(vctk, output_dir=str(vctk.parent / "hub_id"), checkpoint="someone/encoder")
    export(vctk, output_dir=str(vctk.parent / "folder"))
    found = embeddings_of(vctk.parent / "hub_id")
    assert len(found) == 44 and found == embeddings_of(vctk.parent / "folder")
