"""Time to quality: what the curves say, and what the clock counts on both sides."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

_FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(_FOLDER))
import time_to_quality  # noqa: E402
import training_clock  # noqa: E402
import voxceleb_trainer_run  # noqa: E402
from time_to_quality_plot import Curve, Point, draw_curves, summarise  # noqa: E402

sys.path.remove(str(_FOLDER))

OURS = [
    Curve("ours", 0, [Point(10, 5.0, 6.0, 31.0), Point(20, 10.0, 12.0, 24.0)]),
    Curve("ours", 1, [Point(10, 7.0, 8.0, 29.0), Point(20, 14.0, 16.0, 19.0)]),
]
THEIRS = [Curve("theirs", 0, [Point(8, 16.0, 20.0, 35.0), Point(16, 32.0, 40.0, 28.0)])]

TRAINER = """
import torch

class ModelTrainer:
    def __init__(self, model, gpu):
        self.device = torch.device(f"cuda:{gpu}")

    def train_network(self, loader, verbose):
        print("trains", torch.zeros(1).to(self.device).item(), len(loader))
        return 0.5, 1.0

    def saveParameters(self, path, epoch):
        torch.save({"epoch": epoch}, path)
"""
SCRIPT = """
import sys
import torch
from SpeakerNet import ModelTrainer

if __name__ == "__main__":
    trainer = ModelTrainer(torch.nn.Linear(2, 2).cuda(0), gpu=0)
    for epoch in (1, 2):
        assert trainer.train_network([1, 2, 3], verbose=False) == (0.5, 1.0)
        print("evaluates")
        trainer.saveParameters(f"{sys.argv[1]}/{epoch}.model", epoch=epoch)
"""


class Events:
    """A clock that notes what it is told."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def start(self) -> None:
        self.seen.append("start")

    def stop(self) -> None:
        self.seen.append("stop")

    def mark(self, steps: int, checkpoint: Path) -> None:
        assert checkpoint.exists()
        self.seen.append(f"mark {steps}")


def test_rows_are_means_over_the_runs_at_levels_that_all_reached() -> None:
    rows = {row[0]: row[1:] for row in summarise([*OURS, *THEIRS], "w", 4, "cpu")}
    speeds = (80 / 10 + 80 / 14) / 2, 64 / 32
    expected = {
        "w: crops trained on": (*speeds, speeds[0] / speeds[1], "per s of CPU"),
        "w: to 37.5 % EER": (6.0, 16.0, 16 / 6, "s of CPU"),
        "w: to 35 % EER": (6.0, 16.0, 16 / 6, "s of CPU"),
        "w: to 32.5 % EER": (6.0, 32.0, 32 / 6, "s of CPU"),
        "w: to 30 % EER": (8.5, 32.0, 32 / 8.5, "s of CPU"),
        "w: EER at the end": (21.5, 28.0, 28 / 21.5, "%"),
    }
    assert list(rows) == list(expected)
    for what, values in expected.items():
        assert rows[what][:3] == pytest.approx(values[:3])
        assert rows[what][3] == values[3]


def test_rows_of_ours_alone_have_no_counterpart() -> None:
    rows = summarise(OURS, "w", 4, "wall")
    assert [row[0] for row in rows[1:-1]] == [f"w: to {x:g} % EER" for x in (32.5, 30, 27.5, 25)]
    assert rows[3][1:] == ((12 + 16) / 2, None, None, "s")
    assert all(row[2] is None and row[3] is None for row in rows)


@pytest.mark.parametrize("clock", training_clock.CLOCKS)
def test_both_curves_are_drawn(clock: str, tmp_path: Path) -> None:
    both, alone = tmp_path / "both.png", tmp_path / "alone.png"
    draw_curves([*OURS, *THEIRS], clock, both)
    draw_curves(OURS, clock, alone)
    assert both.read_bytes()[:4] == alone.read_bytes()[:4] == b"\x89PNG"
    assert both.read_bytes() != alone.read_bytes()


def test_the_clock_rests_and_writes_what_was_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([(1.0, 100.0), (3.0, 101.0), (9.0, 150.0), (10.0, 152.0)])
    monkeypatch.setattr(training_clock, "seconds_now", lambda: next(times))
    path = tmp_path / "marks.jsonl"
    clock = training_clock.TrainingClock(path)
    for steps in (4, 8):
        clock.start()
        clock.stop()
        clock.mark(steps, tmp_path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(x["steps"], x["cpu"], x["wall"]) for x in lines] == [(4, 2.0, 1.0), (8, 3.0, 3.0)]


def test_seconds_of_children_count_while_they_live_and_after() -> None:
    code = "import time\nwhile time.process_time() < 0.3: pass\nprint('done', flush=True)\ninput()"
    before, _ = training_clock.seconds_now()
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"done\n"
    alive, _ = training_clock.seconds_now()
    child.communicate(b"\n")
    after, _ = training_clock.seconds_now()
    assert after >= alive >= before + 0.28  # the kernel counts in hundredths


def test_our_side_trains_and_its_checkpoint_is_measured(data_dir: Path, tmp_path: Path) -> None:
    lines = (data_dir / "lists" / "train_list.txt").read_text().splitlines()
    foreign = next(line for line in lines if " libritts/" in line)
    list_path = tmp_path / "tiny.txt"
    list_path.write_text("\n".join([lines[0], lines[1], foreign, lines[12], lines[13]]))
    arguments = argparse.Namespace(
        data_dir=data_dir, output_dir=tmp_path, train_list=list_path, speakers_per_batch=2,
        epochs=2, test_interval=1, num_workers=0, device="cpu",
    )  # fmt: skip
    train_list, trial_list, num_files = time_to_quality.write_lists(arguments)
    assert num_files == 4 and foreign not in train_list.read_text()
    assert sorted(x[0] for x in time_to_quality.read_trials(trial_list)) == [0, 1]
    [config_path] = time_to_quality.our_run(arguments, tmp_path, train_list, num_files, 0)
    config = json.loads(Path(config_path).read_text())
    config["encoder_config"] |= {"num_filters": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}
    Path(config_path).write_text(json.dumps(config))
    clock = Events()
    time_to_quality.train_ours(Path(config_path), clock)
    assert clock.seen == ["start", "stop", "mark 1", "start", "stop", "mark 2", "start"]
    trials = time_to_quality.read_trials(trial_list)
    checkpoint = tmp_path / "run" / "checkpoint-2"
    assert time_to_quality.error_rate(checkpoint, trials, data_dir, "cpu") in (0.0, 50.0, 100.0)


def test_the_peer_is_run_on_a_cpu_with_the_clock_around_its_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "SpeakerNet.py").write_text(TRAINER)
    (tmp_path / "trainSpeakerNet.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(torch.nn.Module, "cuda", torch.nn.Module.cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    clock = Events()
    try:
        voxceleb_trainer_run.run_voxceleb_trainer(tmp_path, [str(tmp_path)], clock)
    finally:
        sys.modules.pop("SpeakerNet", None)
    assert clock.seen == ["start", "stop", "mark 3", "start", "stop", "mark 6"]
    assert capsys.readouterr().out == "trains 0.0 3\nevaluates\n" * 2
