"""The run directory: whole or absent, resumed or refused."""

import os
import subprocess
import sys
import time

import pytest

from speaker_encoder.errors import UserError
from speaker_encoder.training.run_dir import LOSS_NAME, RunDirectory
from speaker_encoder.training.run_files import write_atomically


@pytest.fixture
def run(tmp_path):
    directory = RunDirectory(tmp_path / "runs" / "a")
    directory.create()
    return directory


def make_checkpoint(run, step):
    folder = run.path / f"checkpoint-{step}"
    folder.mkdir()
    (folder / "model.safetensors").write_text(str(step))
    (folder / "trainer_state.json").write_text("{}")
    (folder / "progress.json").write_text("{}")


def test_checkpoints_are_found_in_order_of_steps_and_only_whole_ones(run):
    for step in (100, 20, 3):
        make_checkpoint(run, step)
    (run.path / "checkpoint-200").mkdir()
    (run.path / "checkpoint-best").mkdir()
    assert [step for step, _ in run.checkpoints()] == [3, 20, 100]


def test_pruning_keeps_the_newest_and_the_newest_backups(run):
    for step in (10, 20, 30, 40, 45):
        make_checkpoint(run, step)
    run.prune(keep_backups=2, backup_every=10)
    assert [step for step, _ in run.checkpoints()] == [30, 40, 45]
    run.prune(keep_backups=0, backup_every=10)
    assert [step for step, _ in run.checkpoints()] == [45]


def test_backups_stay_while_there_are_fewer_than_are_to_be_kept(run):
    for step in (10, 20, 30, 40):
        make_checkpoint(run, step)
        run.prune(keep_backups=3, backup_every=10)
    assert [step for step, _ in run.checkpoints()] == [20, 30, 40]


def test_a_staged_folder_appears_whole(run):
    target = run.path / "model"
    with run.staged(target) as staging:
        (staging / "a").write_text("1")
        assert not target.exists()
    assert (target / "a").read_text() == "1"
    with run.staged(target) as staging:
        (staging / "b").write_text("2")
    assert sorted(p.name for p in target.iterdir()) == ["b"]


def test_a_staged_folder_that_fails_leaves_the_old_one(run):
    target = run.path / "model"
    with run.staged(target) as staging:
        (staging / "a").write_text("1")
    with pytest.raises(RuntimeError, match="half-way"), run.staged(target) as staging:
        (staging / "a").write_text("2")
        raise RuntimeError("half-way")
    assert (target / "a").read_text() == "1"
    assert not (run.path / ".staging").exists() or not any((run.path / ".staging").iterdir())


def test_publishing_the_same_model_again_leaves_no_part_of_the_loss(run):
    run.best_dir(3).mkdir(parents=True)
    for name in ("model.safetensors", LOSS_NAME):
        (run.best_dir(3) / name).write_text(name)
    for _ in range(2):  # the second time both names are one file, of which a rename does nothing
        run.publish_best(3)
        found = sorted(path.name for path in run.path.iterdir())
        assert found == [".best", ".lock", LOSS_NAME, "model"]


def test_a_full_disk_is_said_and_the_last_checkpoint_named(run):
    make_checkpoint(run, 7)
    wanted = r"disk is full.*checkpoint-7"
    with pytest.raises(UserError, match=wanted), run.staged(run.path / "checkpoint-8") as staging:
        with open("/dev/full", "w") as file:
            file.write(str(staging))
    assert [step for step, _ in run.checkpoints()] == [7]


_KILLED = """
import os, sys
from pathlib import Path
from speaker_encoder.training.run_dir import RunDirectory
run = RunDirectory(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    with run.staged(run.path / "model") as staging:
        for name in "abc":
            (staging / name).write_text(str(number))
    print(number, flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.011, 0.02])
def test_a_replaced_folder_survives_kill(run, delay):
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(run.path)], stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    time.sleep(delay)
    process.kill()
    process.wait()
    run.recover()
    contents = {(run.path / "model" / name).read_text() for name in "abc"}
    assert len(contents) == 1
    assert not (run.path / ".staging").exists()


def test_a_started_run_is_resumed_or_cleared(run):
    write_atomically(run.config_path, "{}")
    make_checkpoint(run, 5)
    run.prepare(force_restart=False, overwrite=False)
    assert run.checkpoints()
    run.prepare(force_restart=True, overwrite=False)
    assert not run.checkpoints() and not run.config_path.exists()


def test_a_finished_run_is_never_cleared_without_overwrite(run):
    write_atomically(run.config_path, "{}")
    write_atomically(run.results_path, "{}")
    with pytest.raises(UserError, match="--overwrite"):
        run.prepare(force_restart=True, overwrite=False)
    assert run.is_finished
    run.prepare(force_restart=False, overwrite=False)
    assert run.is_finished
    run.prepare(force_restart=True, overwrite=True)
    assert not run.is_finished


def test_files_of_others_are_never_touched(run):
    (run.path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"not of a run \(thesis.txt\)"):
        run.prepare(force_restart=True, overwrite=True)
    assert (run.path / "thesis.txt").read_text() == "mine"


def test_two_trainings_cannot_write_to_one_run(run):
    code = (
        "import sys; from pathlib import Path\n"
        "from speaker_encoder.training.run_dir import RunDirectory\n"
        "with RunDirectory(Path(sys.argv[1])).locked(): pass"
    )
    with run.locked():
        found = subprocess.run(
            [sys.executable, "-c", code, str(run.path)], capture_output=True, text=True
        )
    assert "Another training is writing" in found.stderr
    assert subprocess.run([sys.executable, "-c", code, str(run.path)]).returncode == 0


def test_a_place_that_cannot_be_written_to_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        RunDirectory(tmp_path / "file" / "run").create()
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(UserError, match="cannot write to"):
            RunDirectory(tmp_path / "locked" / "run").create()
