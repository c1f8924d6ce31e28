"""What a finished run found: the untouched model against the best one, on unseen speakers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speaker_encoder.errors import UserError
from speaker_encoder.training.callbacks import embeddings_path
from speaker_encoder.training.interpolation import Choice, CurvePoint
from speaker_encoder.training.pretrained_space import SpaceFacts
from speaker_encoder.training.run_dir import RunDirectory
from speaker_encoder.training.run_files import read_json, write_atomically
from speaker_encoder.training.stored import read_back

if TYPE_CHECKING:
    from speaker_encoder.training.config import TrainConfig
    from speaker_encoder.training.data import RunData


@dataclass(frozen=True)
class Measured:
    """EER and minDCF (p_target 0.01) as fractions, with their 95 % bootstrap intervals."""

    step: int
    eer: float
    eer_interval: tuple[float, float]
    min_dcf: float
    min_dcf_interval: tuple[float, float]


@dataclass(frozen=True)
class Interpolated:
    """The line between the untouched model (alpha 0) and the best trained one (alpha 1).

    Attributes:
        step: of the trained model.
        curve: a point for each alpha that was measured, ascending.
        choice: of the alpha that is the result.
    """

    step: int
    curve: list[CurvePoint]
    choice: Choice


@dataclass(frozen=True)
class ReferenceResults:
    """Error rates on the reference trials, fractions; what of the old speech was forgotten.

    `eer_difference` and its interval are after minus before; a positive one is forgetting.
    """

    before_eer: float
    before_interval: tuple[float, float]
    after_eer: float
    after_interval: tuple[float, float]
    eer_difference: float
    eer_difference_interval: tuple[float, float]
    verdict: str
    num_speakers: int
    num_targets: int
    num_nontargets: int


@dataclass(frozen=True)
class Results:
    """What `results.json` holds.

    `eer_difference` and its interval are after minus before, over the same resampled speakers.
    `averaged_steps`: where the mean of several steps' models is the result, `after.step` is the
    best of them. `seconds` is None for a run that was resumed. `interpolation` is None where
    nothing was interpolated, `reference` where there are no reference trials.
    `cosine_to_pretrained`: the mean cosine between the untouched model's and the result's
    embeddings of the same validation utterances; `pretrained_space`: the map from one space to the
    other. `num_train_speakers` are those of the training
    corpus alone, without those of replay.
    """

    model_name: str
    steps: int
    seconds: float | None
    num_train_speakers: int
    num_train_utterances: int
    train_hours: float
    before: Measured | None = None
    after: Measured | None = None
    eer_difference: float | None = None
    eer_difference_interval: tuple[float, float] | None = None
    verdict: str | None = None
    num_val_speakers: int = 0
    num_targets: int = 0
    num_nontargets: int = 0
    unusable_files: dict[str, str] = field(default_factory=dict)
    averaged_steps: list[int] = field(default_factory=list)
    interpolation: Interpolated | None = None
    reference: ReferenceResults | None = None
    cosine_to_pretrained: float | None = None
    pretrained_space: SpaceFacts | None = None
    num_replay_speakers: int = 0

    @property
    def is_untouched(self) -> bool:
        """Is the result the model that the run started from: nothing was better."""
        return self.after is not None and self.after.step == 0 and not self.averaged_steps

    @property
    def after_name(self) -> str:
        """What the best model is, in words."""
        alpha = self.interpolation.choice.alpha if self.interpolation else 1.0
        start = f"alpha {alpha:g} of " if 0 < alpha < 1 else ""
        if self.averaged_steps:
            return f"{start}mean of steps {', '.join(map(str, self.averaged_steps))}"
        if self.after is None:
            return "the last step"
        return f"{start}step {self.after.step}" + ("" if start else ", best")

    def save(self, path: Path) -> None:
        """Writes it, whole or not at all."""
        write_atomically(path, json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Reads it back.

        Raises:
            UserError: it is damaged, or of another version.
        """
        return cls.from_dict(read_json(path), str(path))

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "results.json") -> Results:
        """Reads what `results.json` holds, that of a repository too; other keys are left out.

        Args:
            values: as JSON gave them.
            where: the file, for the error.

        Raises:
            UserError: a part is missing, or not of its type.
        """
        found = read_back(cls, values, where)
        line = found.interpolation
        if line is not None and line.choice.alpha not in [point.alpha for point in line.curve]:
            raise UserError(
                f"{where}, interpolation: its curve has no point at alpha {line.choice.alpha:g}, "
                "which it says is chosen. Delete or repair the file."
            )
        return found


def measure_results(
    config: TrainConfig,
    run: RunDirectory,
    data: RunData,
    *,
    paths: tuple[Path, Path],
    steps: int,
    best_step: int | None,
    averaged_steps: list[int],
    seconds: float | None,
    unusable: dict[str, str],
) -> Results:
    """Compares step 0 and the best step on the validation trials.

    Args:
        config: of the run.
        run: its directory.
        data: of the run.
        paths: of the validation embeddings of the untouched model and of the best.
        steps: how many were made.
        best_step: None without validation data.
        averaged_steps: whose mean was taken, if it was.
        seconds: of training; None after a resume, when other processes took a part of it.
        unusable: files that could not be used, with reasons.
    """
    results = Results(
        model_name=config.model_name,
        steps=steps,
        seconds=None if seconds is None else round(seconds, 1),
        num_train_speakers=len(data.training.speakers),
        num_train_utterances=len(data.training.utterances),
        train_hours=round(sum(u.seconds for u in data.training.utterances) / 3600, 3),
        unusable_files=unusable,
        averaged_steps=averaged_steps,
        num_replay_speakers=len(data.replay.speakers) if data.replay else 0,
    )
    if data.validation is None or data.trials is None or best_step is None:
        return results
    return _compared(results, config, run, data, paths, best_step)


def _compared(
    results: Results,
    config: TrainConfig,
    run: RunDirectory,
    data: RunData,
    paths: tuple[Path, Path],
    best_step: int,
) -> Results:
    """Gives the results with what the validation trials say, and draws their DET curves."""
    from speaker_encoder.verification import compare, evaluate

    assert data.validation is not None and data.trials is not None
    speaker_ids = [utterance.speaker_id for utterance in data.validation.utterances]
    measured, embeddings = [], []
    for step, path in zip((0, best_step), paths, strict=True):
        embeddings.append(np.load(path)["embeddings"])
        found = evaluate(
            embeddings[-1],
            data.trials,
            speaker_ids,
            num_bootstrap=config.bootstrap_samples,
            seed=config.seed,
        )
        measured.append(
            Measured(step, found.eer, found.eer_interval, found.min_dcf, found.min_dcf_interval)
        )
    _draw_det(run, data, embeddings)
    difference = compare(
        embeddings[0],
        embeddings[1],
        data.trials,
        speaker_ids,
        num_bootstrap=config.bootstrap_samples,
        seed=config.seed,
    )
    return replace(
        results,
        before=measured[0],
        after=measured[1],
        eer_difference=difference.eer_difference,
        eer_difference_interval=difference.eer_difference_interval,
        verdict=difference.verdict,
        num_val_speakers=len(set(speaker_ids)),
        num_targets=found.num_targets,
        num_nontargets=found.num_nontargets,
    )


def best_embeddings_path(
    run: RunDirectory, best_step: int | None, averaged_steps: list[int]
) -> Path:
    """Gives where the validation embeddings of a run's best model lie."""
    return run.average_scores_path if averaged_steps else embeddings_path(run, best_step or 0)


def _draw_det(run: RunDirectory, data: RunData, embeddings: list[np.ndarray]) -> None:
    """Draws the DET curves of the untouched and the best model into `plots/det.png`."""
    from speaker_encoder.plots.det import plot_det
    from speaker_encoder.verification import score_trials

    assert data.trials is not None and data.trials.labels is not None
    labels = np.asarray(data.trials.labels)
    names = ("before", "after")
    systems = {
        name: (score_trials(rows, data.trials), labels)
        for name, rows in zip(names, embeddings, strict=True)
    }
    (run.path / "plots").mkdir(exist_ok=True)
    _, svg_path = plot_det(systems, run.path / "plots" / "det.png", p_targets=(0.01,))
    svg_path.unlink()  # a run's pictures are PNG


def finish_run_folder(
    config: TrainConfig,
    run: RunDirectory,
    results: Results,
    best_step: int | None,
    kept_steps: set[int],
) -> None:
    """Leaves card, report, pictures and `results.json`, and removes what only a resume needs.

    Where `results.json` is, the run is finished.
    """
    from speaker_encoder.plots import plot_curve
    from speaker_encoder.plots.interpolation import plot_interpolation
    from speaker_encoder.training.model_card import INTERPOLATION_PICTURE, model_card
    from speaker_encoder.training.report_page import write_run_report

    lines = run.metrics_path.read_text(encoding="utf-8").splitlines()
    (run.path / "plots").mkdir(exist_ok=True)
    plot_curve([json.loads(line) for line in lines], run.path / "plots" / "curve.png")
    if results.interpolation is not None:
        for folder in (run.path / "plots", run.model_dir):
            plot_interpolation(results.interpolation, folder / INTERPOLATION_PICTURE)
    write_run_report(config, run, results)
    write_atomically(run.model_dir / "README.md", model_card(config, results))
    for path in run.scores_dir.glob("step_*.npz"):
        if path not in (embeddings_path(run, 0), embeddings_path(run, best_step or 0)):
            path.unlink()
    results.save(run.model_dir / run.results_path.name)
    results.save(run.results_path)
    if config.average_best is None:  # more steps may want to average them again
        run.prune_best(kept_steps)
