"""The mean of the best validated models, taken where it is at least as good as the best one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from speaker_encoder.training.callbacks import save_embeddings
from speaker_encoder.training.distributed import is_main_process

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder
    from speaker_encoder.training.run_dir import RunDirectory
    from speaker_encoder.training.trainer import SpeakerTrainer

_logger = logging.getLogger(__name__)


def mean_encoder(folders: Sequence[Path]) -> SpeakerEncoder:
    """Gives the encoder whose weights, and statistics of batch norm, are the means of several.

    Args:
        folders: encoders of one architecture, one for each step that was validated; what is no
            number with a fraction is the first's. The mean of two or more has trained weights in
            it, also where the first is the encoder before training.

    Source: Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better
    Generalization"; `average_nbest_models` of ESPnet.
    """
    from speaker_encoder.modeling import SpeakerEncoder

    model = SpeakerEncoder.from_pretrained(folders[0])
    sums = {k: v.double() for k, v in model.state_dict().items() if v.is_floating_point()}
    for folder in folders[1:]:
        state = SpeakerEncoder.from_pretrained(folder).state_dict()
        for name in sums:
            sums[name] += state[name]
    model.load_state_dict({k: v / len(folders) for k, v in sums.items()}, strict=False)
    if len(folders) > 1:
        model.config.untrained_head = False
    return model


def take_average(
    trainer: SpeakerTrainer, run: RunDirectory, count: int
) -> tuple[list[int], SpeakerEncoder | None]:
    """Makes `model/` the mean of the kept best models if it validates at least as well as the best.

    Every process takes part; the main one writes.

    Args:
        trainer: at the end of its training, with a ranking of two or more.
        run: its directory.
        count: how many of the best are averaged.

    Returns:
        The steps whose mean was taken, and their mean; none if the best model alone stays.
    """
    best = trainer.flow.progress.ranking[:count]
    ranking = [row for row in best if run.best_dir(row[2]).is_dir()]
    if len(ranking) < 2:
        return [], None
    steps = sorted(row[2] for row in ranking)
    model = mean_encoder([run.best_dir(step) for step in steps])
    model.attach_loss(trainer.published.model().loss_fn)
    nn.Module.to(model, trainer.args.device)
    found = trainer.validate(model)
    measured = (found.metrics["eer"], found.metrics["min_dcf"])
    is_taken = measured <= tuple(ranking[0][:2])
    _logger.info(
        "mean of steps %s: validation EER %.2f %%, minDCF %.3f, %s",
        *(", ".join(map(str, steps)), 100 * measured[0], measured[1]),
        "taken" if is_taken else f"not taken, step {ranking[0][2]} alone is better",
    )
    if not is_taken:
        return [], None
    if is_main_process():
        save_embeddings(run.average_scores_path, found.embeddings)
        trainer.save_encoder(run.model_dir, model)
    return steps, model
