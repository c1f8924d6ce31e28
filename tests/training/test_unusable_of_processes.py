"""Files that one process of several could not use are known after a resume."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from broken_files import RATE, CorpusWriter, make_config
from conftest import TrainingRun
from hosts import process_of

from speaker_encoder.training.run_dir import RunDirectory

pytestmark = [pytest.mark.slow, pytest.mark.ddp]

_SPEAKERS = [f"s{number:02}" for number in range(40)]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Each speaker has one recording of silence; a run below draws it once at most."""
    corpus = CorpusWriter(tmp_path_factory.mktemp("corpus")).speakers(*_SPEAKERS, num_utterances=5)
    for speaker in _SPEAKERS:
        corpus.write(speaker, "silence.wav", np.zeros(RATE, np.float32))
    return corpus.root


def kill_after(run: TrainingRun, step: int) -> dict[str, str]:
    """Kills the main process when a checkpoint is there; gives the files that it names."""
    launcher = run.start(is_fresh=True)
    limit = time.monotonic() + 120
    checkpoints = RunDirectory(run.path).checkpoints
    while not any(saved >= step for saved, _ in checkpoints()):
        assert launcher.poll() is None and time.monotonic() < limit, launcher.communicate()[1]
        time.sleep(0.005)
    pid = process_of(run, 0)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    _, err = launcher.communicate(timeout=120)
    assert launcher.returncode == 1 and "was killed (SIGKILL)" in err
    assert not run.results_exist()
    return json.loads((checkpoints()[-1][1] / "progress.json").read_text())["unusable_files"]


def test_files_that_any_process_found_are_in_the_results_of_a_killed_run(tmp_path, root):
    keys = {"data_parallel": [0, 1], "max_steps": 18, "save_every": 2, "backup_every": 0}
    whole = make_config(tmp_path / "whole", root, **keys)
    whole.run(expect=3, is_fresh=True)
    found = whole.results()["unusable_files"]
    assert len(found) > 10

    killed = make_config(tmp_path / "killed", root, **keys)
    known = kill_after(killed, step=4)
    assert known and len(known) < len(found)
    killed.run(expect=3, is_fresh=True)
    assert killed.results()["unusable_files"] == found
