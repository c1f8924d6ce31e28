"""Error rates of embeddings on trials with confidence intervals, and whether they got better."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from speaker_encoder.errors import UserError
from speaker_encoder.verification.bootstrap import SpeakerBootstrap, error_rate_draws, interval
from speaker_encoder.verification.metrics import (
    SortedScores,
    crossing_rate,
    equal_error_rate,
    least_cost,
    to_numpy,
)
from speaker_encoder.verification.trials import Trials, score_trials

P_TARGET = 0.01
Verdict = Literal["better", "worse", "no difference beyond noise"]


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """Error rates on trials; fractions, intervals hold 95 % of the bootstrap over speakers.

    Attributes:
        eer: equal error rate.
        eer_interval: its (low, high).
        min_dcf: minimum detection cost, normalised.
        min_dcf_interval: its (low, high).
        threshold: cosine at or above which trials are accepted at the equal error rate.
        num_targets: number of target trials.
        num_nontargets: number of nontarget trials.
    """

    eer: float
    eer_interval: tuple[float, float]
    min_dcf: float
    min_dcf_interval: tuple[float, float]
    threshold: float
    num_targets: int
    num_nontargets: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """How error rates changed on the same trials; negative differences are improvements.

    Attributes:
        eer_difference: EER after minus before, a fraction.
        eer_difference_interval: its 95 % (low, high), paired bootstrap over speakers.
        min_dcf_difference: minDCF after minus before.
        min_dcf_difference_interval: its 95 % (low, high).
        verdict: by the EER: "better" when its whole interval lies below 0, "worse" when above.
    """

    eer_difference: float
    eer_difference_interval: tuple[float, float]
    min_dcf_difference: float
    min_dcf_difference_interval: tuple[float, float]
    verdict: Verdict


def evaluate(
    embeddings: ArrayLike,
    trials: Trials,
    speaker_ids: Sequence[str],
    *,
    p_target: float = P_TARGET,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> VerificationResult:
    """EER and minDCF of embeddings on labelled trials, cosine scores.

    Args:
        embeddings: (N, D) array or tensor, rows need not be normalised.
        trials: with labels, over the N utterances.
        speaker_ids: (N,) the speaker of each utterance.
        p_target: prior probability of a target trial, for minDCF.
        num_bootstrap: number of draws of speakers for the intervals.
        seed: of the draws.

    Returns:
        The error rates and their intervals.

    Raises:
        UserError: no labels, no target or no nontarget trial, embeddings that are not finite, or
            too few speakers for an interval.
    """
    bootstrap = SpeakerBootstrap.from_trials(trials, speaker_ids)
    scores = score_trials(embeddings, trials)
    sorted_scores = SortedScores.from_trials(scores, bootstrap.is_target)
    eer, threshold = equal_error_rate(scores, bootstrap.is_target)
    _, least = _figures(sorted_scores, p_target)
    draws = error_rate_draws(
        [sorted_scores], bootstrap, p_target=p_target, num_bootstrap=num_bootstrap, seed=seed
    )
    num_targets = int(np.count_nonzero(bootstrap.is_target))
    return VerificationResult(
        eer=eer,
        eer_interval=interval(draws[:, 0, 0]),
        min_dcf=least,
        min_dcf_interval=interval(draws[:, 0, 1]),
        threshold=threshold,
        num_targets=num_targets,
        num_nontargets=len(trials) - num_targets,
    )


def compare(
    embeddings_before: ArrayLike,
    embeddings_after: ArrayLike,
    trials: Trials,
    speaker_ids: Sequence[str],
    *,
    p_target: float = P_TARGET,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Whether embeddings got better on the same trials, by a paired bootstrap over speakers.

    Each draw of speakers measures both systems, so what is hard about a draw is hard for both
    and cancels in the difference.

    Args:
        embeddings_before: (N, D) array or tensor.
        embeddings_after: (N, E) array or tensor of the same utterances; E may differ from D.
        trials: with labels, over the N utterances.
        speaker_ids: (N,) the speaker of each utterance.
        p_target: prior probability of a target trial, for minDCF.
        num_bootstrap: number of draws of speakers.
        seed: of the draws.

    Returns:
        The differences, their intervals and the verdict.

    Raises:
        UserError: as `evaluate`, or two systems with different numbers of utterances.
    """
    rows_before, rows_after = to_numpy(embeddings_before), to_numpy(embeddings_after)
    if len(rows_before) != len(rows_after):
        raise UserError(
            "A comparison needs embeddings of the same utterances; found "
            f"{len(rows_before)} before and {len(rows_after)} after."
        )
    bootstrap = SpeakerBootstrap.from_trials(trials, speaker_ids)
    systems = [
        SortedScores.from_trials(score_trials(rows, trials), bootstrap.is_target)
        for rows in (rows_before, rows_after)
    ]
    before, after = (_figures(system, p_target) for system in systems)
    draws = error_rate_draws(
        systems, bootstrap, p_target=p_target, num_bootstrap=num_bootstrap, seed=seed
    )
    differences = draws[:, 1] - draws[:, 0]  # (num_bootstrap, 2)
    eer_interval = interval(differences[:, 0])
    return Comparison(
        eer_difference=after[0] - before[0],
        eer_difference_interval=eer_interval,
        min_dcf_difference=after[1] - before[1],
        min_dcf_difference_interval=interval(differences[:, 1]),
        verdict=_verdict(*eer_interval),
    )


def _figures(scores: SortedScores, p_target: float) -> tuple[float, float]:
    """(EER, minDCF) with every trial counted once."""
    false_accept_rate, miss_rate = scores.error_rates()
    return (
        crossing_rate(false_accept_rate, miss_rate),
        least_cost(false_accept_rate, miss_rate, p_target),
    )


def _verdict(low: float, high: float) -> Verdict:
    if high < 0:
        return "better"
    return "worse" if low > 0 else "no difference beyond noise"
