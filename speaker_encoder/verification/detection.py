"""All figures of scored trials with their confidence intervals: what `evaluate` reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from speaker_encoder.errors import UserError
from speaker_encoder.verification.bootstrap import (
    CONFIDENCE,
    SpeakerBootstrap,
    TooFewSpeakersError,
    interval,
)
from speaker_encoder.verification.cllr import actual_dcf, bayes_threshold, cllr, min_cllr
from speaker_encoder.verification.metrics import (
    SortedScores,
    check_scored_trials,
    equal_error_rate,
    least_cost,
)
from speaker_encoder.verification.resampled import DrawnFigures, ResampledScores, draw_figures
from speaker_encoder.verification.speakers import speakers_of_targets
from speaker_encoder.verification.trials import Trials

__all__ = [
    "DetectionFigures",
    "Figure",
    "actual_dcf",
    "cllr",
    "detection_figures",
    "error_rates_at",
    "min_cllr",
    "threshold_at_false_accept_rate",
]

P_TARGETS = (0.01, 0.05)
MAX_MIN_CLLR_DRAWS = 200
"""Draws of speakers for the interval of minCllr, each of which needs an isotonic regression."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and how far it would move with other speakers.

    Attributes:
        value: of all trials.
        interval: (low, high) of 95 % of the bootstrap over speakers; None without one.
        threshold: the score at or above which trials are accepted, where the figure has one.
    """

    value: float
    interval: tuple[float, float] | None = None
    threshold: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The figure for JSON: value, interval, and threshold where there is one."""
        found: dict[str, Any] = {
            "value": self.value,
            "interval": None if self.interval is None else list(self.interval),
        }
        if self.threshold is not None:
            found["threshold"] = self.threshold
        return found


@dataclass(frozen=True, slots=True)
class DetectionFigures:
    """Error rates and costs of scored trials.

    Attributes:
        eer: equal error rate, a fraction, with its threshold.
        min_dcf: for each p_target the least normalised detection cost, with its threshold.
        act_dcf: for each p_target the cost at the Bayes threshold; None when the scores are not
            calibrated.
        cllr: in bits; None when the scores are not calibrated.
        min_cllr: in bits; its interval is of the first 200 draws at most.
        num_targets: number of target trials.
        num_nontargets: number of nontarget trials.
        num_speakers: that were drawn for the intervals.
        num_bootstrap: number of draws of speakers; 0 when there are no intervals.
        seed: of the draws.
        note: why there are no intervals, or None.
    """

    eer: Figure
    min_dcf: dict[float, Figure]
    act_dcf: dict[float, Figure] | None
    cllr: Figure | None
    min_cllr: Figure
    num_targets: int
    num_nontargets: int
    num_speakers: int
    num_bootstrap: int
    seed: int
    note: str | None = None

    @property
    def is_calibrated(self) -> bool:
        """Whether the scores were log-likelihood ratios."""
        return self.cllr is not None

    def as_dict(self) -> dict[str, Any]:
        """The figures for JSON; the keys of min_dcf and act_dcf are p_target as text."""
        return {
            "num_targets": self.num_targets,
            "num_nontargets": self.num_nontargets,
            "is_calibrated": self.is_calibrated,
            "eer": self.eer.as_dict(),
            "min_dcf": _by_prior(self.min_dcf),
            "act_dcf": None if self.act_dcf is None else _by_prior(self.act_dcf),
            "cllr": None if self.cllr is None else self.cllr.as_dict(),
            "min_cllr": self.min_cllr.as_dict(),
            "bootstrap": {
                "confidence": CONFIDENCE,
                "num_draws": self.num_bootstrap,
                "num_min_cllr_draws": min(self.num_bootstrap, MAX_MIN_CLLR_DRAWS),
                "num_speakers": self.num_speakers,
                "seed": self.seed,
                "note": self.note,
            },
        }


def detection_figures(
    scores: ArrayLike,
    trials: Trials,
    speaker_ids: Sequence[str] | None = None,
    *,
    p_targets: Sequence[float] = P_TARGETS,
    num_bootstrap: int = 1000,
    seed: int = 0,
    calibrated: bool = False,
) -> DetectionFigures:
    """EER, minDCF, actual DCF, Cllr and minCllr of scored trials, each with a 95 % interval.

    EER, minDCF and minCllr of each draw of speakers are those of all its thresholds, nothing is
    rounded to bins; Cllr and actual DCF of a draw are sums in float32 (about 1e-6). Memory does not
    grow with the number of draws. minCllr needs an isotonic regression for each draw, so its
    interval is of the first 200 draws at most. 1000 draws of 1,000,000 trials take 3 to 15 s on
    one core, the longer the more the classes overlap.

    Args:
        scores: (N,) finite; higher means more alike. An array, a list or a tensor.
        trials: N trials with labels.
        speaker_ids: the speaker of each utterance that the trials point to. None when they are
            not known: then utterances that target trials connect are taken as a speaker (see
            `speakers.infer_speakers` for those that folders tell).
        p_targets: prior probabilities of a target trial, for the detection costs.
        num_bootstrap: number of draws of speakers; 0 for no intervals.
        seed: of the draws.
        calibrated: the scores are log-likelihood ratios, natural logarithm: actual DCF and Cllr
            have a meaning.

    Returns:
        The figures. When there are too few speakers for intervals, without them, and the note
        says so.

    Raises:
        UserError: no labels, no target or no nontarget trial, scores that are not finite or not
            one for each trial, or a prior outside (0, 1).
    """
    bootstrap = SpeakerBootstrap.from_trials(
        trials, speakers_of_targets(trials) if speaker_ids is None else speaker_ids
    )
    values, is_target = check_scored_trials(scores, bootstrap.is_target)
    drawn, note = _draw(values, bootstrap, tuple(p_targets), num_bootstrap, seed)
    eer, threshold = equal_error_rate(values, is_target)
    act_dcf = None
    if calibrated:
        act_dcf = {
            p: Figure(
                actual_dcf(values, is_target, p),
                drawn and interval(drawn.act_dcf[:, i]),
                bayes_threshold(p),
            )
            for i, p in enumerate(p_targets)
        }
    num_targets = int(np.count_nonzero(is_target))
    return DetectionFigures(
        eer=Figure(eer, drawn and interval(drawn.eer), threshold),
        min_dcf=_min_dcf(values, is_target, p_targets, drawn),
        act_dcf=act_dcf,
        cllr=Figure(cllr(values, is_target), drawn and interval(drawn.cllr))
        if calibrated
        else None,
        min_cllr=Figure(min_cllr(values, is_target), drawn and interval(drawn.min_cllr)),
        num_targets=num_targets,
        num_nontargets=len(is_target) - num_targets,
        num_speakers=bootstrap.num_speakers,
        num_bootstrap=num_bootstrap if drawn else 0,
        seed=seed,
        note=note,
    )


def threshold_at_false_accept_rate(scores: ArrayLike, labels: ArrayLike, rate: float) -> float:
    """The threshold that misses least while accepting no more nontargets than wanted.

    Of all thresholds whose false-accept rate on these trials is at most `rate`, one with the
    least miss rate, halfway between two neighbouring scores where there are such. Where even the
    highest score is accepted wrongly too often, it lies just above the highest score. A rate
    below 1 / (number of nontargets) is answered with no false accept at all.

    Args:
        scores: (N,) finite; higher means more alike. An array, a list or a tensor.
        labels: (N,) 1 or True for target, 0 or False for nontarget.
        rate: the false-accept rate wanted, a fraction in [0, 1].

    Returns:
        A score; trials at or above it are accepted.

    Raises:
        UserError: as for `equal_error_rate`, or a rate outside [0, 1].
    """
    if not 0.0 <= rate <= 1.0:
        raise UserError(f"A false-accept rate must lie between 0 and 1, found {rate!r}.")
    sorted_scores = SortedScores.from_trials(scores, labels)
    false_accept_rate, _ = sorted_scores.error_rates()
    return sorted_scores.threshold_of(int(np.searchsorted(false_accept_rate, rate, "right")) - 1)


def error_rates_at(scores: ArrayLike, labels: ArrayLike, threshold: float) -> tuple[float, float]:
    """What a threshold does on labelled trials.

    Args:
        scores: (N,) finite; higher means more alike. An array, a list or a tensor.
        labels: (N,) 1 or True for target, 0 or False for nontarget.
        threshold: trials at or above it are accepted.

    Returns:
        (false_accept_rate, miss_rate), fractions.

    Raises:
        UserError: as for `equal_error_rate`.
    """
    values, is_target = check_scored_trials(scores, labels)
    accepted = values >= threshold
    return float(accepted[~is_target].mean()), float(1.0 - accepted[is_target].mean())


def _draw(
    scores: NDArray[np.float64],
    bootstrap: SpeakerBootstrap,
    p_targets: tuple[float, ...],
    num_bootstrap: int,
    seed: int,
) -> tuple[DrawnFigures | None, str | None]:
    """The drawn figures, or None and why there are none."""
    if num_bootstrap == 0:
        return None, "no intervals were asked for"
    resampled = ResampledScores.from_scores(scores, bootstrap, p_targets)
    try:
        (drawn,) = draw_figures(
            [resampled],
            bootstrap,
            num_bootstrap=num_bootstrap,
            seed=seed,
            num_min_cllr=MAX_MIN_CLLR_DRAWS,
        )
    except TooFewSpeakersError as error:
        return None, str(error)
    return drawn, None


def _min_dcf(
    scores: NDArray[np.float64],
    is_target: NDArray[np.bool_],
    p_targets: Sequence[float],
    drawn: DrawnFigures | None,
) -> dict[float, Figure]:
    sorted_scores = SortedScores.from_trials(scores, is_target)
    false_accept_rate, miss_rate = sorted_scores.error_rates()
    figures = {}
    for i, p_target in enumerate(p_targets):
        cost = least_cost(false_accept_rate, miss_rate, p_target)
        point = int(np.argmin(p_target * miss_rate + (1.0 - p_target) * false_accept_rate))
        figures[p_target] = Figure(
            cost, drawn and interval(drawn.min_dcf[:, i]), sorted_scores.threshold_of(point)
        )
    return figures


def _by_prior(figures: dict[float, Figure]) -> dict[str, dict[str, Any]]:
    return {f"{p_target:g}": figure.as_dict() for p_target, figure in figures.items()}
