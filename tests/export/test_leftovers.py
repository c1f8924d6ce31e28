"""What earlier runs left: files of another model or of older audio are renewed or removed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from speaker_encoder.errors import UserError
from speaker_encoder.export import ExportOptions, embed_corpus
from speaker_encoder.export.source import FailedFile, open_source

BOTH = ("pt", "npy")


def difference(root):
    """The largest between the two formats of any utterance or speaker."""
    pairs = [
        (path, path.with_name(f"{path.name}.npy")) for path in root.rglob("*.ecapa_*embedding")
    ]
    assert len(pairs) == 52
    return max(
        float(np.abs(torch.load(pt, weights_only=True)[0].numpy() - np.load(npy)).max())
        for pt, npy in pairs
    )


def test_no_format_keeps_the_embeddings_of_another_model(libritts, other_encoder_dir, export):
    export(libritts, formats=BOTH)
    other = {"checkpoint": str(other_encoder_dir)}
    export(libritts, overwrite=True, **other)
    assert not list(libritts.rglob("*.npy"))
    assert export(libritts, formats=BOTH, **other).num_computed == 0
    assert difference(libritts) == 0


@pytest.mark.parametrize("formats", [BOTH, ("npy",)])
def test_a_format_asked_for_again_is_of_the_audio_as_it_is_now(libritts, export, formats):
    export(libritts, formats=BOTH)
    wav = next(libritts.rglob("*.wav"))
    speech, rate = soundfile.read(wav)
    soundfile.write(wav, speech[: rate * 2], rate)
    export(libritts)
    assert difference(libritts) > 1e-3
    assert export(libritts, formats=formats).num_computed == 0
    assert difference(libritts) == 0


def test_a_file_of_other_content_is_written_again_and_no_other(libritts, export):
    export(libritts)
    first, *others = sorted(libritts.rglob("*.ecapa_embedding"))
    content, times = first.read_bytes(), [path.stat().st_mtime_ns for path in others]
    shutil.copy(others[0], first)
    export(libritts)
    assert first.read_bytes() == content
    assert [path.stat().st_mtime_ns for path in others] == times


@pytest.mark.parametrize("is_beside", [True, False])
def test_what_another_model_made_goes_where_this_one_makes_nothing(
    libritts, tmp_path, other_encoder_dir, export, is_beside
):
    out = libritts if is_beside else tmp_path / "out"
    place = {} if is_beside else {"output_dir": str(out)}
    export(libritts, formats=("pt", "npy", "kaldi", "safetensors"), **place)
    short, silent, broken, *_ = sorted((libritts / "8887").rglob("*.wav"))
    soundfile.write(short, np.ones(8000, np.float32), 16000)
    soundfile.write(silent, np.zeros(32000, np.float32), 16000)
    broken.write_bytes(b"RIFF, and no more")
    for wav in (libritts / "9022").rglob("*.wav"):
        soundfile.write(wav, np.ones(8000, np.float32), 16000)
    outcome = export(
        libritts, checkpoint=str(other_encoder_dir), overwrite=True, min_seconds=0.6,
        formats=("pt", "safetensors"), trim_silence="energy", **place,
    )  # fmt: skip
    assert (outcome.exit_code, outcome.num_utterances) == (3, 33)
    assert not list(out.rglob("*.npy"))
    for wav in (short, silent, broken):
        gone = (out / wav.relative_to(libritts)).with_suffix(".ecapa_embedding")
        assert not gone.exists()
    assert len(list(out.rglob("*.ecapa_embedding"))) == 33
    assert not list((out / "9022").rglob("*embedding*"))
    assert (out / "8887" / "8887.ecapa_averaged_embedding").is_file()
    assert not (out / "ecapa_kaldi").exists()
    assert (out / "ecapa_safetensors" / "embeddings.safetensors").is_file()


def test_only_what_this_model_name_wrote_of_this_corpus_is_removed(
    libritts, other_encoder_dir, export
):
    wav = next((libritts / "8887").rglob("*.wav"))
    aside = libritts.parent / wav.name
    wav.rename(aside)
    export(libritts, formats=("pt", "kaldi"))
    export(libritts, model_name="second")
    aside.rename(wav)
    soundfile.write(wav, np.zeros(100, np.float32), 16000)
    own = [
        wav.with_suffix(".ecapa_embedding"),  # of an utterance that was never embedded
        wav.with_name("notes.ecapa_embedding.npy"),
        libritts / "mine.ecapa_averaged_embedding",
        libritts / "ecapa_kaldi" / "notes.txt",
        libritts / "ecapa_parquet" / "utterances.parquet",
    ]
    for path in own:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    seconds = {path: path.read_bytes() for path in libritts.rglob("*.second_*embedding")}
    assert len(seconds) == 51
    outcome = export(libritts, checkpoint=str(other_encoder_dir), overwrite=True)
    assert outcome.num_utterances == 47
    assert [path.read_text() for path in own] == ["mine"] * 5
    assert [path.name for path in (libritts / "ecapa_kaldi").iterdir()] == ["notes.txt"]
    assert {path: path.read_bytes() for path in seconds} == seconds


def test_a_recording_that_is_no_longer_one_loses_its_embedding(libritts, export):
    lonely = libritts / "9999" / "1" / "9999_1_000000.wav"
    lonely.parent.mkdir(parents=True)
    shutil.copy(next(libritts.rglob("*.wav")), lonely)
    export(libritts, formats=BOTH)
    broken = next((libritts / "8887").rglob("*.wav"))
    broken.write_bytes(b"RIFF, and no more")
    soundfile.write(lonely, np.zeros(100, np.float32), 16000)
    assert export(libritts).exit_code == 3
    assert not list(broken.parent.glob(f"{broken.stem}.ecapa*"))
    assert not list((libritts / "9999").rglob("*.ecapa_*"))
    assert len(list(libritts.rglob("*.ecapa_*embedding"))) == 47 + 4


@pytest.mark.parametrize("is_beside", [True, False])
def test_a_speaker_whose_recordings_are_all_broken_loses_its_embedding(
    libritts, tmp_path, export, is_beside
):
    out = libritts if is_beside else tmp_path / "out"
    place = {} if is_beside else {"output_dir": str(out)}
    export(libritts, formats=BOTH, **place)
    for wav in (libritts / "9022").rglob("*.wav"):
        wav.write_bytes(b"RIFF, and no more")
    outcome = export(libritts, **place)
    assert (outcome.exit_code, len(outcome.failures)) == (3, 12)
    assert not list((out / "9022").rglob("*.ecapa_*"))
    assert len(list(out.rglob("*.ecapa_*embedding"))) == 36 + 3


def test_a_failure_of_the_name_of_another_does_not_take_its_embedding(libritts, encoder_dir):
    options = ExportOptions("ecapa", str(libritts), checkpoint=str(encoder_dir))
    embed_corpus(options)
    source = open_source(options)
    twin = Path(source.items[0].relative_path).with_suffix(".flac")
    source.failures.append(FailedFile(str(twin), "empty file"))
    assert embed_corpus(options, source=source).exit_code == 3
    assert (libritts / twin).with_suffix(".ecapa_embedding").is_file()


def test_the_manifest_names_the_tables_of_all_runs(libritts, export):
    export(libritts, formats=("parquet",))
    export(libritts, formats=("safetensors",))
    manifest = json.loads((libritts / "embeddings.manifest.json").read_text())
    assert manifest["models"]["ecapa"]["tables"] == {
        "parquet": ["speakers.parquet", "utterances.parquet"],
        "safetensors": ["embeddings.safetensors"],
    }


def test_a_file_that_cannot_be_removed_is_named(libritts, other_encoder_dir, export):
    export(libritts)
    path = sorted(libritts.rglob("*.ecapa_embedding"))[0]
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"Cannot remove .*\.ecapa_embedding"):
        export(libritts, checkpoint=str(other_encoder_dir), overwrite=True)
