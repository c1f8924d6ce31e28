"""`speaker-encoder evaluate` with input that the user must change: exit code 2 and the line."""

import shutil
from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.skipif(
    find_spec("resemblyzer") is None, reason="pip install resemblyzer: it ships the d-vector"
)


def few_arguments(few, data_dir):
    return "--trials", few, "--data_root", data_dir / "libritts"


BAD_LISTS = {
    "missing": (
        "1 8887/a.wav 8887/b.wav\n",
        ["line 1: there is no file '8887/a.wav'", "check-trials"],
    ),
    "columns": ("1 {0} {1}\n1 {0}\n", ["line 2: wanted 3 columns", "found 2"]),
    "label": ("1 {0} {1}\n7 {0} {1}\n", ["line 2: the label '7' is not 1 or 0"]),
    "empty": ("\n", ["is empty"]),
    "targets": ("1 {0} {1}\n", ["has 1 target trials and no nontarget trials"]),
}


@pytest.mark.parametrize("kind", BAD_LISTS)
def test_bad_lists_end_with_exit_code_2_and_the_line(command, few, data_dir, tiny_model, kind):
    text, messages = BAD_LISTS[kind]
    names = few.read_text().split()[1:3]
    few.write_text(text.format(*names))
    shown = command("evaluate", "--model", tiny_model, *few_arguments(few, data_dir))
    assert shown.code == 2 and shown.err.startswith("error: ")
    assert all(message in shown.err for message in messages), shown.err
    assert "Traceback" not in shown.err


def test_nan_scores_end_with_exit_code_2_and_the_line(command, tmp_path):
    (tmp_path / "scores.txt").write_text("0.5 1 a b\nnan 0 a c\n")
    shown = command("evaluate", "--scores", tmp_path / "scores.txt")
    assert shown.code == 2 and "line 2: the score 'nan' is not a finite number" in shown.err


def test_unreadable_audio_is_named_with_its_line(command, tmp_path, data_dir, tiny_model):
    wavs = sorted((data_dir / "libritts").rglob("*.wav"))[:2]
    shutil.copy(wavs[0], tmp_path / "a.wav")
    (tmp_path / "b.wav").write_bytes(b"RIFF nothing")
    (tmp_path / "trials.txt").write_text("1 a.wav a.wav\n0 a.wav b.wav\n")
    shown = command("evaluate", "--model", tiny_model, "--trials", tmp_path / "trials.txt")
    assert shown.code == 2 and "line 2: b.wav" in shown.err


def test_a_broken_file_of_a_corpus_is_left_out_and_told(command, tmp_path, data_dir, tiny_model):
    corpus = tmp_path / "corpus"
    shutil.copytree(data_dir / "vctk", corpus)
    (corpus / "wav48_silence_trimmed" / "p225" / "p225_999_mic1.flac").write_bytes(b"fLaC")
    shown = command("evaluate", "--model", tiny_model, "--data_root", corpus)
    assert shown.code == 3 and "left out, 1 audio files that cannot be read" in shown.out
    assert "p225_999_mic1.flac: " in shown.out and "600 nontarget" in shown.out


def test_labels_and_a_speaker_table_must_agree(command, few, data_dir, tiny_model, tmp_path):
    names = sorted({name for line in few.read_text().splitlines() for name in line.split()[1:]})
    table = tmp_path / "table.tsv"
    table.write_text("path\tspeaker\n" + "".join(f"{name}\tsame\n" for name in names))
    shown = command(
        "evaluate", "--model", tiny_model, *few_arguments(few, data_dir), "--speaker_table", table
    )
    assert shown.code == 2 and "labels and the speaker table disagree" in shown.err


def test_calibration_on_the_test_trials_is_refused(command, few, data_dir, tiny_model):
    shown = command(
        "evaluate",
        "--model",
        tiny_model,
        *few_arguments(few, data_dir),
        "--calibration_trials",
        few,
    )
    assert shown.code == 2 and "are among the trials to measure" in shown.err


BAD_ARGUMENTS = [
    ([], "there is nothing to evaluate"),
    (["--model", "dvector"], "Give --trials with --data_root"),
    (["--model", "dvector", "--data_root", "nowhere"], "nowhere does not exist"),
    (["--model", "nosuch", "--data_root", "."], "Unknown encoder"),
    (["--model", "dvector", "--data_root", ".", "--protocol", "crops"], "Unknown --protocol"),
    (["--model", "dvector", "--data_root", ".", "--norm", "x", "--cohort", "."], "--norm must be"),
    (["--model", "dvector", "--data_root", ".", "--norm", "z"], "--norm and --cohort belong"),
    (["--model", "dvector", "--data_root", ".", "--p_target", "2"], "--p_target must lie"),
    (["--model", "dvector", "--data_root", ".", "--quality"], "give --calibration_trials"),
    (["--scores", "nothing.txt"], "Cannot read the score file"),
    (["--embeddings", "nothing"], "no such file or folder"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS)
def test_bad_arguments_end_with_exit_code_2(command, arguments, message, data_dir, monkeypatch):
    monkeypatch.chdir(data_dir / "vctk")
    shown = command("evaluate", *arguments)
    assert shown.code == 2 and message in shown.err


def test_an_output_folder_that_cannot_be_written_is_told_first(command, few, data_dir, tmp_path):
    (tmp_path / "file").write_text("")
    shown = command(
        "evaluate",
        "--model",
        "dvector",
        *few_arguments(few, data_dir),
        "--output_dir",
        tmp_path / "file" / "out",
    )
    assert shown.code == 2 and "Cannot write to the output folder" in shown.err
