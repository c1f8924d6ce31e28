"""Error rates of trials whose two sides are embeddings by different encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from speaker_encoder.verification.bootstrap import SpeakerBootstrap, interval
from speaker_encoder.verification.evaluate import P_TARGET
from speaker_encoder.verification.metrics import equal_error_rate, to_numpy
from speaker_encoder.verification.resampled import ResampledScores, draw_figures
from speaker_encoder.verification.trials import Trials, score_trials


@dataclass(frozen=True)
class Rate:
    """An EER as a fraction, and its 95 % bootstrap interval over speakers."""

    eer: float
    interval: tuple[float, float]


def cross_space_rates(
    sides: Sequence[tuple[ArrayLike, ArrayLike]],
    trials: Trials,
    speaker_ids: Sequence[str],
    *,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> list[Rate]:
    """EER of cosine scores between two embeddings of the same utterances, of several such pairs.

    Args:
        sides: (enrolment, test), each (N, D) of the same N utterances.
        trials: with labels, over the N utterances.
        speaker_ids: (N,).
        num_bootstrap: draws of speakers for the intervals, the same for all.
        seed: of the draws.

    Returns:
        For each pair its EER.

    Raises:
        UserError: as `evaluate`.
    """
    bootstrap = SpeakerBootstrap.from_trials(trials, speaker_ids)
    scores = []
    for enrolment, test in sides:
        rows, others = to_numpy(enrolment), to_numpy(test)
        across = Trials(trials.enrolment, trials.test + len(rows), trials.labels)
        scores.append(score_trials(np.concatenate([rows, others]), across))
    drawn = draw_figures(
        [ResampledScores.from_scores(some, bootstrap, (P_TARGET,)) for some in scores],
        bootstrap,
        num_bootstrap=num_bootstrap,
        seed=seed,
    )
    return [
        Rate(equal_error_rate(some, bootstrap.is_target)[0], interval(figures.eer))
        for some, figures in zip(scores, drawn, strict=True)
    ]
