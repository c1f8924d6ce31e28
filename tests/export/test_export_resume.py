"""Killed at any moment, and gone on with; other models and options; two at once."""

import json
import random
import shutil
import signal
import time

import pytest
import soundfile
import torch
from preloaded import Preloaded

from speaker_encoder.errors import UserError


def copy(root, name):
    target = root.parent / name
    shutil.copytree(root, target)
    return target


@pytest.mark.slow
@pytest.mark.parametrize("batch_seconds", ["0", "8"])
def test_killed_again_and_again_the_files_are_those_of_an_undisturbed_run(
    libritts, start_command, run_command, embeddings_of, batch_seconds
):
    whole, killed = copy(libritts, "whole"), copy(libritts, "killed")
    arguments = ("--batch_seconds", batch_seconds, "--format", "pt", "--format", "npy")
    assert run_command(whole, *arguments).returncode == 0
    expected = embeddings_of(whole)
    assert len(expected) == 2 * (48 + 4)
    generator, codes = random.Random(5), []
    for target in (1, 12, 40):
        process = start_command(killed, *arguments)
        limit = time.monotonic() + 60
        while len(list(killed.rglob("*.ecapa_embedding*"))) < target and process.poll() is None:
            assert time.monotonic() < limit, process.communicate()
            time.sleep(0.002)
        assert len(list(killed.rglob("*.ecapa_embedding*"))) >= target, process.communicate()
        time.sleep(generator.random() * 0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        codes.append(process.returncode)
        for path, content in embeddings_of(killed).items():
            if not path.rsplit("/", 1)[-1].startswith("."):
                assert content == expected[path], f"{path} is damaged"
    assert codes.count(-signal.SIGKILL) >= 2
    done = run_command(killed, *arguments)
    assert done.returncode == 0, done.stderr
    assert embeddings_of(killed) == expected
    assert not list(killed.rglob("*.part"))


def test_what_is_there_is_not_computed_again(libritts, export, embeddings_of):
    assert export(libritts).num_computed == 48
    times = {path: path.stat().st_mtime_ns for path in libritts.rglob("*.ecapa_*embedding")}
    assert export(libritts).num_computed == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times
    parts = list((libritts / ".embeddings" / "ecapa").glob("part-*.jsonl"))
    assert len(parts) == 1


def test_a_deleted_file_comes_back_and_changed_audio_is_computed_again(
    libritts, export, embeddings_of
):
    export(libritts)
    before = embeddings_of(libritts, "*.ecapa_*embedding")
    path = next(libritts.rglob("*.ecapa_embedding"))
    path.unlink()
    assert export(libritts).num_computed == 0
    assert embeddings_of(libritts, "*.ecapa_*embedding") == before
    wav = next(libritts.rglob("*.wav"))
    speech, rate = soundfile.read(wav)
    soundfile.write(wav, speech[: rate * 2], rate)
    assert export(libritts).num_computed == 1
    changed = embeddings_of(libritts, "*.ecapa_*embedding")
    assert sum(changed[name] != before[name] for name in before) == 2


def test_audio_that_changes_again_and_again(libritts, export, embeddings_of):
    """Of many versions in the store, in parts with names of chance, the present one counts."""
    wav = next(libritts.rglob("*.wav"))
    speech, rate = soundfile.read(wav)
    for turn in range(6):
        soundfile.write(wav, speech[: rate + turn * 800], rate)
        expected = 48 if turn == 0 else 1
        assert export(libritts, formats=("pt", "npy")).num_computed == expected
        assert export(libritts, formats=("pt", "npy")).num_computed == 0
        alone = libritts.parent / f"alone{turn}" / wav.parent.name
        alone.mkdir(parents=True)
        shutil.copy(wav, alone)
        export(alone.parent)
        (vector,) = embeddings_of(alone, "*.ecapa_embedding").values()
        assert wav.with_suffix(".ecapa_embedding").read_bytes() == vector


def test_an_utterance_added_later_changes_its_speakers_average_alone(libritts, export):
    added = next((libritts / "8887").rglob("*.wav"))
    aside = libritts.parent / added.name
    added.rename(aside)
    export(libritts)
    before = {p.name: p.read_bytes() for p in libritts.rglob("*.ecapa_averaged_embedding")}
    aside.rename(added)
    assert export(libritts).num_computed == 1
    after = {p.name: p.read_bytes() for p in libritts.rglob("*.ecapa_averaged_embedding")}
    assert [name for name in before if before[name] != after[name]] == [
        "8887.ecapa_averaged_embedding"
    ]


def test_another_model_is_refused_until_overwrite(
    libritts, export, other_encoder_dir, tmp_path, embeddings_of
):
    export(libritts)
    before = embeddings_of(libritts, "*.ecapa_*embedding")
    with pytest.raises(UserError, match=r"another model or of other options:\n  weights_sha256"):
        export(libritts, checkpoint=str(other_encoder_dir))
    assert embeddings_of(libritts, "*.ecapa_*embedding") == before
    export(libritts, checkpoint=str(other_encoder_dir), output_dir=str(tmp_path / "elsewhere"))
    other = embeddings_of(tmp_path / "elsewhere", "*.ecapa_*embedding")
    outcome = export(libritts, checkpoint=str(other_encoder_dir), overwrite=True)
    assert outcome.num_computed == 48
    assert embeddings_of(libritts, "*.ecapa_*embedding") == other
    assert export(libritts, overwrite=True).num_computed == 48
    assert embeddings_of(libritts, "*.ecapa_*embedding") == before


def test_other_options_are_refused_and_only_the_average_is_made_anew(libritts, export):
    export(libritts)
    with pytest.raises(UserError, match="trim_silence: there 'off', now 'vad'"):
        export(libritts, trim_silence="vad")
    with pytest.raises(UserError, match="average: there 'mean', now 'normalized'"):
        export(libritts, average="normalized")
    assert export(libritts, average="normalized", overwrite=True).num_computed == 0
    average = torch.load(libritts / "8887" / "8887.ecapa_averaged_embedding", weights_only=True)
    assert float(average.norm()) == pytest.approx(1, abs=1e-6)


def test_two_models_live_in_one_tree(libritts, export, other_encoder_dir):
    export(libritts)
    export(libritts, model_name="my-ecapa", checkpoint=str(other_encoder_dir))
    manifest = json.loads((libritts / "embeddings.manifest.json").read_text())
    assert set(manifest["models"]) == {"ecapa", "my-ecapa"}
    assert len(list(libritts.rglob("*.my-ecapa_embedding"))) == 48


def test_embeddings_of_nobody_knows_what_are_refused(libritts, data_dir, export):
    wav = next(libritts.rglob("*.wav"))
    original = next((data_dir / "original_embeddings").rglob("*.ecapa_embedding"))
    shutil.copy(original, wav.with_suffix(".ecapa_embedding"))
    with pytest.raises(UserError, match="1 ecapa embeddings are there already"):
        export(libritts)
    export(libritts, overwrite=True)
    replaced = torch.load(wav.with_suffix(".ecapa_embedding"), weights_only=True)
    assert replaced.shape == (1, 24)


@pytest.mark.slow
def test_two_exporters_at_once_do_not_damage_each_other(
    libritts, start_command, run_command, embeddings_of
):
    alone, shared = copy(libritts, "alone"), copy(libritts, "shared")
    assert run_command(alone).returncode == 0
    first, second = start_command(shared), start_command(shared)
    for process in (first, second):
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert embeddings_of(shared, "*.ecapa_*embedding") == embeddings_of(alone, "*.ecapa_*embedding")
    assert run_command(shared).returncode == 0


def test_a_full_disk_ends_with_2_and_is_gone_on_with(libritts, encoder_dir, tmp_path, export):
    """The size limit of a process stands for the disk: a write fails with EFBIG half way."""
    script = tmp_path / "limited.py"
    script.write_text(
        "import resource, sys\n"
        "from speaker_encoder.cli.main import main_of\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "sys.exit(main_of('embed', sys.argv[1:]))\n"
    )
    arguments = ["--model_name", "ecapa", "--dataset_dir", str(libritts), "--model_device", "cpu"]
    process = Preloaded(script, [*arguments, "--checkpoint", encoder_dir], tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert "The disk is full" in err and "Traceback" not in err
    for path in libritts.rglob("*.ecapa_embedding"):
        assert torch.load(path, weights_only=True).shape == (1, 24)
    assert export(libritts).num_utterances == 48
