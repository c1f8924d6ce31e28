"""Figures of log-likelihood ratios: actual detection cost, Cllr, and the least Cllr (PAV).

Scores are natural logarithms of likelihood ratios, log p(scores | same) / p(scores | different),
as calibration gives them. Raw cosines are not: only `min_cllr` has a meaning for those.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from speaker_encoder.verification.metrics import SortedScores, check_p_target, check_scored_trials


def bayes_threshold(p_target: float) -> float:
    """The log-likelihood ratio at which accepting and rejecting cost the same, C_miss = C_fa = 1.

    `log((1 - p) / p)`

    Args:
        p_target: prior probability of a target trial, in (0, 1).

    Returns:
        The threshold, natural logarithm.

    Raises:
        UserError: `p_target` outside (0, 1).
    """
    check_p_target(p_target)
    return math.log((1.0 - p_target) / p_target)


def actual_dcf(
    scores: ArrayLike, labels: ArrayLike, p_target: float = 0.01, threshold: float | None = None
) -> float:
    """Normalised detection cost at a threshold that was chosen without these trials.

    `( p * P_miss(t) + (1 - p) * P_fa(t) ) / min(p, 1 - p)`, C_miss = C_fa = 1; a trial is accepted
    when its score is at least t. It may exceed 1: worse than accepting or rejecting everything.

    Source: NIST SRE 2016 evaluation plan, section 3.

    Args:
        scores: (N,) finite: log-likelihood ratios, or any scores when a threshold is given.
        labels: (N,) 1 or True for target, 0 or False for nontarget.
        p_target: prior probability of a target trial, in (0, 1).
        threshold: None for the Bayes threshold `log((1 - p) / p)`.

    Returns:
        The cost, at least 0.

    Raises:
        UserError: no target or no nontarget, scores that are not finite, `p_target` outside
            (0, 1).
    """
    values, is_target = check_scored_trials(scores, labels)
    bayes = bayes_threshold(p_target)
    accepted = values >= (bayes if threshold is None else threshold)
    miss_rate = 1.0 - accepted[is_target].mean()
    false_accept_rate = accepted[~is_target].mean()
    cost = p_target * miss_rate + (1.0 - p_target) * false_accept_rate
    return float(cost / min(p_target, 1.0 - p_target))


def cllr(llrs: ArrayLike, labels: ArrayLike) -> float:
    """Cost of log-likelihood ratios over all priors, in bits.

    `1/2 ( mean_targets log2(1 + exp(-llr)) + mean_nontargets log2(1 + exp(llr)) )`: 0 is perfect,
    1 is what llr = 0 for every trial gives; more than 1 is misleading.

    Source: Brümmer & du Preez, "Application-independent evaluation of speaker detection",
    Computer Speech & Language 2006, eq. 24.

    Args:
        llrs: (N,) finite log-likelihood ratios, natural logarithm.
        labels: (N,) 1 or True for target, 0 or False for nontarget.

    Returns:
        The cost, at least 0.

    Raises:
        UserError: no target or no nontarget, or values that are not finite.
    """
    values, is_target = check_scored_trials(llrs, labels)
    bits = bits_lost(values, is_target)
    return float((bits[is_target].mean() + bits[~is_target].mean()) / 2)


def bits_lost(llrs: NDArray[np.float64], is_target: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What each trial adds to Cllr: `log2(1 + exp(-llr))` of targets, with +llr of nontargets.

    Args:
        llrs: (N,) log-likelihood ratios, natural logarithm.
        is_target: (N,).

    Returns:
        (N,) bits.
    """
    return np.logaddexp(0.0, np.where(is_target, -llrs, llrs)) / math.log(2.0)


def min_cllr(scores: ArrayLike, labels: ArrayLike) -> float:
    """Cllr after the best non-decreasing map of the scores to log-likelihood ratios, in bits.

    The map is isotonic regression of the labels on the scores (pool adjacent violators); tied
    scores stay together. Its ends may be infinite (a score above all nontargets); those trials
    cost nothing. 0 when the classes do not overlap, 1 when scores tell nothing.

    Source: Brümmer & du Preez 2006, section 5; as `min_cllr` of BOSARIS (raw PAV).

    Args:
        scores: (N,) finite; higher means more alike.
        labels: (N,) 1 or True for target, 0 or False for nontarget.

    Returns:
        The cost, in [0, 1].

    Raises:
        UserError: no target or no nontarget, or scores that are not finite.
    """
    accepted_targets, accepted_nontargets = SortedScores.from_trials(scores, labels).accepted()
    return least_cllr(
        np.diff(accepted_targets, prepend=0.0), np.diff(accepted_nontargets, prepend=0.0)
    )


def least_cllr(targets: NDArray[np.float64], nontargets: NDArray[np.float64]) -> float:
    """The least Cllr of (weighted) counts of trials at descending scores, see `min_cllr`.

    With t and n the shares of all targets and of all nontargets in a pool, the optimal ratio of
    the pool is t / n and it costs `1/2 (t log2((t + n) / t) + n log2((t + n) / n))`.

    Args:
        targets: (M,) target trials at each score, from the highest score to the lowest.
        nontargets: (M,) nontarget trials at each score.

    Returns:
        The cost in bits, in [0, 1].
    """
    from scipy.optimize import isotonic_regression
    from scipy.special import xlogy

    counts = targets + nontargets
    used = counts > 0
    targets, nontargets, counts = targets[used], nontargets[used], counts[used]
    fitted = isotonic_regression(targets / counts, weights=counts, increasing=False)
    starts = fitted.blocks[:-1]
    shares = np.stack([targets / targets.sum(), nontargets / nontargets.sum()])
    pooled = np.add.reduceat(shares, starts, axis=1)  # (2, num_pools)
    nats = xlogy(pooled, pooled.sum(axis=0)) - xlogy(pooled, pooled)
    return float(nats.sum() / (2.0 * math.log(2.0)))
