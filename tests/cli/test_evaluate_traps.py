"""What gave wrong figures without a word: each of these is refused or told now."""

import json

import numpy as np
import pytest
import soundfile

NAMES = [f"p{speaker}/u{number}" for speaker in range(6) for number in range(3)]
LINES = [(int(a[:2] == b[:2]), a, b) for i, a in enumerate(NAMES) for b in NAMES[i + 1 :]]


def write_list(path, extension=""):
    lines = [f"{label} {a}{extension} {b}{extension}\n" for label, a, b in LINES]
    path.write_text("".join(lines))
    return path


@pytest.fixture
def export(tmp_path):
    def make(name, seed):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        rows = np.random.default_rng(seed).standard_normal((len(NAMES), 8)).astype(np.float32)
        np.savez(path, utterance_ids=np.array(NAMES), embeddings=rows)
        return path

    return make


def test_calibration_on_the_test_trials_by_other_names_is_refused(command, export, tmp_path):
    test = write_list(tmp_path / "test.txt", ".wav")
    same = write_list(tmp_path / "calibration.txt")
    shown = command(
        "evaluate", "--embeddings", export("e.npz", 0), "--trials", test,
        "--data_root", tmp_path, "--calibration_trials", same,
    )  # fmt: skip
    assert shown.code == 2, shown.out


def test_two_systems_have_files_of_their_own(command, export, tmp_path):
    out = tmp_path / "out"
    shown = command(
        "evaluate", "--embeddings", export("x/a.npz", 0), "--embeddings", export("x_a.npz", 1),
        "--trials", write_list(tmp_path / "t.txt"), "--data_root", tmp_path, "--output_dir", out,
        "--num_bootstrap", 0,
    )  # fmt: skip
    assert shown.code == 0, shown.err
    systems = json.loads((out / "results.json").read_text())["systems"]
    files = [system["scores_file"] for system in systems]
    assert len({name.casefold() for name in files}) == 2
    assert (out / files[0]).read_bytes() != (out / files[1]).read_bytes()


def test_score_files_with_other_labels_are_refused(command, tmp_path):
    for name, labels in (("s1", (1, 0)), ("s2", (0, 1))):
        (tmp_path / name).write_text(f"1.5 {labels[0]} a b\n.2 {labels[1]} a c\n")
    shown = command("evaluate", "--scores", tmp_path / "s1", "--scores", tmp_path / "s2")
    assert shown.code == 2 and "do not have the same labels" in shown.err


def test_one_row_for_two_names_is_refused(command, export, tmp_path):
    trials = tmp_path / "t.txt"
    trials.write_text("1 dev/p0/u0.wav test/p0/u0.wav\n0 p0/u1.wav p1/u0.wav\n")
    shown = command(
        "evaluate", "--embeddings", export("e.npz", 0), "--trials", trials, "--data_root", tmp_path
    )
    assert shown.code == 2 and "would both be 'p0/u0'" in shown.err


def test_the_first_line_with_too_few_columns_is_the_one_that_is_named(command, tmp_path):
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, np.zeros(1600), 16000)
    trials = tmp_path / "t.txt"
    trials.write_text("1 a.wav\n1 a.wav b.wav\n")
    shown = command("check-trials", "--trials", trials, "--data_root", tmp_path)
    text = shown.out + shown.err
    assert shown.code == 2 and "line 1: wanted 3 columns" in text and "line 2" not in text


def test_a_wrong_label_does_not_hide_a_training_speaker(command, tmp_path):
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 16000)
    for name in ("p1/a.wav", "p1/b.wav", "p2/a.wav", "train/p1/c.wav", "train/p9/d.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, noise, 16000)
    train = tmp_path / "train.txt"
    train.write_text("p1 train/p1/c.wav\np9 train/p9/d.wav\n")
    trials = tmp_path / "t.txt"
    trials.write_text("1 p1/a.wav p1/b.wav\n0 p1/a.wav p2/a.wav\n0 p1/a.wav p1/b.wav\n")
    shown = command(
        "check-trials", "--trials", trials, "--data_root", tmp_path, "--train_list", train
    )
    assert "a training speaker's" in shown.out, shown.out + shown.err
