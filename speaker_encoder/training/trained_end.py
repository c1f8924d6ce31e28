"""Which encoder is at alpha 1 of a line: of a run what it trained, where its result is another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speaker_encoder.errors import UserError
from speaker_encoder.training.config_stages import stage_folder
from speaker_encoder.training.interpolation import Choice
from speaker_encoder.training.run_dir import RunDirectory
from speaker_encoder.training.run_files import read_json
from speaker_encoder.training.stored import read_back

_MAX_SHOWN = 3


@dataclass(frozen=True)
class TrainedEnd:
    """A fine-tuned encoder.

    Attributes:
        name: that the user gave.
        models: what is loaded for it; of several the mean of their weights.
        note: what they are, for people; "" where they are simply what was named.
    """

    name: str
    models: tuple[str, ...]
    note: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.note}" if self.note else self.name


def find_trained_end(name: str) -> TrainedEnd:
    """Finds what was fine-tuned, for a run whose `model/` lies between that and what it began with.

    Args:
        name: name, Hub id, folder, run or checkpoint.

    Raises:
        UserError: the run does not have it any more.
    """
    run = RunDirectory(Path(name).expanduser())
    if not run.results_path.is_file():
        return TrainedEnd(name, (name,))
    results = read_json(run.results_path)
    line = results.get("interpolation")
    if not line:
        return TrainedEnd(name, (name,))
    alpha = read_back(Choice, line.get("choice"), str(run.results_path)).alpha
    if alpha == 1:
        return TrainedEnd(name, (name,))
    if (run.path / "config.json").is_file():  # the model alone, which has the results of its run
        return TrainedEnd(name, (name,), f"itself the encoder at alpha {alpha:g} of its run")
    folders, what = _kept(run, results)
    if not all((folder / "config.json").is_file() for folder in folders):
        raise UserError(_what_to_name(name, run, alpha))
    return TrainedEnd(
        name,
        tuple(str(folder) for folder in folders),
        f"{what}, as its model/ is at alpha {alpha:g} already",
    )


def _kept(run: RunDirectory, results: dict[str, Any]) -> tuple[list[Path], str]:
    """The folders of a run's trained model, and what they are."""
    stages = read_json(run.config_path).get("stages") if run.config_path.is_file() else None
    if stages:
        return [stage_folder(run.path, len(stages)) / "model"], f"the model of stage {len(stages)}"
    steps = results.get("averaged_steps")
    if not steps:
        where = str(run.results_path)
        steps = [read_back(int, results["interpolation"].get("step"), where)]
    what = f"the trained model of step {steps[0]}"
    if len(steps) > 1:
        what = f"the mean of the trained models of steps {', '.join(map(str, steps))}"
    return [run.best_dir(step) for step in steps], what


def _what_to_name(name: str, run: RunDirectory, alpha: float) -> str:
    kept = [str(Path(name) / folder.name) for _, folder in run.checkpoints()[-_MAX_SHOWN:]]
    began_with = "the encoder that it began with"
    is_what = began_with if alpha == 0 else f"already a mixture with {began_with}"
    advice = f"Name one of its checkpoints: {', '.join(kept)}." if kept else "Train it again."
    return (
        f"{name!r} does not have its trained model any more, and its model/, at alpha {alpha:g}, "
        f"is {is_what}. {advice}"
    )
