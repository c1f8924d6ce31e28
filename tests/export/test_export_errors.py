"""What a user can get wrong, with the text that says what to do."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from tiny_encoders import make_tiny

from speaker_encoder.cli.main import main_of
from speaker_encoder.errors import UserError
from speaker_encoder.export import ExportOptions, embed_corpus


def arguments_for(root, checkpoint, *more):
    return [
        *("--model_name", "ecapa", "--dataset_dir", str(root), "--model_device", "cpu"),
        *("--checkpoint", str(checkpoint), *more),
    ]


def test_failing_files_are_named_and_end_with_3(libritts, encoder_dir, capsys):
    speaker = libritts / "8887" / "281471"
    (speaker / "empty.wav").write_bytes(b"")
    soundfile.write(speaker / "short.wav", np.zeros(100, np.float32), 16000)
    samples = np.full(16000, np.nan, np.float32)
    soundfile.write(speaker / "nan.wav", samples, 16000, subtype="FLOAT")
    lonely = libritts / "9999" / "1"
    lonely.mkdir(parents=True)
    soundfile.write(lonely / "short.wav", np.zeros(100, np.float32), 16000)
    assert main_of("embed", arguments_for(libritts, encoder_dir)) == 3
    report = json.loads((libritts / "ecapa_embeddings.report.json").read_text())
    reasons = {row["path"]: row["reason"] for row in report["failures"]}
    assert set(reasons) == {
        "8887/281471/empty.wav", "8887/281471/short.wav", "8887/281471/nan.wav", "9999/1/short.wav",
    }  # fmt: skip
    assert "too short (0.006 s; the encoder needs" in reasons["8887/281471/short.wav"]
    assert "non-finite samples" in reasons["8887/281471/nan.wav"]
    speakers = report["speakers"]
    assert len(speakers["8887"]["average_is_without"]) == 3
    assert speakers["9999"]["num_utterances"] == 0
    assert not (libritts / "9999" / "9999.ecapa_averaged_embedding").exists()
    assert "failed: 8887/281471/empty.wav" in capsys.readouterr().out
    manifest = json.loads((libritts / "embeddings.manifest.json").read_text())
    assert len(manifest["models"]["ecapa"]["failures"]) == 4


def test_when_all_files_fail_it_ends_with_2(tmp_path, encoder_dir, capsys):
    for name in ("ann", "bob"):
        (tmp_path / "corpus" / name).mkdir(parents=True)
        path = tmp_path / "corpus" / name / "a.wav"
        soundfile.write(path, np.zeros(100, np.float32), 16000)
    assert main_of("embed", arguments_for(tmp_path / "corpus", encoder_dir)) == 2
    assert "All 2 files failed" in capsys.readouterr().err


def test_only_silence_is_a_failure_of_trimming(tmp_path, libritts, export):
    silent = libritts / "8887" / "281471" / "silent.wav"
    soundfile.write(silent, np.zeros(16000, np.float32), 16000)
    outcome = export(libritts, trim_silence="energy")
    assert outcome.exit_code == 3
    assert outcome.failures[0].reason.startswith("only silence (0.000 s after trimming")


def test_an_untrained_head_is_refused(libritts, tmp_path):
    encoder = make_tiny(1)
    encoder.config.untrained_head = True
    encoder.save_pretrained(tmp_path / "untrained")
    options = ExportOptions("ecapa", str(libritts), checkpoint=str(tmp_path / "untrained"))
    with pytest.raises(UserError, match="has random weights"):
        embed_corpus(options)
    assert not list(libritts.rglob("*embedding"))


def test_a_checkpoint_of_another_architecture_is_refused(libritts, encoder_dir):
    options = ExportOptions("wavlm-base-plus-sv", str(libritts), checkpoint=str(encoder_dir))
    with pytest.raises(UserError, match=r"family 'wavlm', but the checkpoint .*family 'ecapa'"):
        embed_corpus(options)


def test_a_folder_that_cannot_be_written_to_is_found_before_the_model_is_loaded(
    libritts, monkeypatch
):
    def never(options):
        raise AssertionError("loaded")

    monkeypatch.setattr("speaker_encoder.export.run.load_encoder", never)
    options = ExportOptions("ecapa", str(libritts), output_dir="/proc/nowhere")
    with pytest.raises(UserError, match="Cannot write to the output folder /proc/nowhere"):
        embed_corpus(options)
    monkeypatch.setattr("os.access", lambda path, mode, **_: not str(path).endswith("281471"))

    def refuse(folder, what):
        if str(folder).endswith("281471"):
            raise UserError(f"Cannot write to {what} {folder}: --output_dir")

    monkeypatch.setattr("speaker_encoder.export.targets.check_writable", refuse)
    with pytest.raises(UserError, match=r"the dataset folder .*281471: --output_dir"):
        embed_corpus(ExportOptions("ecapa", str(libritts)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset_name": "VCKT"}, "Unknown --dataset_name 'VCKT'.*nearest: 'VCTK'"),
        ({"formats": ("parket",)}, "Unknown --format 'parket'.*nearest: 'parquet'"),
        ({"average": "median"}, "Unknown --average 'median'"),
        ({"trim_silence": "silero"}, "Unknown trim_silence 'silero'"),
        ({"dtype": "float16"}, "Unknown --dtype 'float16'"),
        ({"hop_seconds": 1.0}, "give --windows too"),
        ({"windows_seconds": 1.0, "hop_seconds": 2.0}, r"at most --windows \(1\), found 2"),
        ({"windows_seconds": 0.0}, "--windows must be more than 0"),
        ({"min_seconds": 5.0, "max_seconds": 2.0}, "--max_seconds must be more"),
        ({"batch_seconds": -1.0}, "--batch_seconds must be at least 0"),
        ({"num_workers": -1}, "--num_workers must be at least 0"),
        ({"model_device": "gpu"}, "Unknown --model_device 'gpu'"),
        ({"model_device": "cuda:99"}, "CUDA devices that torch can use"),
    ],
)
def test_wrong_values_are_named(libritts, export, changes, message):
    with pytest.raises(UserError, match=message):
        export(libritts, **changes)


def test_a_corpus_without_audio_says_what_was_looked_for_and_found(tmp_path, export):
    (tmp_path / "texts" / "ann").mkdir(parents=True)
    (tmp_path / "texts" / "ann" / "a.txt").write_text("hello")
    with pytest.raises(UserError, match=r"No audio files in .*found 1 x .txt file.*Wanted"):
        export(tmp_path / "texts")
    with pytest.raises(UserError, match="does not exist"):
        export(tmp_path / "absent")


def test_a_list_that_names_files_elsewhere_stays_in_the_output_folder(tmp_path, data_dir, export):
    audio = tmp_path / "audio"
    audio.mkdir()
    wavs = sorted((data_dir / "libritts").rglob("*.wav"))[:2]
    for number, wav in enumerate(wavs):
        shutil.copy(wav, audio / f"{number}.wav")
    (tmp_path / "lists").mkdir()
    list_path = tmp_path / "lists" / "list.txt"
    list_path.write_text(f"ann ../audio/0.wav\n.. {audio / '1.wav'}\n")
    out = tmp_path / "out"
    before = sorted(audio.rglob("*"))
    export(list_path, output_dir=str(out), formats=("pt", "npy"))
    assert sorted(audio.rglob("*")) == before
    assert len(list(out.rglob("*.ecapa_embedding"))) == 2
    assert len(list(out.rglob("*.ecapa_averaged_embedding"))) == 2
    outside = [p for p in tmp_path.rglob("*embedding*") if out not in p.parents]
    assert outside == []


def test_a_huggingface_dataset_with_path_characters_in_its_ids(tmp_path, data_dir, export):
    import datasets

    wavs = sorted((data_dir / "libritts").rglob("*.wav"))[:4]
    speakers = ["../x", "../x", "a/b", ".."]
    rows = {
        "audio": [{"bytes": wav.read_bytes(), "path": wav.name} for wav in wavs],
        "speaker_id": speakers,
        "text": ["hello"] * 4,
    }
    folder, out = tmp_path / "dataset", tmp_path / "deep" / "out"
    # A cast, since encoding as Audio at once asks for torchcodec.
    table = datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio(decode=False))
    table.save_to_disk(folder)
    with pytest.raises(UserError, match="Give --output_dir"):
        export(folder)
    outcome = export(folder, output_dir=str(out), formats=("pt", "kaldi", "coqui", "parquet"))
    assert (outcome.num_utterances, outcome.num_speakers) == (4, 3)
    outside = [p for p in tmp_path.rglob("*embedding*") if out not in [p, *p.parents]]
    assert [p for p in outside if folder not in p.parents] == []
    names = sorted(p.relative_to(out).as_posix() for p in out.rglob("*.ecapa_averaged_embedding"))
    assert len(names) == 3 and "..%2Fx/..%2Fx.ecapa_averaged_embedding" in names
    assert export(folder, output_dir=str(out)).num_computed == 0
    path = out / "..%2Fx" / f"{wavs[0].stem}.ecapa_embedding"
    direct = tmp_path / "direct" / "s" / wavs[0].name
    direct.parent.mkdir(parents=True)
    shutil.copy(wavs[0], direct)
    export(tmp_path / "direct")
    assert torch.equal(
        torch.load(path, weights_only=True),
        torch.load(direct.with_suffix(".ecapa_embedding"), weights_only=True),
    )


def test_help_is_quick_and_has_an_example(capsys):
    with pytest.raises(SystemExit) as stop:
        main_of("embed", ["--help"])
    assert stop.value.code == 0
    assert "speaker-encoder embed --model_name ecapa --dataset_name VCTK" in capsys.readouterr().out


def test_a_huggingface_dataset_of_parquet_files(tmp_path, data_dir, export, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    wavs = sorted((data_dir / "libritts").rglob("*.wav"))[:3]
    rows = {
        "audio": [{"bytes": wav.read_bytes(), "path": wav.name} for wav in wavs],
        "speaker": ["x", "x", "y"],
    }
    table = datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio(decode=False))
    folder, out = tmp_path / "dataset", tmp_path / "out"
    for number in range(2):
        table.shard(2, number).to_parquet(folder / "data" / f"train-{number:05d}-of-00002.parquet")
    outcome = export(folder, output_dir=str(out))
    assert (outcome.num_utterances, outcome.num_speakers) == (3, 2)
    direct = tmp_path / "direct" / "s" / wavs[0].name
    direct.parent.mkdir(parents=True)
    shutil.copy(wavs[0], direct)
    export(tmp_path / "direct")
    assert torch.equal(
        torch.load(out / "x" / f"{wavs[0].stem}.ecapa_embedding", weights_only=True),
        torch.load(direct.with_suffix(".ecapa_embedding"), weights_only=True),
    )
    (folder / "data" / "train-00000-of-00002.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match="no Hugging Face dataset on disk"):
        export(folder, output_dir=str(out), dataset_name="huggingface")
