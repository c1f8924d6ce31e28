"""Error rates of embeddings on trials with confidence intervals, and whether they got better."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from speaker_encoder.errors import UserError
from speaker_encoder.verification.bootstrap import SpeakerBootstrap, interval
from speaker_encoder.verification.metrics import (
    equal_error_rate,
    min_dcf,
    to_numpy,
)
from speaker_encoder.verification.resampled import ResampledScores, draw_figures
from speaker_encoder.verification.speakers import speakers_of_targets
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
    eer, threshold = equal_error_rate(scores, bootstrap.is_target)
    resampled = ResampledScores.from_scores(scores, bootstrap, (p_target,))
    (drawn,) = draw_figures([resampled], bootstrap, num_bootstrap=num_bootstrap, seed=seed)
    num_targets = int(np.count_nonzero(bootstrap.is_target))
    return VerificationResult(
        eer=eer,
        eer_interval=interval(drawn.eer),
        min_dcf=min_dcf(scores, bootstrap.is_target, p_target),
        min_dcf_interval=interval(drawn.min_dcf[:, 0]),
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
    scores_before, scores_after = (score_trials(rows, trials) for rows in (rows_before, rows_after))
    return compare_scores(
        scores_before,
        scores_after,
        trials,
        speaker_ids,
        p_target=p_target,
        num_bootstrap=num_bootstrap,
        seed=seed,
    )


def compare_scores(
    scores_before: ArrayLike,
    scores_after: ArrayLike,
    trials: Trials,
    speaker_ids: Sequence[str] | None,
    *,
    p_target: float = P_TARGET,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Whether the scores of a second system are better, by a paired bootstrap over speakers.

    Each draw of speakers measures both systems, so what is hard about a draw is hard for both
    and cancels in the difference. The scores may be of different kinds and ranges.

    Args:
        scores_before: (N,) finite; higher means more alike.
        scores_after: (N,) finite, of the same trials in the same order.
        trials: N trials with labels.
        speaker_ids: the speaker of each utterance that the trials point to; None when they are
            not known: then utterances that target trials connect are taken as a speaker.
        p_target: prior probability of a target trial, for minDCF.
        num_bootstrap: number of draws of speakers.
        seed: of the draws.

    Returns:
        The differences, their intervals and the verdict.

    Raises:
        UserError: no labels, no target or no nontarget trial, scores that are not finite or not
            one for each trial, or too few speakers for an interval.
    """
    bootstrap = SpeakerBootstrap.from_trials(
        trials, speakers_of_targets(trials) if speaker_ids is None else speaker_ids
    )
    is_target = bootstrap.is_target
    both = [to_numpy(scores) for scores in (scores_before, scores_after)]
    systems = [ResampledScores.from_scores(scores, bootstrap, (p_target,)) for scores in both]
    drawn = draw_figures(systems, bootstrap, num_bootstrap=num_bootstrap, seed=seed)
    eers = [equal_error_rate(scores, is_target)[0] for scores in both]
    costs = [min_dcf(scores, is_target, p_target) for scores in both]
    eer_interval = interval(drawn[1].eer - drawn[0].eer)
    return Comparison(
        eer_difference=eers[1] - eers[0],
        eer_difference_interval=eer_interval,
        min_dcf_difference=costs[1] - costs[0],
        min_dcf_difference_interval=interval(drawn[1].min_dcf[:, 0] - drawn[0].min_dcf[:, 0]),
        verdict=judge(*eer_interval),
    )


def judge(low: float, high: float) -> Verdict:
    """Says what a 95 % interval of a difference of error rates, after minus before, tells."""
    if high < 0:
        return "better"
    return "worse" if low > 0 else "no difference beyond noise"
