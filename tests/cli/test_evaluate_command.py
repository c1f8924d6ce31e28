"""`speaker-encoder evaluate` on real speech: the figures, the files, every kind of input."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(
    find_spec("resemblyzer") is None, reason="pip install resemblyzer: it ships the d-vector"
)


@pytest.fixture
def dev_eval(data_dir):
    trials = data_dir / "lists" / "dev_eval_trials.txt"
    return "--trials", trials, "--data_root", data_dir


def few_arguments(few, data_dir):
    return "--trials", few, "--data_root", data_dir / "libritts"


def naive_eer(scores, labels):
    """Where misses and false accepts cross, both rates at every threshold by counting."""
    points = [(0.0, 1.0)]
    for threshold in sorted(set(scores), reverse=True):
        accepted = scores >= threshold
        points.append((accepted[~labels].mean(), 1 - accepted[labels].mean()))
    for (fa0, miss0), (fa1, miss1) in pairwise(points):
        if miss1 <= fa1:
            share = (miss0 - fa0) / ((miss0 - fa0) - (miss1 - fa1))
            return fa0 + share * (fa1 - fa0)
    raise AssertionError


def read_scores(path):
    rows = [line.split() for line in path.read_text().splitlines()]
    return np.array([float(row[0]) for row in rows]), np.array([row[1] == "1" for row in rows])


def test_the_real_encoder_on_the_real_trials(command, dev_eval, tmp_path, data_dir):
    from speaker_encoder import SpeakerEncoder

    shown = command(
        "evaluate",
        "--model",
        "dvector",
        *dev_eval,
        "--output_dir",
        tmp_path / "out",
        "--speaker_table",
        data_dir / "lists" / "utterances.tsv",
    )
    assert shown.code == 0
    assert "1120 target and 4480 nontarget trials, 320 utterances of 40 speakers" in shown.out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    (system,) = results["systems"]
    assert system["eer"]["value"] == pytest.approx(0.0598, abs=5e-4)
    assert "5.98%" in shown.out
    scores, labels = read_scores(tmp_path / "out" / "scores.txt")
    assert len(scores) == 5600 and labels.sum() == 1120
    assert system["eer"]["value"] == pytest.approx(naive_eer(scores, labels), abs=1e-6)
    line = (tmp_path / "out" / "scores.txt").read_text().splitlines()[7].split()
    a, b = SpeakerEncoder.from_pretrained("dvector").encode([data_dir / name for name in line[2:]])
    assert float(line[0]) == pytest.approx(float(a @ b), abs=1e-5)
    low, high = system["eer"]["interval"]
    assert low < system["eer"]["value"] < high
    accepted = scores >= system["thresholds"][0]["threshold"]
    assert accepted[~labels].mean() <= 0.01
    sexes = {group["group"]: group for group in system["breakdown"]["sex"]}
    assert sexes["F-F"]["num_targets"] == sexes["M-M"]["num_targets"] == 560
    assert system["breakdown"]["duration"][0]["group"] == "2-4 s"
    for name in ("det.png", "det.svg", "histogram.png", "histogram.svg", "report.html"):
        assert (tmp_path / "out" / name).stat().st_size > 1000
    assert "5.98" in (tmp_path / "out" / "report.html").read_text()


def test_scores_stand_by_themselves(command, dev_eval, tmp_path):
    command("evaluate", "--model", "dvector", *dev_eval, "--output_dir", tmp_path / "a")
    shown = command(
        "evaluate", "--scores", tmp_path / "a" / "scores.txt", "--output_dir", tmp_path / "b"
    )
    assert shown.code == 0 and "5.98%" in shown.out
    before, after = (
        json.loads((tmp_path / name / "results.json").read_text())["systems"][0] for name in "ab"
    )
    for name in ("eer", "min_dcf", "min_cllr"):
        assert before[name] == after[name]
    assert (tmp_path / "a" / "scores.txt").read_bytes() == (
        tmp_path / "b" / "scores.txt"
    ).read_bytes()


def test_normalisation_and_calibration_on_other_speech(command, dev_eval, tmp_path, data_dir):
    shown = command(
        "evaluate",
        "--model",
        "dvector",
        *dev_eval,
        "--norm",
        "as",
        "--top_k",
        50,
        "--cohort",
        data_dir / "voxceleb",
        "--calibration_trials",
        data_dir / "lists" / "libritts_vctk_trials_all_pairs.txt",
        "--quality",
        "--output_dir",
        tmp_path,
        "--num_bootstrap",
        20,
    )
    assert shown.code == 0
    results = json.loads((tmp_path / "results.json").read_text())
    plain, normed, calibrated = results["systems"]
    assert [s["name"] for s in results["systems"]] == [
        "dvector",
        "dvector + as-norm",
        "dvector + as-norm + calibration",
    ]
    assert normed["normalisation"]["num_entries"] == 96 and normed["normalisation"]["top_k"] == 50
    assert plain["cllr"] is None and calibrated["cllr"]["value"] > 0
    assert calibrated["calibration"]["num_trials"] == 3828
    assert "log_min_seconds" in calibrated["calibration"]["names"]
    assert [c["after"] for c in results["comparisons"]] == [normed["name"], calibrated["name"]]
    check_as_norm(tmp_path, data_dir, plain, normed)


def check_as_norm(folder, data_dir, plain, normed):
    """The first lines against a naive loop over embeddings."""
    from speaker_encoder import SpeakerEncoder

    encoder = SpeakerEncoder.from_pretrained("dvector")
    cohort = encoder.encode(sorted((data_dir / "voxceleb").rglob("*.wav"))).numpy()
    raw = (folder / plain["scores_file"]).read_text().splitlines()[:5]
    after = (folder / normed["scores_file"]).read_text().splitlines()[:5]
    for before_line, after_line in zip(raw, after, strict=True):
        score, _, *names = before_line.split()
        sides = []
        for name in names:
            against = np.sort(cohort @ encoder.encode(data_dir / name)[0].numpy())[-50:]
            sides.append((float(score) - against.mean()) / against.std())
        assert float(after_line.split()[0]) == pytest.approx(np.mean(sides), abs=2e-4)


def test_two_models_are_compared(command, few, data_dir, tiny_model, tmp_path):
    arguments = few_arguments(few, data_dir)
    shown = command(
        "evaluate",
        "--model",
        tiny_model,
        "--model",
        "dvector",
        "--compare",
        *arguments,
        "--output_dir",
        tmp_path / "out",
        "--num_bootstrap",
        200,
    )
    assert shown.code == 0 and f"dvector against {tiny_model}"[-30:] in shown.out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    (comparison,) = results["comparisons"]
    before, after = (system["eer"]["value"] for system in results["systems"])
    assert comparison["eer_difference"] == pytest.approx(after - before)
    assert comparison["verdict"] in ("better", "worse", "no difference beyond noise")
    again = command(
        "evaluate", "--compare", tiny_model, "dvector", *arguments, "--num_bootstrap", 200
    )
    assert comparison["verdict"] in again.out
    assert len(list((tmp_path / "out").glob("scores_*.txt"))) == 2
    (tmp_path / "out" / "scores_of_my_own.txt").write_text("")
    command("evaluate", "--model", "dvector", *arguments, "--output_dir", tmp_path / "out")
    (tmp_path / "out" / "scores_of_my_own.txt").unlink()
    assert [path.name for path in (tmp_path / "out").glob("scores*.txt")] == ["scores.txt"]


def test_compare_needs_two(command, few, data_dir):
    shown = command("evaluate", "--model", "dvector", "--compare", *few_arguments(few, data_dir))
    assert shown.code == 2 and "--compare needs two" in shown.err


@pytest.mark.parametrize("form", ["pt", "parquet", "safetensors", "kaldi", "coqui", "cosyvoice"])
def test_exported_embeddings_stand_for_a_model(
    command, few, data_dir, tiny_model, tmp_path, form, capsys
):
    corpus = tmp_path / "LibriTTS"
    shutil.copytree(data_dir / "libritts", corpus, ignore=shutil.ignore_patterns("*.npz"))
    assert (
        command(
            "embed",
            "--model_name",
            "ecapa",
            "--dataset_dir",
            corpus,
            "--checkpoint",
            tiny_model,
            "--output_dir",
            tmp_path / "emb",
            "--format",
            form,
        ).code
        == 0
    )
    arguments = [*few_arguments(few, data_dir), "--num_bootstrap", 0]
    by_model = command(
        "evaluate", "--model", tiny_model, *arguments, "--output_dir", tmp_path / "m"
    )
    by_file = command(
        "evaluate", "--embeddings", tmp_path / "emb", *arguments, "--output_dir", tmp_path / "e"
    )
    assert by_model.code == by_file.code == 0
    expected, found = (read_scores(tmp_path / name / "scores.txt")[0] for name in "me")
    assert np.abs(expected - found).max() < 1e-5


def test_an_utterance_without_embedding_is_named(command, few, data_dir, tmp_path):
    archive = data_dir / "libritts" / "ecapa_voxceleb_embeddings.npz"
    few.write_text(few.read_text() + "1 8887/x/y.wav 8887/x/z.wav\n")
    shown = command("evaluate", "--embeddings", archive, *few_arguments(few, data_dir))
    assert shown.code == 2
    assert (
        "2 of 22 utterances have no embedding" in shown.err
        and "line 191: 8887/x/y.wav" in shown.err
    )


def test_the_archive_of_real_ecapa_embeddings(command, few, data_dir):
    archive = data_dir / "libritts" / "ecapa_voxceleb_embeddings.npz"
    shown = command("evaluate", "--embeddings", archive, *few_arguments(few, data_dir))
    assert shown.code == 0 and "0.00%" in shown.out


def test_trials_are_made_of_a_corpus(command, data_dir, tiny_model, tmp_path):
    def run(*more):
        shown = command(
            "evaluate",
            "--model",
            tiny_model,
            "--data_root",
            data_dir / "vctk",
            "--num_bootstrap",
            0,
            "--output_dir",
            tmp_path,
            *more,
        )
        assert shown.code == 0, shown.err
        rows = [line.split()[1:] for line in (tmp_path / "scores.txt").read_text().splitlines()]
        return [(label, a.split("/")[-2], b.split("/")[-2]) for label, a, b in rows]

    everything = run()
    assert len(everything) == 40 * 39 // 2
    assert sum(label == "1" for label, _, _ in everything) == 4 * 45
    assert all((label == "1") == (a == b) for label, a, b in everything)
    assert run("--max_trials", 100, "--seed", 3) == run("--max_trials", 100, "--seed", 3)
    assert run("--max_trials", 100, "--seed", 3) != run("--max_trials", 100, "--seed", 4)
    women = {"p225", "p228"}
    hard = run("--hard")
    assert len(hard) == 180 + 200
    assert all((a in women) == (b in women) for _, a, b in hard)


def test_hard_trials_need_the_sex(command, data_dir, tiny_model, tmp_path):
    corpus = tmp_path / "corpus"
    shutil.copytree(data_dir / "vctk" / "wav48_silence_trimmed", corpus)
    shown = command("evaluate", "--model", tiny_model, "--data_root", corpus, "--hard")
    assert shown.code == 2 and "Give --speaker_table" in shown.err
    table = tmp_path / "table.csv"
    table.write_text("speaker,sex\np225,F\np226,M\np227,M\np228,F\n")
    shown = command(
        "evaluate", "--model", tiny_model, "--data_root", corpus, "--hard", "--speaker_table", table
    )
    assert shown.code == 0 and "180 target and 200 nontarget" in shown.out


def test_a_list_without_labels_gives_scores_only(command, few, data_dir, tiny_model, tmp_path):
    few.write_text("".join(line.split(" ", 1)[1] + "\n" for line in few.read_text().splitlines()))
    shown = command(
        "evaluate",
        "--model",
        tiny_model,
        *few_arguments(few, data_dir),
        "--output_dir",
        tmp_path / "out",
    )
    assert shown.code == 0 and "190 trials without labels" in shown.out
    lines = (tmp_path / "out" / "scores.txt").read_text().splitlines()
    assert len(lines) == 190 and lines[0].split()[1] == "-"
    assert not (tmp_path / "out" / "det.png").exists()
    assert command("evaluate", "--scores", tmp_path / "out" / "scores.txt").code == 0


def test_kaldi_lists_and_data_folders(command, data_dir, tmp_path):
    folder = data_dir / "kaldi" / "dev_eval"
    speakers = dict(line.split() for line in (folder / "utt2spk").read_text().splitlines())
    chosen = sorted(speakers)[:64]
    lines = [
        f"{a} {b} {'target' if speakers[a] == speakers[b] else 'nontarget'}"
        for i, a in enumerate(chosen)
        for b in chosen[i + 1 :]
    ]
    trials = tmp_path / "trials"
    trials.write_text("\n".join(lines))
    shown = command("evaluate", "--model", "dvector", "--trials", trials, "--data_root", folder)
    assert shown.code == 0, shown.err
    assert "64 utterances of 8 speakers" in shown.out and "known from utt2spk" in shown.out


@pytest.mark.parametrize("protocol", ["crops:3:1.5", "windows:1.5:0.75"])
def test_protocols(command, few, data_dir, tiny_model, protocol, tmp_path):
    score = "l2" if protocol.startswith("crops") else "cosine"
    shown = command(
        "evaluate",
        "--model",
        tiny_model,
        *few_arguments(few, data_dir),
        "--protocol",
        protocol,
        "--score",
        score,
        "--output_dir",
        tmp_path / "out",
        "--num_bootstrap",
        0,
    )
    assert shown.code == 0
    scores, _ = read_scores(tmp_path / "out" / "scores.txt")
    assert (scores <= 0).all() if score == "l2" else (scores <= 1).all()


def test_the_real_command_in_a_process(few, data_dir, tiny_model, tmp_path):
    repository = Path(__file__).resolve().parents[2]
    arguments = [
        "--model",
        tiny_model,
        *few_arguments(few, data_dir),
        "--num_bootstrap",
        "50",
        "--no_cache",
        "--output_dir",
        tmp_path / "out",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "speaker_encoder", "evaluate", *map(str, arguments)],
        cwd=repository,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "EER" in done.stdout and (tmp_path / "out" / "report.html").is_file()


@pytest.mark.slow
def test_a_million_trials_are_scored_in_seconds_and_little_memory(tmp_path):
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(250, 1, 192)) + 1.5 * rng.normal(size=(250, 20, 192))).reshape(-1, 192)
    names = [f"speaker{i // 20:03d}/u{i % 20:02d}.wav" for i in range(5000)]
    np.savez(tmp_path / "e.npz", embeddings=rows.astype(np.float32), paths=np.array(names))
    enrolment = rng.integers(0, 5000, 1_000_000)
    is_target = rng.random(1_000_000) < 0.2
    others = (enrolment + rng.integers(20, 4980, 1_000_000)) % 5000
    own = enrolment // 20 * 20 + (enrolment + rng.integers(1, 20, 1_000_000)) % 20
    test = np.where(is_target, own, others)
    labels = (enrolment // 20 == test // 20).astype(int).tolist()
    with open(tmp_path / "trials.txt", "w") as file:
        for label, a, b in zip(labels, enrolment.tolist(), test.tolist(), strict=True):
            file.write(f"{label} {names[a]} {names[b]}\n")
    code = (
        "import resource, sys\n"
        "from speaker_encoder.cli.main import main\n"
        "code = main(sys.argv[1:])\n"
        "print('peak MB', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n"
        "sys.exit(code)"
    )
    arguments = [
        "evaluate",
        "--embeddings",
        "e.npz",
        "--trials",
        "trials.txt",
        "--output_dir",
        "out",
    ]
    repository = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (system,) = json.loads((tmp_path / "out" / "results.json").read_text())["systems"]
    assert system["num_targets"] + system["num_nontargets"] == 1_000_000
    assert system["scoring_seconds"] < 10
    assert int(done.stdout.rsplit("peak MB", 1)[1]) < 2000


def test_systems_may_be_named(command, few, data_dir, tiny_model, tmp_path):
    arguments = [*few_arguments(few, data_dir), "--num_bootstrap", 0, "--output_dir", tmp_path]
    shown = command("evaluate", "--model", f"mine={tiny_model}", *arguments)
    assert shown.code == 0 and "\nmine " in shown.out and str(tiny_model) not in shown.out
    shown = command("evaluate", "--scores", f"again={tmp_path / 'scores.txt'}")
    assert shown.code == 0 and "\nagain " in shown.out
