"""`speaker-encoder verify` and `check-trials` on real speech."""

import json
from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.skipif(
    find_spec("resemblyzer") is None, reason="pip install resemblyzer: it ships the d-vector"
)


@pytest.fixture
def pair(data_dir):
    folders = sorted((data_dir / "vctk" / "wav48_silence_trimmed").iterdir())
    same = sorted(folders[0].glob("*.flac"))[:2]
    return same, [same[0], sorted(folders[1].glob("*.flac"))[0]]


def test_one_speaker_and_two(command, pair):
    same, other = pair
    shown = command("verify", *same, "--model", "dvector")
    assert shown.code == 0 and "decision  same speaker" in shown.out
    assert "threshold 0.7100, from the equal error rate (5.98%)" in shown.out
    shown = command("verify", *other, "--model", "dvector")
    assert shown.code == 0 and "decision  different speakers" in shown.out


def test_the_score_and_the_json(command, pair):
    from speaker_encoder import SpeakerEncoder

    same, _ = pair
    shown = command("verify", *same, "--model", "dvector", "--threshold", 0.999, "--json")
    found = json.loads(shown.out)
    a, b = SpeakerEncoder.from_pretrained("dvector").encode([str(path) for path in same])
    assert found["score"] == pytest.approx(float(a @ b), abs=1e-5)
    assert found["is_same_speaker"] is False and found["threshold_from"] == "--threshold"


def test_the_threshold_of_an_evaluation(command, pair, data_dir, tmp_path, tiny_model):
    command(
        "evaluate",
        "--model",
        "dvector",
        "--data_root",
        data_dir / "vctk",
        "--num_bootstrap",
        0,
        "--output_dir",
        tmp_path,
        "--false_accept_rate",
        0.05,
    )
    results = json.loads((tmp_path / "results.json").read_text())["systems"][0]
    path = tmp_path / "results.json"
    shown = command("verify", *pair[0], "--model", "dvector", "--results", path)
    assert f"threshold {results['eer']['threshold']:.4f}, from the equal error rate" in shown.out
    shown = command(
        "verify", *pair[0], "--model", "dvector", "--results", path, "--false_accept_rate", 0.05
    )
    assert f"threshold {results['thresholds'][0]['threshold']:.4f}" in shown.out
    shown = command(
        "verify", *pair[0], "--model", "dvector", "--results", path, "--false_accept_rate", 0.2
    )
    assert shown.code == 2 and "it has those for 0.05" in shown.err
    shown = command("verify", *pair[0], "--model", tiny_model, "--results", path)
    assert shown.code == 2 and "has no threshold for this model" in shown.err


def test_a_model_without_a_known_threshold_gives_the_score_alone(command, pair, tiny_model):
    shown = command("verify", *pair[0], "--model", tiny_model)
    assert shown.code == 0 and "decision  none: no threshold is known" in shown.out


def test_bad_input(command, pair, tmp_path):
    same, _ = pair
    assert "no such file" in command("verify", same[0], tmp_path / "x.wav").err
    (tmp_path / "results.json").write_text("[]")
    for more, message in (
        (["--results", tmp_path / "results.json"], "is no results.json"),
        (["--results", tmp_path / "nothing.json"], "Cannot read"),
        (["--threshold", "nan"], "must be a number"),
        (["--threshold", 1, "--results", "x"], "Leave one out"),
        (["--false_accept_rate", 0.1], "Give --results"),
    ):
        shown = command("verify", *same, "--model", "dvector", *more)
        assert shown.code == 2 and message in shown.err


def test_a_clean_list(command, data_dir):
    lists = data_dir / "lists"
    shown = command(
        "check-trials",
        "--trials",
        lists / "dev_eval_trials.txt",
        "--data_root",
        data_dir,
        "--train_list",
        lists / "train_list.txt",
    )
    assert shown.code == 0 and "nothing is wrong with it" in shown.out


def test_every_fault_is_found_at_its_line(command, data_dir, tmp_path):
    folders = [f"vctk/wav48_silence_trimmed/p22{n}/p22{n}" for n in (5, 6, 7)]
    files = [sorted(data_dir.glob(f"{folder}_*.flac")) for folder in folders]
    a, b, c = ([path.relative_to(data_dir).as_posix() for path in some] for some in files)
    lines = [
        f"1 {a[0]} {a[1]}",
        f"0 {a[0]} {b[0]}",
        f"1 {a[1]} {a[0]}",  # 3: as line 1
        f"1 {b[0]} {b[0]}",  # 4: itself
        f"0 {a[0]} gone.flac",  # 5: missing
        f"1 {a[0]}",  # 6: columns
        f"1 {b[0]} {a[0]}",  # 7: line 2 says nontarget
        f"0 {c[0]} {b[1]}",
        f"1 {b[0]} {b[1]}",
    ]
    trials = tmp_path / "trials.txt"
    trials.write_text("\n".join(lines))
    report = tmp_path / "report.json"
    shown = command("check-trials", "--trials", trials, "--data_root", data_dir, "--report", report)
    assert shown.code == 2
    findings = json.loads(report.read_text())["findings"]
    at = {kind: [entry["line"] for entry in found] for kind, found in findings.items()}
    assert at == {
        "unusable": [6],
        "missing": [5],
        "contradictory": [7],
        "duplicate": [3],
        "self_trial": [4],
        "training_utterance": [],
        "training_speaker": [],
    }
    assert "line 5: there is no file 'gone.flac'" in shown.out
    assert "line 7: line 2 says nontarget" in shown.out


def test_a_list_without_one_good_line_is_told(command, data_dir, tmp_path):
    (tmp_path / "trials.txt").write_text("5 a b\n7 c d\n")
    shown = command("check-trials", "--trials", tmp_path / "trials.txt", "--data_root", data_dir,
                    "--train_list", data_dir / "lists" / "train_list.txt")  # fmt: skip
    assert shown.code == 2 and "lines that are no trials: 2" in shown.out
    (tmp_path / "trials.txt").write_text("")
    shown = command("check-trials", "--trials", tmp_path / "trials.txt")
    assert shown.code == 2 and "is empty" in shown.err


def test_speakers_of_the_training_list_are_found(command, data_dir, tmp_path):
    folders = [f"vctk/wav48_silence_trimmed/p22{n}" for n in (5, 6, 7)]
    a, b, c = (sorted(f"{f}/{p.name}" for p in (data_dir / f).glob("*.flac")) for f in folders)
    trials = tmp_path / "trials.txt"
    lines = [f"1 {x[0]} {x[1]}" for x in (a, b, c)] + [f"0 {a[0]} {b[0]}", f"0 {b[1]} {c[1]}"]
    trials.write_text("\n".join(lines))
    train = tmp_path / "train.txt"
    train.write_text(f"somebody {a[5]}\nother {c[1]}\n")
    report = tmp_path / "report.json"
    shown = command(
        "check-trials",
        "--trials",
        trials,
        "--data_root",
        data_dir,
        "--train_list",
        train,
        "--report",
        report,
    )
    assert shown.code == 2
    found = json.loads(report.read_text())
    assert found["training_speakers"] == [folders[0], folders[2]]
    lines = {kind: [e["line"] for e in found["findings"][kind]] for kind in found["findings"]}
    assert lines["training_utterance"] == [3, 5]
    assert lines["training_speaker"] == [1, 3, 4]


def test_every_verification_command_has_an_example(capsys):
    from speaker_encoder.cli.main import main

    for name in ("evaluate", "check-trials", "verify"):
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0 and "example:" in capsys.readouterr().out
