"""Restarts by torchrun and SLURM: go on with what the same launch has begun, and nothing else."""

import contextlib
import json
import re
import signal
import sys

import pytest
from conftest import TrainingRun

from speaker_encoder import SpeakerEncoder
from speaker_encoder.errors import UserError
from speaker_encoder.hub.contents import ContentOptions, write_contents
from speaker_encoder.hub.source import find_source
from speaker_encoder.training import TrainConfig
from speaker_encoder.training.cluster_restart import goes_on_with, is_restart, launch_marks
from speaker_encoder.training.resume import open_run
from speaker_encoder.training.run_dir import RunDirectory
from speaker_encoder.training.stages import stage_folder

_LAUNCHER = (
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
    *("--max_restarts=1", "--monitor_interval=0.1", "train_encoder.py"),
)


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "runs" / "a")


@pytest.fixture
def start(tmp_path, monkeypatch, run):
    """Gives start(torchrun, restarts, ...): opens the run as a start by a launcher does."""

    def start(torchrun="", restarts=0, job="", requeued=0, force_restart=True, overwrite=False):
        error_file = f"{tmp_path}/{torchrun}/attempt_{restarts}/0/error.json" if torchrun else ""
        for name, value in (
            ("TORCHELASTIC_ERROR_FILE", error_file),
            ("TORCHELASTIC_RESTART_COUNT", str(restarts)),
            ("TORCHELASTIC_RUN_ID", "none"),
            ("SLURM_JOB_ID", job),
            ("SLURM_RESTART_COUNT", str(requeued)),
        ):
            monkeypatch.setenv(name, value)
        values = {"model_name": "ecapa", "pretrained": False, "train_data_root": "demo"}
        values |= {"output_dir": str(run.path.parent), "run_id": "a", "device": "cpu"}
        if goes_on_with(run, "cpu"):
            force_restart = overwrite = False
        config = TrainConfig.from_dict({**values, "force_restart": force_restart})
        with contextlib.ExitStack() as stack:
            open_run(config, overwrite, stack)

    return start


def finish(run):
    run.results_path.write_text("{}")


@pytest.mark.parametrize("name", ["TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"])
def test_a_restart_is_what_a_launcher_counts_as_one(name, monkeypatch):
    assert not is_restart("cpu")
    for count, expected in (("0", False), ("", False), ("2", True)):
        monkeypatch.setenv(name, count)
        assert is_restart("cpu") == expected


def test_a_restart_shows_the_results_of_its_own_launch_only(start, run):
    start("first")
    finish(run)
    start("first", restarts=1)
    assert run.is_finished
    for restarts in (0, 1, 2):
        with pytest.raises(UserError, match="holds a finished run, and force_restart is true"):
            start("second", restarts)
    assert run.is_finished


def test_a_start_that_died_before_it_cleared_the_run_has_not_begun_it(start, run):
    start("first")
    (run.path / "of_the_first").touch()
    start("second", restarts=1)  # its first start came to nothing
    assert not (run.path / "of_the_first").exists()
    (run.path / "of_the_second").touch()
    start("second", restarts=2)
    assert (run.path / "of_the_second").exists()
    finish(run)
    start("third", restarts=1, force_restart=False, overwrite=True)
    assert not run.is_finished


def test_a_job_that_was_queued_again_goes_on_with_its_own_run(start, run):
    start("first", job="7")
    finish(run)
    start("second", job="7", requeued=1)
    start("second", job="7", requeued=1, restarts=1)
    start(job="7", requeued=1)
    with pytest.raises(UserError, match="holds a finished run"):
        start("third", job="8", requeued=1)
    with pytest.raises(UserError, match="holds a finished run"):  # by hand, in the same job
        start("third", job="7", restarts=1)


def test_the_id_of_a_launch_counts_where_torchrun_keeps_no_logs(monkeypatch):
    assert launch_marks() == set()
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # that of each launch without --rdzv_id
    assert launch_marks() == set()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "night")
    assert len(launch_marks()) == 1


def test_what_is_noted_of_a_launch_says_nothing_of_user_or_machine(start, run, tmp_path):
    start("first", job="7")
    text = (run.path / ".launch").read_text()
    assert re.fullmatch(r"([0-9a-f]{64}\n){2}", text)
    assert run.launch_marks() == launch_marks()
    start(force_restart=True)  # begun anew without a launcher
    assert not (run.path / ".launch").exists() and run.launch_marks() == set()


def test_a_start_that_was_cut_short_before_its_config_is_no_foreign_folder(start, run):
    run.create()
    run.note_launch({"0" * 64})
    start("first")
    assert run.config_path.is_file()


def check_not_published(run: RunDirectory) -> None:
    """Writes what a push would, and looks for what the run directory says of its launch."""
    (mark,) = run.launch_marks()
    source = find_source(run.path)
    encoder = SpeakerEncoder.from_pretrained(source.model_dir)
    folder = run.path.parent / "pushed"
    write_contents(encoder, folder, ContentOptions("owner/name"), source)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 3 and ".launch" not in {path.name for path in files}
    assert not any(mark.encode() in path.read_bytes() for path in files)


@pytest.mark.slow
def test_a_requeued_job_goes_on_although_the_config_says_to_start_anew(make_run, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    run = make_run(force_restart=True, max_steps=200, val_data_root=None)
    run.run_until(2, signal.SIGTERM)
    done = len(run.metrics("train"))
    assert 0 < done < 200
    run.config_path.write_text(run.config_path.read_text().replace("200", str(done + 1)))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    run.run()
    check_not_published(RunDirectory(run.path))
    assert f"resuming from {run.path}/checkpoint-{done}" in run.bytes_of("train.log").decode()
    assert [line["step"] for line in run.metrics("train")] == list(range(1, done + 2))


@pytest.mark.slow
def test_a_requeued_recipe_goes_on_with_its_stage(make_run, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    keys = {"val_data_root": None, "force_restart": True}
    run = make_run(**keys, stages=[{"max_steps": 1}, {"max_steps": 200}])
    second = TrainingRun(run.folder, json.loads(run.config_path.read_text()))
    second.path = stage_folder(run.path, 2)
    second.run_until(2, signal.SIGTERM)
    results = stage_folder(run.path, 1) / "results.json"
    written = results.stat().st_mtime_ns
    done = len(second.metrics("train"))
    assert 0 < done < 200
    run.config_path.write_text(run.config_path.read_text().replace("200", str(done + 1)))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    run.run()
    assert [line["step"] for line in second.metrics("train")] == list(range(1, done + 2))
    assert results.stat().st_mtime_ns == written


@pytest.mark.slow
@pytest.mark.ddp
def test_torchrun_does_not_make_a_success_of_a_refusal(make_run, monkeypatch):
    run = make_run(max_steps=1, val_data_root=None)
    run.run()
    results = run.bytes_of("results.json")
    values = json.loads(run.config_path.read_text())
    run.config_path.write_text(json.dumps({**values, "force_restart": True}))
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    refused = run.run(command=_LAUNCHER, expect=1)
    assert refused.stderr.count("holds a finished run, and force_restart is true") == 2
    assert refused.stdout == ""
    assert run.bytes_of("results.json") == results
