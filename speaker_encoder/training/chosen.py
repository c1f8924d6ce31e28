"""What the chooser chose becomes the model of the run."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from speaker_encoder.training.assembly import has_trained_start
from speaker_encoder.training.callbacks import Progress, save_embeddings
from speaker_encoder.training.distributed import is_main_process, share_from_main
from speaker_encoder.training.pretrained_space import ValidationRows, measure_space
from speaker_encoder.training.report import Interpolated, ReferenceResults, Results
from speaker_encoder.training.resume import main_process_first
from speaker_encoder.training.run_dir import RunDirectory
from speaker_encoder.training.run_files import link_or_copy

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder
    from speaker_encoder.training.choosing import Chooser, Chosen
    from speaker_encoder.training.config import TrainConfig
    from speaker_encoder.training.data import RunData
    from speaker_encoder.training.trainer import SpeakerTrainer
    from speaker_encoder.training.trial_set import TrialSet

_logger = logging.getLogger(__name__)


def keep_pretrained(
    config: TrainConfig, run: RunDirectory, trainer: SpeakerTrainer, before: RunDirectory | None
) -> None:
    """Keeps the encoder that fine-tuning begins with in `pretrained/`, if its weights are trained.

    Args:
        config: of the run.
        run: its directory.
        trainer: before any step, and before any checkpoint is loaded.
        before: the stage before: what it began with is kept on.
    """
    is_new = not run.checkpoints()
    if is_new and before is not None and before.checkpoints():
        trainer.flow.progress.reference_eer = Progress.load(
            before.checkpoints()[-1][1]
        ).reference_eer
    if not has_trained_start(config, trainer.encoder, before):
        return
    with main_process_first():
        if not is_main_process() or (run.pretrained_dir.is_dir() and not is_new):
            return
        if before is None:
            trainer.save_encoder(run.pretrained_dir)
        else:
            _copy(run, before.pretrained_dir, run.pretrained_dir)


@dataclass(frozen=True)
class TakenResult:
    """What was chosen, with what the report says of it."""

    step: int
    chosen: Chosen
    reference: TrialSet | None

    @property
    def result_step(self) -> int:
        """The step that the result is of; 0 for the untouched encoder."""
        return 0 if self.chosen.choice.alpha == 0 else self.step

    def add_to(self, results: Results) -> Results:
        """Gives the results with the line and the reference."""
        chosen = self.chosen
        return replace(
            results,
            interpolation=Interpolated(self.step, chosen.measured.curve, chosen.choice),
            reference=self._reference_results(),
        )

    def _reference_results(self) -> ReferenceResults | None:
        measured = self.chosen.measured
        if measured.reference is None or self.reference is None:
            return None
        place = measured.place(self.chosen.choice.alpha)
        change = measured.reference.compare(0, place)
        labels = np.asarray(self.reference.trials.labels)
        return ReferenceResults(
            before_eer=float(measured.reference.eers[0]),
            before_interval=measured.reference.eer_interval(0),
            after_eer=float(measured.reference.eers[place]),
            after_interval=measured.reference.eer_interval(place),
            eer_difference=change.eer_difference,
            eer_difference_interval=change.eer_difference_interval,
            verdict=change.verdict,
            num_speakers=len(set(self.reference.speaker_ids)),
            num_targets=int(labels.sum()),
            num_nontargets=int((~labels.astype(bool)).sum()),
        )


def take_chosen(
    trainer: SpeakerTrainer, run: RunDirectory, mean: SpeakerEncoder | None
) -> TakenResult | None:
    """Chooses between the untouched and the best trained encoder, and leaves it in `model/`.

    Every process takes part; the main one writes.

    Args:
        trainer: at the end of its training.
        run: its directory.
        mean: of the best models, where it is better than the best alone.

    Returns:
        What was chosen; None where there is nothing to choose from.
    """
    from speaker_encoder.modeling import SpeakerEncoder

    chooser, step = trainer.chooser, trainer.flow.best_trained_step()
    if chooser is None or step is None:
        return None
    is_kept = run.pretrained_dir.is_dir() and (mean or run.best_dir(step).is_dir())
    if not share_from_main({"is_kept": bool(is_kept)})["is_kept"]:
        _logger.warning(
            "nothing is interpolated: the run did not keep its best trained model; "
            "speaker-encoder interpolate does it with the pretrained encoder and a checkpoint"
        )
        return None
    trained = mean or SpeakerEncoder.from_pretrained(run.best_dir(step))
    if is_main_process() and mean is None:
        run.publish_best(step)  # with its loss
    return take_from_line(chooser, trained, step, run, run.pretrained_dir, trainer.args.device)


def take_from_line(
    chooser: Chooser,
    trained: SpeakerEncoder,
    step: int,
    run: RunDirectory,
    pretrained: Path,
    device: torch.device | str,
) -> TakenResult:
    """Chooses, and leaves in `model/` what is chosen, but at alpha 1 leaves it as it is.

    Args:
        chooser: of the run.
        trained: the encoder at alpha 1.
        step: of it.
        run: whose `model/` it is.
        pretrained: folder of the encoder at alpha 0.
        device: where to compute.
    """
    nn.Module.to(trained, device)
    _logger.info("measuring the encoders between the untouched one and step %d", step)
    chosen = chooser.choose(trained)
    alpha = chosen.choice.alpha
    _logger.info("alpha %g of step %d is the result: %s", alpha, step, chosen.choice.reason)
    if is_main_process():
        run.scores_dir.mkdir(exist_ok=True)
        save_embeddings(run.result_scores_path, chosen.embeddings)
        if alpha == 0:
            _copy(run, pretrained, run.model_dir)
        elif alpha < 1:
            with run.staged(run.model_dir) as staging:
                chosen.encoder.save_pretrained(staging)
                shutil.copyfile(run.config_path, staging / run.config_path.name)
    return TakenResult(step, chosen, chooser.reference)


def add_space(
    config: TrainConfig,
    run: RunDirectory,
    data: RunData,
    results: Results,
    paths: tuple[Path, Path],
    pretrained: Path,
) -> Results:
    """Measures how far the run moved the space of embeddings, and leaves the map back in `model/`.

    Args:
        config: of the run.
        run: its directory, with its result in `model/`.
        data: its corpora.
        results: so far.
        paths: of the validation embeddings of the untouched model and of the result.
        pretrained: folder of the encoder before training; where there is none, it had no space.
    """
    if not pretrained.is_dir():
        return results
    rows = None
    if results.after is not None and data.validation is not None and data.trials is not None:
        old, new = (np.load(path)["embeddings"] for path in paths)
        speaker_ids = [utterance.speaker_id for utterance in data.validation.utterances]
        rows = ValidationRows(old, new, data.trials, speaker_ids)
    _logger.info("measuring how far the space of embeddings moved")
    facts = measure_space(
        pretrained,
        run.model_dir,
        data.training.utterances,
        validation=rows,
        device="cpu" if config.device == "cpu" or not torch.cuda.is_available() else "cuda",
        max_seconds=config.val_max_seconds,
        trim_silence=config.trim_silence,
        num_bootstrap=config.bootstrap_samples,
        seed=config.seed,
    )
    return replace(results, cosine_to_pretrained=facts.cosine_to_pretrained, pretrained_space=facts)


def _copy(run: RunDirectory, source: Path, target: Path) -> None:
    """Makes `target` a folder with the same files, with the config of this run."""
    with run.staged(target) as staging:
        for path in source.iterdir():
            if path.name != run.config_path.name:
                link_or_copy(path, staging / path.name)
        shutil.copyfile(run.config_path, staging / run.config_path.name)
