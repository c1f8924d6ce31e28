"""A recipe of stages: ordinary runs, each on the best model of the one before."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from speaker_encoder.training.assembly import build_trial_sets
from speaker_encoder.training.callbacks import StopRequest, embeddings_path
from speaker_encoder.training.choosing import make_chooser
from speaker_encoder.training.chosen import TakenResult, add_space, take_from_line
from speaker_encoder.training.config_stages import stage_folder
from speaker_encoder.training.data import load_data
from speaker_encoder.training.distributed import any_process, is_main_process
from speaker_encoder.training.report import (
    Results,
    best_embeddings_path,
    finish_run_folder,
    measure_results,
)
from speaker_encoder.training.resume import open_run
from speaker_encoder.training.run import TrainOutcome, conclude, train_once
from speaker_encoder.training.run_dir import RunDirectory
from speaker_encoder.training.run_files import link_or_copy, write_atomically
from speaker_encoder.training.tracking_files import read_metrics

if TYPE_CHECKING:
    from speaker_encoder.training.config import TrainConfig

_logger = logging.getLogger(__name__)


def train_stages(config: TrainConfig, device: str, *, overwrite: bool = False) -> TrainOutcome:
    """Does the stages of a recipe that are not done yet, and compares the end with the beginning.

    Each stage is a run in `stage_<number>/` of the run directory, which goes on where it was
    stopped. In the run directory itself lie at the end the last model, its results against the
    model that the first stage started from, and the metrics of all stages.

    Args:
        config: with `stages`.
        device: "cpu" or "cuda".
        overwrite: delete a finished run of the same name.

    Raises:
        UserError: what a stage asks for cannot be done, or a stage that there is was trained with
            another config.
    """
    with contextlib.ExitStack() as stack:
        run = open_run(config, overwrite, stack)
        if run.is_finished:
            _logger.info("%s is finished; force_restart is false", run.path)
            stop = stack.enter_context(StopRequest())
            return conclude(config, run, Results.load(run.results_path), stop)
        stages, before = config.stage_configs(), None
        for number, stage in enumerate(stages, 1):
            title = f"stage {number} of {len(stages)}"
            own = RunDirectory(stage_folder(run.path, number))
            _logger.info("%s: %s", title, own.path)
            outcome = train_once(stage, device, title=f"{config.run_id}, {title}", before=before)
            gc.collect()
            if device == "cuda":
                torch.cuda.empty_cache()
            is_last = number == len(stages)
            if any_process(outcome.is_stopped, torch.device(device)) and not is_last:
                return replace(outcome, run=run, results=None, message=_stopped(outcome, title))
            has_no_results = is_main_process() and outcome.results is None
            if any_process(has_no_results, torch.device(device)):
                return replace(outcome, run=run, message=_stopped(outcome, title))
            before = own
        stop = stack.enter_context(StopRequest())
        taken = _choose(config, run, stages[-1], device)
        if not is_main_process():
            return TrainOutcome(run, None, "")
        results = _gather(config, run, stages, taken)
        return conclude(config, run, results, stop)


def _stopped(outcome: TrainOutcome, title: str) -> str:
    """Says where a stopped recipe is; one process speaks for all."""
    if not is_main_process():
        return ""
    if outcome.results is None:
        return f"{title}: {outcome.message}"
    return f"stopped after {title}. The same command goes on with the next."


def _choose(
    config: TrainConfig, run: RunDirectory, stage: TrainConfig, device: str
) -> TakenResult | None:
    """Chooses between what the first stage began with and what the last one left."""
    from speaker_encoder.modeling import SpeakerEncoder

    first, last = (RunDirectory(stage_folder(run.path, n)) for n in (1, len(config.stages)))
    results = Results.load(last.results_path)
    if is_main_process():
        _copy_model(run, last)
    chooser = make_chooser(
        config,
        first.pretrained_dir,
        *build_trial_sets(stage, load_data(stage)),
        is_trained_start=first.pretrained_dir.is_dir(),
    )
    if chooser is None or results.after is None:
        return None
    trained = SpeakerEncoder.from_pretrained(last.model_dir)
    step = results.after.step
    return take_from_line(chooser, trained, step, run, first.pretrained_dir, device)


def _gather(
    config: TrainConfig,
    run: RunDirectory,
    stages: Sequence[TrainConfig],
    taken: TakenResult | None,
) -> Results:
    """Leaves the last model, the results of the whole and all metrics in the run directory.

    Steps are counted from the beginning of the first stage.
    """
    folders = [RunDirectory(stage_folder(run.path, n)) for n in range(1, len(stages) + 1)]
    found = [Results.load(folder.results_path) for folder in folders]
    offsets = [sum(one.steps for one in found[:place]) for place in range(len(found))]
    _write_metrics(run, folders, offsets)
    best_step, averaged_steps = None, []
    for one, offset in zip(found, offsets, strict=True):
        if one.after is not None and (one.after.step or one.averaged_steps):
            best_step = offset + one.after.step
            averaged_steps = [offset + step for step in one.averaged_steps]
    last, seconds = found[-1], [one.seconds for one in found]
    if last.after is not None and best_step is None:
        best_step = 0
    if taken is not None:
        taken = replace(taken, step=best_step or 0)
        if taken.result_step == 0:
            best_step, averaged_steps = 0, []
    last_best = last.after.step if last.after else None
    data = load_data(stages[-1])
    paths = (
        embeddings_path(folders[0], 0),
        run.result_scores_path
        if taken
        else best_embeddings_path(folders[-1], last_best, last.averaged_steps),
    )
    results = measure_results(
        config,
        run,
        data,
        paths=paths,
        steps=offsets[-1] + last.steps,
        best_step=best_step,
        averaged_steps=averaged_steps,
        seconds=None if None in seconds else sum(filter(None, seconds)),
        unusable={path: reason for one in found for path, reason in one.unusable_files.items()},
    )
    if taken is not None:
        results = taken.add_to(results)
    results = add_space(config, run, data, results, paths, folders[0].pretrained_dir)
    finish_run_folder(config, run, results, best_step, set())
    return results


def _write_metrics(
    run: RunDirectory, folders: Sequence[RunDirectory], offsets: Sequence[int]
) -> None:
    """Writes the metrics of all stages as of one run; a stage's first model is the last's best."""
    lines = []
    for number, (folder, offset) in enumerate(zip(folders, offsets, strict=True), 1):
        for line in read_metrics(folder.metrics_path):
            if number == 1 or line["step"] > 0:
                lines.append({**line, "step": offset + line["step"], "stage": number})
    write_atomically(run.metrics_path, "".join(json.dumps(line) + "\n" for line in lines))


def _copy_model(run: RunDirectory, last: RunDirectory) -> None:
    """Makes `model/` the last stage's, with the config of the whole."""
    with run.staged(run.model_dir) as staging:
        for source in last.model_dir.iterdir():
            if source.name not in ("README.md", run.results_path.name, run.config_path.name):
                link_or_copy(source, staging / source.name)
        shutil.copyfile(run.config_path, staging / run.config_path.name)
