"""What fine-tuning gains on its own speech and forgets of other speech, by method and corpus size.

Every training is a real run of a config of `configs/fine_tuning_*.json`, with each of the seeds;
only `seed`, and for the sizes `max_speakers`, differ. A run lies in a folder of its own below
`--output_dir`: what is finished is not done again, what was stopped is gone on with. Run it in the
repository's root, where the configs' lists are.

    python benchmarks/fine_tuning.py --part table --data_dir ../data --output_dir runs/fine_tuning
    python benchmarks/fine_tuning.py --part sizes --data_dir ../data --output_dir runs/fine_tuning

writes `table.md`, and `sizes.md` with `fine_tuning_sizes.png`. `--report_only` trains nothing and
reports what is there.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fine_tuning_plot import SETS, Sized, draw_sizes
from numpy.typing import NDArray

from speaker_encoder import SpeakerEncoder
from speaker_encoder.training import TrainConfig, train
from speaker_encoder.training.data import load_data
from speaker_encoder.training.report import Results
from speaker_encoder.training.run_dir import RunDirectory
from speaker_encoder.training.trial_set import TrialSet
from speaker_encoder.verification import score_trials
from speaker_encoder.verification.bootstrap import interval
from speaker_encoder.verification.metrics import equal_error_rate
from speaker_encoder.verification.several import SeveralSystems, evaluate_several

CONFIGS = Path("configs")
ALL_SPEAKERS = 170
SIZES = (10, 25, 50, 100, ALL_SPEAKERS)
NUM_BOOTSTRAP = 1000
POINT_OF = {"plain": "last", "default": "result"}
"""Which encoder of a run the sizes are about."""
SECONDS_NAME = "benchmark_seconds.txt"


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: for people.
        stem: of the config, `configs/fine_tuning_<stem>.json`.
        point: which encoder of its run: "pretrained", the "last" step, the "best" validated step,
            or the run's "result", between the untouched and the best one.
    """

    name: str
    stem: str
    point: str


ROWS = (
    Row("untouched", "plain", "pretrained"),
    Row("plain, last step", "plain", "last"),
    Row("plain, early stopping", "plain", "best"),
    Row("plain, interpolation", "plain", "result"),
    Row("L2-SP", "l2_sp", "last"),
    Row("L2-SP, interpolation", "l2_sp", "result"),
    Row("LoRA", "lora", "last"),
    Row("LoRA, interpolation", "lora", "result"),
    Row("distillation", "distillation", "last"),
    Row("distillation, interpolation", "distillation", "result"),
    Row("default without interpolation", "default", "last"),
    Row("**default**", "default", "result"),
)


def make_config(options: argparse.Namespace, stem: str, size: int, seed: int) -> TrainConfig:
    """The config of one run."""
    values = json.loads((CONFIGS / f"fine_tuning_{stem}.json").read_text(encoding="utf-8"))
    values |= {
        "output_dir": str(options.output_dir),
        "run_id": f"{stem}_{size}_seed{seed}",
        "seed": seed,
        "comet": "off",
        "vis_train_art_every": 0,
        "vis_val_art_every": 0,
        "num_workers": 0,
        "device": "cpu",
        "precision": options.precision,
    }
    if size < ALL_SPEAKERS:
        values |= {
            "max_speakers": size,
            "speakers_per_batch": min(size, values["speakers_per_batch"]),
        }
        if stem == "plain":  # its last step is all that is wanted
            values |= {"interpolate": "off", "val_every": 0}
    return TrainConfig.from_dict(values)


def run(options: argparse.Namespace, stem: str, size: int, seed: int) -> RunDirectory | None:
    """Trains if that is not done yet; None where it is not and nothing is to be trained."""
    config = make_config(options, stem, size, seed)
    folder = RunDirectory(options.output_dir / str(config.run_id))
    if folder.is_finished:
        return folder
    if options.report_only:
        return None
    is_new = not folder.checkpoints()
    start = time.process_time()
    outcome = train(config)
    if outcome.is_stopped:
        raise KeyboardInterrupt
    if is_new:  # all of it was done in this process
        seconds = time.process_time() - start
        (folder.path / SECONDS_NAME).write_text(f"{seconds:.1f}\n", encoding="ascii")
    return folder


def folder_of(run_dir: RunDirectory, point: str) -> Path:
    """Where the encoder of a point of a finished run lies."""
    if point == "pretrained":
        return run_dir.pretrained_dir
    if point == "last":
        return run_dir.checkpoints()[-1][1]
    if point == "best":
        line = Results.load(run_dir.results_path).interpolation
        assert line is not None
        return run_dir.best_dir(line.step)
    return run_dir.model_dir


class Judge:
    """Embeds the utterances of both sets of trials, and keeps the embeddings in the runs."""

    def __init__(self, config: TrainConfig) -> None:
        data = load_data(config)
        assert data.validation and data.trials and data.reference
        domain = TrialSet("validation", data.validation.utterances, data.trials, 30.0)
        reference = TrialSet("reference", data.reference.utterances, data.reference.trials, 30.0)
        self.sets = dict(zip(SETS, (domain, reference), strict=True))

    def embeddings(self, run_dir: RunDirectory, point: str) -> dict[str, NDArray[np.float32]]:
        """(N, D) for each set."""
        path = run_dir.path / f"benchmark_{point}.npz"
        if not path.is_file():
            encoder = SpeakerEncoder.from_pretrained(folder_of(run_dir, point)).eval()
            part = path.with_name(f".{path.name}")
            np.savez(part, **{name: trials.embed(encoder) for name, trials in self.sets.items()})
            part.replace(path)
        with np.load(path) as found:
            return {name: found[name] for name in SETS}

    def eers(self, run_dir: RunDirectory, point: str) -> list[float]:
        """Domain and reference EER in percent."""
        rows = self.embeddings(run_dir, point)
        scored = ((score_trials(rows[name], part.trials), part) for name, part in self.sets.items())
        return [100 * equal_error_rate(scores, part.trials.labels)[0] for scores, part in scored]

    def measure(self, systems: Sequence[tuple[RunDirectory, str]]) -> dict[str, SeveralSystems]:
        """All systems under the same draws of speakers, for each set."""
        rows = [self.embeddings(*system) for system in systems]
        return {
            name: evaluate_several(
                [row[name] for row in rows],
                trials.trials,
                trials.speaker_ids,
                num_bootstrap=NUM_BOOTSTRAP,
            )
            for name, trials in self.sets.items()
        }


def mean_cell(found: SeveralSystems, places: Sequence[int]) -> str:
    """The mean EER over seeds, its interval, and the lowest and highest seed."""
    low, high = interval(found.drawn_eers[list(places)].mean(axis=0))
    eers = 100 * found.eers[list(places)]
    seeds = f" ({eers.min():.2f} to {eers.max():.2f})" if len(places) > 1 else ""
    return f"{eers.mean():.2f} [{100 * low:.2f}, {100 * high:.2f}]{seeds}"


def against_untouched(found: SeveralSystems, places: Sequence[int]) -> str:
    """The relative change of the mean, and the interval of the difference in points."""
    drawn = found.drawn_eers[list(places)].mean(axis=0) - found.drawn_eers[0]
    low, high = interval(drawn)
    change = found.eers[list(places)].mean() / found.eers[0] - 1
    return f"{round(100 * change):+d} % [{100 * low:+.2f}, {100 * high:+.2f}]"


def table(options: argparse.Namespace) -> str:
    """Trains all configs with all seeds, and gives the table as Markdown."""
    runs: dict[str, list[RunDirectory]] = {}
    for seed in options.seeds:
        for stem in dict.fromkeys(row.stem for row in ROWS):
            run_dir = run(options, stem, ALL_SPEAKERS, seed)
            if run_dir is not None:
                runs.setdefault(stem, []).append(run_dir)
    systems: list[tuple[RunDirectory, str]] = []
    places: dict[Row, list[int]] = {}
    for row in ROWS:
        found = runs.get(row.stem, [])
        found = found[:1] if row.point == "pretrained" else found
        places[row] = list(range(len(systems), len(systems) + len(found)))
        systems += [(run_dir, row.point) for run_dir in found]
    measured = Judge(make_config(options, "plain", ALL_SPEAKERS, 0)).measure(systems)
    heads = [f"{name} EER, % | against untouched" for name in SETS]
    lines = [f"| encoder | {' | '.join(heads)} | alpha | seconds |", "|---|" + "---|" * 6]
    for row, numbers in places.items():
        if not numbers:
            continue
        is_whole = row.point == "pretrained" or len(numbers) == len(options.seeds)
        cells = [row.name + ("" if is_whole else f", {len(numbers)} of {len(options.seeds)} seeds")]
        for name in SETS:
            change = against_untouched(measured[name], numbers) if row.point != "pretrained" else ""
            cells += [mean_cell(measured[name], numbers), change]
        lines.append(f"| {' | '.join([*cells, *effort(row, [systems[n][0] for n in numbers])])} |")
    return "\n".join(lines) + "\n"


def effort(row: Row, runs: Sequence[RunDirectory]) -> tuple[str, str]:
    """The alphas that the runs chose, and the mean processor seconds of all that a run does."""
    if row.point == "pretrained":
        return "0", ""
    results = [Results.load(run_dir.results_path) for run_dir in runs]
    alphas = "1"
    if row.point == "result":
        alphas = ", ".join(f"{r.interpolation.choice.alpha:g}" for r in results if r.interpolation)
    paths = [run_dir.path / SECONDS_NAME for run_dir in runs]
    seconds = [float(path.read_text(encoding="ascii")) for path in paths if path.is_file()]
    return alphas, f"{statistics.mean(seconds):.0f}" if seconds else ""


def measure_sizes(options: argparse.Namespace) -> tuple[list[Sized], list[float]]:
    """Trains, and gives what was found, and the untouched encoder's EERs in percent."""
    names = [(stem, size) for stem in POINT_OF for size in SIZES]
    runs = {name: [run(options, *name, seed) for seed in options.seeds] for name in names}
    judge = Judge(make_config(options, "plain", ALL_SPEAKERS, 0))
    found, untouched = [], [0.0, 0.0]
    for (stem, size), several in runs.items():
        there = [run_dir for run_dir in several if run_dir is not None]
        if not there:
            continue
        results = [Results.load(run_dir.results_path) for run_dir in there]
        first = results[0]
        assert first.before and first.reference
        untouched = [100 * first.before.eer, 100 * first.reference.before_eer]
        eers = [judge.eers(run_dir, POINT_OF[stem]) for run_dir in there]
        alphas = [r.interpolation.choice.alpha for r in results if r.interpolation]
        found.append(Sized(stem, size, np.array(eers), alphas))
    return found, untouched


def sizes(options: argparse.Namespace) -> str:
    """Trains with every size, draws the plot, and gives the table as Markdown."""
    found, untouched = measure_sizes(options)
    names = {"plain": "plain, last step", "default": "default"}
    lines = [
        "| speakers | encoder | seeds | domain EER, % | reference EER, % | alpha |",
        "|---|---|---|---|---|---|",
        f"| 0 | untouched | | {untouched[0]:.2f} | {untouched[1]:.2f} | 0 |",
    ]
    for one in sorted(found, key=lambda one: (one.size, one.stem == "default")):
        cells = [
            f"{column.mean():.2f} ({column.min():.2f} to {column.max():.2f})"
            for column in one.eers.T
        ]
        alphas = "1" if one.stem == "plain" else ", ".join(f"{a:g}" for a in one.alphas)
        cells = [names[one.stem], str(len(one.eers)), *cells, alphas]
        lines.append(f"| {one.size} | {' | '.join(cells)} |")
    draw_sizes(found, untouched, options.output_dir / "fine_tuning_sizes.png")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes one part of the evidence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("table", "sizes"), required=True)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder of real speech")
    parser.add_argument("--output_dir", type=Path, required=True, help="runs and tables")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--precision", default="bf16", help="of training; float32 is slower")
    parser.add_argument("--report_only", action="store_true", help="train nothing")
    options = parser.parse_args()
    os.environ["SPEAKER_ENCODER_DATA"] = str(options.data_dir.absolute())
    torch.set_num_threads(1)
    text = table(options) if options.part == "table" else sizes(options)
    (options.output_dir / f"{options.part}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
