"""Time to quality: the EER on unseen speakers against the seconds of training, ours and a peer's.

Fast ResNet-34 with the angular prototypical loss from random weights, as the README of
voxceleb_trainer trains it and `configs/fast_resnet34_angleproto.json` here: Adam at 0.001, 5 % less
every ten epochs, two crops of 2.015 s of each speaker; only the batch is smaller. Both sides read
the same list of real speech (what is not 16 kHz is left out: the peer does not resample) with as
many processes and threads. With `--voxceleb_trainer`, the path to a checkout, the peer runs
its own `trainSpeakerNet.py` (see `voxceleb_trainer_run.py`), else we run alone.

After each epoch, or `--test_interval` of them, a checkpoint is written. Its time is not counted on
either side, nor is that of the start (imports, reading lists) or of any evaluation: the EER of all
checkpoints is measured afterwards by the same code, on whole utterances. Both clocks are noted,
`--clock` chooses: seconds by the clock, or those of all processors (cpu), that other jobs on the
machine hardly change.

    python benchmarks/time_to_quality.py --data_dir ../data --voxceleb_trainer ../voxceleb_trainer
    python benchmarks/time_to_quality.py --data_dir ../data --report_only --clock cpu
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import soundfile
from time_to_quality_plot import Curve, Point, draw_curves, summarise
from training_clock import CLOCKS, TrainingClock

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "fast_resnet34_angleproto.json"
CROPS_OF_A_SPEAKER = 2
MAX_FRAMES = 200  # 2.015 s
TRIALS = Path("lists", "dev_eval_trials.txt")

Trial = tuple[int, str, str]


def rate_factor(arguments: argparse.Namespace) -> float:
    """Gives what the learning rate is multiplied by from checkpoint to checkpoint."""
    return 0.95 ** (arguments.test_interval / 10)


def read_trials(path: Path) -> list[Trial]:
    """Reads lines `label path1 path2`."""
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return [(int(label), first, second) for label, first, second in lines]


def write_lists(arguments: argparse.Namespace) -> tuple[Path, Path, int]:
    """Writes the training list, and the two trials that the peer must be given to save anything.

    Returns:
        The training list, the trials, and the number of training files.
    """
    listed = arguments.train_list or arguments.data_dir / "lists" / "train_list.txt"
    lines = listed.read_text(encoding="utf-8").splitlines()
    rates = [soundfile.info(arguments.data_dir / line.split()[1]).samplerate for line in lines]
    kept = [line for line, rate in zip(lines, rates, strict=True) if rate == 16000]
    print(f"{len(kept)} training files; {len(lines) - len(kept)} are not 16 kHz and left out")
    train_list = (arguments.output_dir / "train_list.txt").resolve()
    train_list.write_text("\n".join(kept) + "\n", encoding="utf-8")
    trials = read_trials(arguments.data_dir / TRIALS)
    two = [next(trial for trial in trials if trial[0] == label) for label in (0, 1)]
    trial_list = train_list.with_name("two_trials.txt")
    trial_list.write_text("".join(f"{label} {a} {b}\n" for label, a, b in two), encoding="utf-8")
    return train_list, trial_list, len(kept)


def our_run(
    arguments: argparse.Namespace, folder: Path, train_list: Path, num_files: int, seed: int
) -> list[str]:
    """Writes our config, and gives what the process of our run is told."""
    batch_size = CROPS_OF_A_SPEAKER * arguments.speakers_per_batch
    config = json.loads(CONFIG.read_text(encoding="utf-8")) | {
        "train_data_root": str(arguments.data_dir),
        "train_list": str(train_list),
        "val_data_root": None,
        "val_trials": None,
        "output_dir": str(folder),
        "run_id": "run",
        "speakers_per_batch": arguments.speakers_per_batch,
        "utterances_per_speaker": CROPS_OF_A_SPEAKER,
        "num_epochs": arguments.epochs,
        "lr_schedule": {
            "name": "step",
            "period": arguments.test_interval,
            "unit": "epoch",
            "gamma": rate_factor(arguments),
        },
        "save_every": 0,
        "backup_every": arguments.test_interval * max(1, num_files // batch_size),
        "backup_keep": arguments.epochs,
        "vis_train_art_every": 0,
        "num_workers": arguments.num_workers,
        "device": arguments.device,
        "seed": seed,
        "comet": "off",
    }
    del config["$schema"]
    path = folder / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return [str(path)]


def their_run(
    arguments: argparse.Namespace, folder: Path, train_list: Path, trial_list: Path, seed: int
) -> list[str]:
    """Gives what the process of the peer's run is told: its checkout, and its own arguments."""
    values = {
        "model": "ResNetSE34L",
        "encoder_type": "SAP",
        "trainfunc": "angleproto",
        "nPerSpeaker": CROPS_OF_A_SPEAKER,
        "batch_size": arguments.speakers_per_batch,
        "max_frames": MAX_FRAMES,
        "lr_decay": rate_factor(arguments),
        "test_interval": arguments.test_interval,
        "max_epoch": arguments.epochs,
        "nDataLoaderThread": arguments.num_workers,
        "seed": seed,
        "train_list": train_list,
        "train_path": arguments.data_dir,
        "test_list": trial_list,
        "test_path": arguments.data_dir,
        "save_path": folder / "exps",
    }
    words = [str(word) for name, value in values.items() for word in (f"--{name}", value)]
    return [str(arguments.voxceleb_trainer.resolve()), "--log_input", *words]


def train_ours(config_path: Path, clock: TrainingClock) -> None:
    """Trains with a clock around the Trainer, which rests while a checkpoint is written."""
    from speaker_encoder.training import TrainConfig, train
    from speaker_encoder.training.trainer import SpeakerTrainer

    train_all, save = SpeakerTrainer.train, SpeakerTrainer._save_checkpoint

    def train_timed(self, *values, **keywords):
        clock.start()
        return train_all(self, *values, **keywords)

    def save_marked(self, *values, **keywords):
        clock.stop()
        save(self, *values, **keywords)
        step = self.state.global_step
        clock.mark(step, Path(self.args.output_dir) / f"checkpoint-{step}")
        clock.start()

    with (
        mock.patch.object(SpeakerTrainer, "train", train_timed),
        mock.patch.object(SpeakerTrainer, "_save_checkpoint", save_marked),
    ):
        train(TrainConfig.from_json(config_path))


def error_rate(checkpoint: Path, trials: Sequence[Trial], data_dir: Path, device: str) -> float:
    """Gives the EER in percent of a checkpoint of either side: cosines of whole utterances."""
    from speaker_encoder import SpeakerEncoder
    from speaker_encoder.verification import equal_error_rate

    told = {"encoder_config": {"log_input": True}} if checkpoint.suffix == ".model" else {}
    encoder = SpeakerEncoder.from_pretrained(checkpoint, **told).to(device)
    names = sorted({name for trial in trials for name in trial[1:]})
    place = {name: number for number, name in enumerate(names)}
    embeddings = encoder.encode([data_dir / name for name in names], show_progress=False)
    first, second = ([place[trial[side]] for trial in trials] for side in (1, 2))
    scores = (embeddings[first] * embeddings[second]).sum(dim=1)
    return 100 * equal_error_rate(scores, [label for label, _, _ in trials])[0]


def measure(
    arguments: argparse.Namespace, side: str, seed: int, folder: Path, told: Sequence[str]
) -> Curve:
    """Trains one side in a process of its own, then measures all its checkpoints."""
    marks_path = folder / "marks.jsonl"
    environment = {
        "OMP_NUM_THREADS": str(arguments.num_threads),
        "PYTHONDONTWRITEBYTECODE": "1",  # nothing is written into the checkout
        "PYTHONPATH": os.pathsep.join([str(CONFIG.parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, str(Path(__file__).resolve()), "--run", side, str(marks_path)]
    subprocess.run([*command, *told], check=True, stdout=sys.stderr, env=os.environ | environment)
    trials = read_trials(arguments.data_dir / TRIALS)
    points = []
    for line in marks_path.read_text(encoding="utf-8").splitlines():
        mark = json.loads(line)
        checkpoint = Path(mark.pop("checkpoint"))
        eer = error_rate(checkpoint, trials, arguments.data_dir, arguments.device)
        points.append(Point(**mark, eer=eer))
        print(f"{side}, seed {seed}: {points[-1]}", flush=True)
    return Curve(side, seed, points)


def measure_all(arguments: argparse.Namespace, curves_path: Path) -> None:
    """Trains both sides in turns, and writes the curves after each run."""
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    train_list, trial_list, num_files = write_lists(arguments)
    curves: list[Curve] = []
    for seed in range(arguments.num_seeds):
        for side in ("ours", *(("theirs",) if arguments.voxceleb_trainer else ())):
            folder = arguments.output_dir.resolve() / f"{side}_{seed}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            if side == "ours":
                told = our_run(arguments, folder, train_list, num_files, seed)
            else:
                told = their_run(arguments, folder, train_list, trial_list, seed)
            curves.append(measure(arguments, side, seed, folder, told))
            facts = {
                "what": f"Fast ResNet-34 from random weights, {arguments.speakers_per_batch} x "
                f"{CROPS_OF_A_SPEAKER} crops of 2 s, on {arguments.device}",
                "batch_size": CROPS_OF_A_SPEAKER * arguments.speakers_per_batch,
                "curves": [asdict(curve) for curve in curves],
            }
            curves_path.write_text(json.dumps(facts, indent=1), encoding="utf-8")


def report(curves_path: Path, clock: str, plot_path: Path) -> list[tuple]:
    """Prints the figures and draws the plot; gives (what, ours, counterpart, ratio, unit)."""
    facts = json.loads(curves_path.read_text(encoding="utf-8"))
    curves = [
        Curve(curve["side"], curve["seed"], [Point(**point) for point in curve["points"]])
        for curve in facts["curves"]
    ]
    rows = summarise(curves, facts["what"], facts["batch_size"], clock)
    for what, ours, theirs, ratio, unit in rows:
        against = "" if theirs is None else f", theirs {theirs:.4g}: {ratio:.2f} times better"
        print(f"{what}: {ours:.4g} {unit}{against}")
    draw_curves(curves, clock, plot_path)
    return rows


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="folder of real speech")
    parser.add_argument("--voxceleb_trainer", type=Path, help="a checkout, to compare with")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("runs/time_to_quality"), help="runs, curves, plot"
    )
    parser.add_argument("--train_list", type=Path, help="another list: lines `speaker path`")
    parser.add_argument("--clock", default="wall", choices=CLOCKS, help="which seconds")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--test_interval", type=int, default=1, help="epochs, to a checkpoint")
    parser.add_argument("--num_seeds", type=int, default=2, help="runs of each side")
    parser.add_argument("--speakers_per_batch", type=int, default=16)
    parser.add_argument("--num_workers", type=int, default=1, help="processes that read audio")
    parser.add_argument("--num_threads", type=int, default=1, help="of torch, each process")
    parser.add_argument("--report_only", action="store_true", help="of the curves that are there")
    parser.add_argument("--json", type=Path, help="write the rows for `python -m benchmarks`")
    arguments = parser.parse_args()
    arguments.data_dir = arguments.data_dir.resolve()
    if arguments.voxceleb_trainer and not (arguments.voxceleb_trainer / "SpeakerNet.py").is_file():
        parser.error(f"no checkout of voxceleb_trainer at {arguments.voxceleb_trainer}")
    return arguments


def main() -> None:
    """Measures what the arguments say."""
    if sys.argv[1:2] == ["--run"]:  # the process of one side
        side, marks_path, place, *rest = sys.argv[2:]
        clock = TrainingClock(Path(marks_path))
        if side == "ours":
            train_ours(Path(place), clock)
        else:
            from voxceleb_trainer_run import run_voxceleb_trainer

            run_voxceleb_trainer(Path(place), rest, clock)
        return
    arguments = parse_arguments()
    curves_path = arguments.output_dir / "curves.json"
    if not arguments.report_only:
        measure_all(arguments, curves_path)
    rows = report(curves_path, arguments.clock, arguments.output_dir / "time_to_quality.png")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
