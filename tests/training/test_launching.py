"""Our own launcher: the environment of its processes, and how it ends after a signal."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.ddp

# in place of `python -m speaker_encoder`: what is tested is torch's agent, and what we make of it
_PROCESS = """#!{python}
import os, signal, sys, time
rank = os.environ["RANK"]
def note(name, text=""):
    with open("{folder}/" + name + rank, "w") as file:
        file.write(text)
{body}
"""
_LAUNCH = """
import sys
from speaker_encoder.cli.main import guarded
from speaker_encoder.training import TrainConfig, cluster
config_path, sys.executable, cluster.TIMEOUT_SECONDS = *sys.argv[1:3], float(sys.argv[3])
config = TrainConfig.from_json(config_path)
sys.exit(guarded(lambda: cluster.launch_processes(config, ["train"])))
"""
_SAVES_SLOWLY = """
def save(number, frame):
    time.sleep(3)
    note("saved")
    sys.exit({code})
signal.signal(signal.SIGTERM, save)
note("ready")
time.sleep(60)
"""
_NEVER_ENDS = """
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
note("ready")
time.sleep(60)
"""
_ENDS_AT_THE_SECOND = """
import itertools
count = itertools.count()
def stop(number, frame):
    note("told")
    if next(count) > 0:
        sys.exit(130)
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
note("ready")
while True:
    time.sleep(0.05)
"""


class Launcher:
    """Starts two processes of a script through our launcher, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, body: str, *, seconds: float = 60, **variables: str) -> subprocess.Popen:
        script = self.folder / "process"
        script.write_text(_PROCESS.format(python=sys.executable, folder=self.folder, body=body))
        script.chmod(0o755)
        values = {
            "model_name": "ecapa",
            "pretrained": False,
            "train_data_root": str(self.folder),
            "output_dir": str(self.folder / "runs"),
            "speakers_per_batch": 4,
            "device": "best" if "CUDA_VISIBLE_DEVICES" in variables else "cpu",
            "data_parallel": [1, 0],
        }
        config_path = self.folder / "config.json"
        config_path.write_text(json.dumps(values))
        return subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(config_path), str(script), str(seconds)],
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **variables},
            stderr=subprocess.PIPE,
            text=True,
        )

    def notes(self, name: str) -> list[str]:
        return [path.read_text() for path in sorted(self.folder.glob(f"{name}[01]"))]

    def wait_for(self, name: str, launcher: subprocess.Popen) -> None:
        limit = time.monotonic() + 60
        while len(self.notes(name)) < 2:
            assert launcher.poll() is None, launcher.communicate()[1]
            assert time.monotonic() < limit
            time.sleep(0.02)


@pytest.fixture
def launcher(tmp_path):
    return Launcher(tmp_path)


@pytest.mark.parametrize(
    ("visible", "expected"), [("2,3", "3,2"), ("GPU-a, GPU-b,GPU-c", "GPU-b,GPU-a"), ("", "1,0")]
)
def test_numbers_of_cards_count_within_the_visible_ones(launcher, visible, expected):
    body = 'note("cards", os.environ["CUDA_VISIBLE_DEVICES"])'
    process = launcher.start(body, CUDA_VISIBLE_DEVICES=visible)
    assert process.wait(60) == 0, process.communicate()[1]
    assert launcher.notes("cards") == [expected, expected]


@pytest.mark.parametrize("code", [0, 2])
def test_processes_have_the_time_to_save_after_a_signal(launcher, code):
    # what torch would give them, and what it waited before: less than they take
    body = _SAVES_SLOWLY.format(code=code)
    process = launcher.start(body, TORCH_ELASTIC_SHUTDOWN_TIMEOUT="1")
    launcher.wait_for("ready", process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (len(launcher.notes("saved")), process.returncode) == (2, code), err


def test_a_process_that_does_not_end_after_a_signal_is_lost(launcher):
    process = launcher.start(_NEVER_ENDS, seconds=1)
    launcher.wait_for("ready", process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert (
        "error: Process 0 of 2 was killed (SIGKILL), before it had saved and ended. After SIGTERM "
        "it has 1 s for that; raise ddp_timeout" in err
    )
    assert "force_restart false goes on from the start: no checkpoint was saved yet." in err
    assert "Traceback" not in err


def test_a_signal_that_comes_before_the_processes_can_save_is_no_success(launcher):
    process = launcher.start('note("ready"); time.sleep(60)')
    launcher.wait_for("ready", process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in err


def test_a_second_ctrl_c_reaches_the_processes(launcher):
    process = launcher.start(_ENDS_AT_THE_SECOND)
    launcher.wait_for("ready", process)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    launcher.wait_for("told", process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in err
    assert time.monotonic() - start < 30


@pytest.mark.slow
def test_a_run_that_is_stopped_has_saved(make_run):
    run = make_run(max_steps=200, val_data_root=None, data_parallel=[0, 1])
    assert run.run_until(2, signal.SIGTERM, is_fresh=True) == 0
    done = len(run.metrics("train"))
    assert 0 < done < 200
    assert (run.path / f"checkpoint-{done}").is_dir()
