"""What a finished run found: the untouched model against the best one, on unseen speakers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from speaker_encoder.training.callbacks import embeddings_path
from speaker_encoder.training.run_dir import RunDirectory, read_json, write_atomically

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
class Results:
    """What `results.json` holds.

    `eer_difference` and its interval are after minus before, over the same resampled speakers.
    `averaged_steps`: where the mean of several steps' models is the result, `after.step` is the
    best of them. `seconds` is None for a run that was resumed.
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

    @property
    def after_name(self) -> str:
        """What the best model is, in words."""
        if self.averaged_steps:
            return f"mean of steps {', '.join(map(str, self.averaged_steps))}"
        return f"step {self.after.step}, best" if self.after else "the last step"

    def save(self, path: Path) -> None:
        """Writes it, whole or not at all."""
        write_atomically(path, json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Reads it back."""
        values = read_json(path)
        for name in ("before", "after"):
            if values.get(name):
                values[name] = Measured(**values[name])
        return cls(**values)


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
    from speaker_encoder.verification import compare, evaluate

    results = Results(
        model_name=config.model_name,
        steps=steps,
        seconds=None if seconds is None else round(seconds, 1),
        num_train_speakers=len(data.training.speakers),
        num_train_utterances=len(data.training.utterances),
        train_hours=round(sum(u.seconds for u in data.training.utterances) / 3600, 3),
        unusable_files=unusable,
        averaged_steps=averaged_steps,
    )
    if data.validation is None or data.trials is None or best_step is None:
        return results
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
    config: TrainConfig, run: RunDirectory, results: Results, best_step: int | None
) -> None:
    """Leaves the model card, the curve and `results.json`, and removes what only a resume needs.

    Where `results.json` is, the run is finished.
    """
    from speaker_encoder.plots import plot_curve
    from speaker_encoder.training.model_card import model_card

    lines = run.metrics_path.read_text(encoding="utf-8").splitlines()
    (run.path / "plots").mkdir(exist_ok=True)
    plot_curve([json.loads(line) for line in lines], run.path / "plots" / "curve.png")
    write_atomically(run.model_dir / "README.md", model_card(config, results))
    for path in run.scores_dir.glob("step_*.npz"):
        if path not in (embeddings_path(run, 0), embeddings_path(run, best_step or 0)):
            path.unlink()
    results.save(run.model_dir / run.results_path.name)
    results.save(run.results_path)
    if config.average_best is None:  # more steps may want to average them again
        run.prune_best(set())


def format_results(results: Results, run: RunDirectory) -> str:
    """Gives the table and the paths that end a run, for a terminal."""
    lines = [
        f"{results.model_name}: {results.steps} steps on {results.num_train_utterances} utterances "
        f"of {results.num_train_speakers} speakers"
        + ("" if results.seconds is None else f", {_duration(results.seconds)}")
    ]
    if results.before and results.after and results.eer_difference_interval:
        lines += ["", *_table(results)]
    else:
        lines += ["", "No validation data: nothing is known about unseen speakers. The model is"]
        lines += ["the last step's. Set val_data_root to speakers that are not trained on."]
    if results.unusable_files:
        lines += ["", f"{len(results.unusable_files)} files could not be used:"]
        lines += [f"  {path}: {reason}" for path, reason in results.unusable_files.items()]
    lines += ["", *_paths(run)]
    return "\n".join(lines)


def _table(results: Results) -> list[str]:
    before, after = results.before, results.after
    assert before and after and results.eer_difference_interval
    assert results.eer_difference is not None
    rows = [
        (f"before (step {before.step})", before),
        (f"after  ({results.after_name})", after),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [
        f"{results.num_val_speakers} unseen speakers, {results.num_targets} target and "
        f"{results.num_nontargets} nontarget trials; in brackets 95 % intervals over speakers",
        f"{'':{width}}  {'EER':>8}  {'':16}  {'minDCF(0.01)':>12}",
    ]
    for name, row in rows:
        eer_range = f"[{row.eer_interval[0]:.2%}, {row.eer_interval[1]:.2%}]"
        dcf_range = f"[{row.min_dcf_interval[0]:.3f}, {row.min_dcf_interval[1]:.3f}]"
        lines.append(
            f"{name:{width}}  {row.eer:>8.2%}  {eer_range:16}  {row.min_dcf:>12.3f}  {dcf_range}"
        )
    low, high = results.eer_difference_interval
    lines.append(
        f"EER difference {100 * results.eer_difference:+.2f} points "
        f"[{100 * low:+.2f}, {100 * high:+.2f}]: {results.verdict}"
    )
    if after.step == 0 and not results.averaged_steps:
        lines.append(
            "No step was better than the untouched model, so model/ holds the untouched model."
        )
    return lines


def _paths(run: RunDirectory) -> list[str]:
    known = {
        "model": run.model_dir,
        "results": run.results_path,
        "metrics": run.metrics_path,
        "plots": run.path / "plots",
        "log": run.path / "train.log",
        "checkpoints": run.path,
    }
    return [f"{name:12} {path}" for name, path in known.items() if path.exists()]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
