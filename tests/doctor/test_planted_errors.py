"""Errors planted in real speech are found by a real encoder; page and list follow from it."""

import importlib.util
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from speaker_encoder import SpeakerEncoder
from speaker_encoder.cli.main import main
from speaker_encoder.corpora import scan
from speaker_encoder.doctor import examine, make_keep_list
from speaker_encoder.doctor.keep_list import choose_kinds

if importlib.util.find_spec("resemblyzer") is None:
    pytest.skip("resemblyzer ships the weights of dvector", allow_module_level=True)

_FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "doctor.py"
_SPEC = importlib.util.spec_from_file_location("doctor_benchmark", _FILE)
benchmark = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(benchmark)


@pytest.fixture(scope="module")
def encoder():
    return SpeakerEncoder.from_pretrained("dvector")


@pytest.fixture(scope="module")
def examined(data_dir, encoder, tmp_path_factory):
    """60 speakers of the half that the doctor was not made on."""
    rows = benchmark.read_table(data_dir, "held_out")
    names = sorted({row["speaker"] for row in rows})[::2]
    rows = [row for row in rows if row["speaker"] in names]
    folder = tmp_path_factory.mktemp("planted")
    planted = benchmark.make_copy(data_dir, rows, folder, 7, (20, 10, 2))
    diagnosis = examine(scan(folder, "folders", use_cache=False), encoder, model_name="dvector")
    return planted, diagnosis


@pytest.mark.slow
def test_precision_and_recall_of_planted_errors(examined):
    planted, diagnosis = examined
    found = benchmark.found_by(diagnosis)
    assert len(planted.wrong) >= 20
    assert len(found.wrong & planted.wrong) >= 0.85 * len(planted.wrong)
    assert len(found.wrong & planted.wrong) >= 0.85 * len(found.wrong)
    assert found.copies == planted.copies
    assert found.splits >= planted.splits
    assert len(found.splits - planted.splits) <= 1


@pytest.mark.slow
def test_the_list_keeps_what_is_right(examined):
    planted, diagnosis = examined
    kept = make_keep_list(diagnosis, choose_kinds(), join=True)
    names = {str(Path(line.split(" ", 1)[1]).with_suffix("")) for line in kept.lines}
    speakers = {line.split(" ", 1)[0] for line in kept.lines}
    assert len(names & planted.wrong) <= 3
    for pair in planted.copies:
        assert len(names & pair) <= 1
    assert not any(speaker.endswith("_again") for speaker in speakers)
    touched = {name for pair in planted.copies for name in pair} | planted.wrong
    all_names = {
        str(Path(u.path).relative_to(diagnosis.data.root).with_suffix(""))
        for u in diagnosis.data.utterances
    }
    assert len(all_names - touched - names) <= 3  # right ones that were lost


@pytest.mark.slow
def test_a_voice_of_the_evaluation_data_is_found_under_another_name(data_dir, encoder, tmp_path):
    rows = benchmark.read_table(data_dir, "development")
    sizes = Counter(row["speaker"] for row in rows if row["corpus"] == "speechocean762")
    names = sorted(sizes)[:60]
    shared = [name for name in names if sizes[name] == 8][:6]
    for name in names:
        paths = [data_dir / row["path"] for row in rows if row["speaker"] == name]
        half = len(paths) // 2 if name in shared else len(paths)
        for number, path in enumerate(paths):
            is_data = number < half
            folder = tmp_path / ("train" if is_data else "eval") / (name if is_data else f"x{name}")
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / path.name)
    data, other = (
        scan(tmp_path / part, "folders", use_cache=False) for part in ("train", "eval")
    )  # fmt: skip
    diagnosis = examine(data, encoder, evaluation=other)
    found = {finding.speakers for finding in diagnosis.of_kind("voice_in_evaluation")}
    wanted = {(name, f"x{name} (evaluation)") for name in shared}
    assert found <= wanted
    assert len(found) >= 5
    finding = diagnosis.of_kind("voice_in_evaluation")[0]
    assert all("/train/" in path for path in finding.suspects)


@pytest.mark.slow
def test_the_command_with_a_model_and_one_speaker_only(data_dir, tmp_path, capsys):
    rows = [row for row in benchmark.read_table(data_dir, "all") if row["corpus"] == "libritts"]
    for row in rows:
        folder = tmp_path / "corpus" / row["speaker"]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(data_dir / row["path"], folder)
    arguments = ["--model", "dvector", "--model_device", "cpu", "--output_dir", str(tmp_path / "o")]
    assert main(["doctor", "--data_root", str(tmp_path / "corpus"), *arguments]) == 0
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    assert report["model"] == "dvector"
    assert report["counts"]["wrong_speaker"] == 0
    assert "at least 5 speakers with 4 utterances" in capsys.readouterr().out
    alone = str(tmp_path / "corpus" / rows[0]["speaker"])
    (tmp_path / "list.txt").write_text(
        "".join(f"one {path.name}\n" for path in sorted(Path(alone).iterdir()))
    )
    listed = ["--list", str(tmp_path / "list.txt")]
    assert main(["doctor", "--data_root", alone, *listed, *arguments]) == 0
    assert "the data has fewer than two" in capsys.readouterr().out
