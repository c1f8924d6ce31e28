"""`speaker-encoder evaluate` in real processes: killed, and two at a time."""

import json
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from preloaded import Preloaded

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("resemblyzer") is None, reason="pip install resemblyzer: it ships the d-vector"
    ),
]


@pytest.fixture
def start(tmp_path, data_dir, monkeypatch):
    monkeypatch.setenv("SPEAKER_ENCODER_CACHE", str(tmp_path / "cache"))

    def call(name):
        arguments = ["evaluate", "--model", "dvector", "--num_bootstrap", "0", "--trials",
                     data_dir / "lists" / "dev_eval_trials.txt", "--data_root", data_dir,
                     "--output_dir", tmp_path / name]  # fmt: skip
        return Preloaded(REPOSITORY / "speaker_encoder" / "__main__.py", arguments, REPOSITORY)

    return call


def finish(process, folder):
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    (system,) = json.loads((folder / "results.json").read_text())["systems"]
    assert system["eer"]["value"] == pytest.approx(0.0598, abs=5e-4)
    return system["num_embedded_now"]


def test_a_killed_evaluation_keeps_what_it_embedded(start, tmp_path):
    process = start("killed")
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        sizes = [path.stat().st_size for path in (tmp_path / "cache").rglob("*.jsonl")]
        if sum(sizes) > 5000:
            break
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    assert not (tmp_path / "killed" / "results.json").exists()
    assert 0 < finish(start("again"), tmp_path / "again") < 320
    assert finish(start("third"), tmp_path / "third") == 0


def test_two_at_a_time_share_the_cache(start, tmp_path):
    both = {name: start(name) for name in ("one", "two")}
    for name, process in both.items():
        finish(process, tmp_path / name)
    assert finish(start("three"), tmp_path / "three") == 0
