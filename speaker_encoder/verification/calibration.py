"""Calibration: scores and quality measures of a trial to a log-likelihood ratio."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from speaker_encoder.errors import UserError
from speaker_encoder.verification.cllr import bayes_threshold
from speaker_encoder.verification.metrics import check_scored_trials, to_numpy
from speaker_encoder.verification.trials import Trials

SCORE = "score"
RIDGE = 1e-6
"""Weight of the squared weights: keeps them finite when the classes do not overlap."""
LEAST_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Calibration:
    """An affine map of a trial's score and quality measures to a log-likelihood ratio.

    `llr = bias + weights[0] * score + sum_i weights[i] * quality[names[i]]`, natural logarithm.

    Attributes:
        names: "score", then the quality measures.
        weights: one for each name.
        bias: added to all.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    bias: float

    def apply(
        self, scores: ArrayLike, qualities: Mapping[str, ArrayLike] | None = None
    ) -> NDArray[np.float64]:
        """Log-likelihood ratios of trials.

        Args:
            scores: (N,) of the kind that the calibration was fitted on.
            qualities: by name, (N,) each; more than needed do no harm.

        Returns:
            (N,) float64, natural logarithm.

        Raises:
            UserError: a quality measure of the calibration is missing, or values of another
                number than the scores, or that are not finite.
        """
        values = to_numpy(scores).astype(np.float64)
        missing = [name for name in self.names[1:] if name not in (qualities or {})]
        if missing:
            raise UserError(
                f"This calibration uses the quality measures {', '.join(self.names[1:])}; "
                f"not given: {', '.join(missing)}."
            )
        table = _features(values, {name: (qualities or {})[name] for name in self.names[1:]})
        return self.bias + table @ np.array(self.weights)

    def as_dict(self) -> dict[str, Any]:
        """The calibration for JSON."""
        return {"names": list(self.names), "weights": list(self.weights), "bias": self.bias}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Calibration":
        """The calibration that `as_dict` gave.

        Args:
            values: names, weights and bias.

        Returns:
            The calibration.

        Raises:
            UserError: a key is missing, or what it holds is no calibration.
        """
        try:
            names = tuple(str(name) for name in values["names"])
            weights = tuple(float(weight) for weight in values["weights"])
            bias = float(values["bias"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"This is no calibration: {error!r} in {dict(values)!r}.") from error
        is_finite = bool(np.isfinite((*weights, bias)).all())
        if len(names) != len(weights) or names[:1] != (SCORE,) or not is_finite:
            raise UserError(
                f"A calibration has a finite weight for each name, the first name {SCORE!r}; "
                f"found names {names} and weights {weights}, bias {bias}."
            )
        return cls(names, weights, bias)


def fit_calibration(
    scores: ArrayLike,
    labels: ArrayLike,
    qualities: Mapping[str, ArrayLike] | None = None,
    p_target: float = 0.5,
) -> Calibration:
    """Logistic regression of the labels on scores and quality measures, prior-weighted.

    Minimises, with `x = llr + log(p / (1 - p))`, the cross-entropy
    `p mean_targets log(1 + exp(-x)) + (1 - p) mean_nontargets log(1 + exp(x))`, so that the
    result does not depend on how many targets the list has. With p = 0.5 and no quality measures
    this is the least Cllr (in nats) that an affine map can reach. A ridge of 1e-6 on the weights
    of standardised inputs keeps them finite for classes that do not overlap. A measure that is
    the same for all trials gets weight 0.

    Source: Brümmer & du Preez 2006 (prior-weighted logistic regression); quality measures:
    Thienpondt et al., "The IDLab VoxSRC-20 submission", arXiv 2010.11255, section 5.

    Args:
        scores: (N,) finite, of calibration trials; never the trials that are measured
            (`refuse_same_trials`).
        labels: (N,) 1 or True for target, 0 or False for nontarget.
        qualities: by name, (N,) each, see `trial_qualities`.
        p_target: the prior that errors are weighted for, in (0, 1).

    Returns:
        The calibration.

    Raises:
        UserError: no target or no nontarget trial, values that are not finite or not one for each
            trial, or `p_target` outside (0, 1).
    """
    from scipy.optimize import minimize

    values, is_target = check_scored_trials(scores, labels)
    log_odds = -bayes_threshold(p_target)
    raw = _features(values, qualities or {})
    centre, scale = raw.mean(axis=0), raw.std(axis=0)
    is_constant = scale <= 1e-12 * np.maximum(np.abs(centre), 1.0)
    scale = np.where(is_constant, 1.0, scale)
    table = np.where(is_constant, 0.0, (raw - centre) / scale)
    table = np.column_stack([table, np.ones(len(table))])
    num_targets = np.count_nonzero(is_target)
    share = np.where(
        is_target, p_target / num_targets, (1.0 - p_target) / (len(values) - num_targets)
    )
    objective = _Objective(table, np.where(is_target, 1.0, -1.0), share, log_odds)
    found = minimize(
        objective.loss,
        np.zeros(table.shape[1]),
        jac=objective.gradient,
        hess=objective.hessian,
        method="trust-exact",
        options={"gtol": 1e-10, "maxiter": 500},
    )
    weights = found.x[:-1] / scale
    bias = float(found.x[-1] - weights @ centre)
    return Calibration((SCORE, *(qualities or {})), tuple(map(float, weights)), bias)


@dataclass(frozen=True, slots=True)
class _Objective:
    """Weighted cross-entropy, its gradient and Hessian, of weights (F + 1,), the last the bias."""

    table: NDArray[np.float64]
    sign: NDArray[np.float64]
    share: NDArray[np.float64]
    log_odds: float

    def loss(self, weights: NDArray[np.float64]) -> float:
        losses = np.logaddexp(0.0, -self._margin(weights))
        return float(self.share @ losses + RIDGE / 2 * (weights[:-1] @ weights[:-1]))

    def gradient(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        wrong = _sigmoid(-self._margin(weights))
        ridge = np.append(RIDGE * weights[:-1], 0.0)
        return ridge - self.table.T @ (self.share * self.sign * wrong)

    def hessian(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        wrong = _sigmoid(-self._margin(weights))
        curvature = self.share * wrong * (1.0 - wrong)
        ridge = np.diag(np.append(np.full(len(weights) - 1, RIDGE), 0.0))
        return (self.table.T * curvature) @ self.table + ridge

    def _margin(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.sign * (self.table @ weights + self.log_odds)


def trial_qualities(
    trials: Trials, seconds: ArrayLike | None = None, norms: ArrayLike | None = None
) -> dict[str, NDArray[np.float64]]:
    """Quality measures of trials that do not depend on which side is which.

    Args:
        trials: N trials over U utterances.
        seconds: (U,) duration of each utterance; None when not known.
        norms: (U,) norm of each raw embedding, before L2 normalisation; None when not known.

    Returns:
        By name, (N,) each: log_min_seconds, log_max_seconds, min_norm, max_norm, as far as known.

    Raises:
        UserError: values that are not finite, or negative.
    """
    found: dict[str, NDArray[np.float64]] = {}
    if seconds is not None:
        values = np.log(np.maximum(_measures(seconds, "durations"), LEAST_SECONDS))
        found["log_min_seconds"], found["log_max_seconds"] = _ordered(values, trials)
    if norms is not None:
        values = _measures(norms, "embedding norms")
        found["min_norm"], found["max_norm"] = _ordered(values, trials)
    return found


def refuse_same_trials(
    calibration_pairs: Iterable[Sequence[str]], test_pairs: Iterable[Sequence[str]]
) -> None:
    """Refuses calibration trials that are among the trials to measure, in either order.

    Args:
        calibration_pairs: two paths each; the caller makes them comparable (absolute).
        test_pairs: the same of the trials that are measured.

    Raises:
        UserError: a pair of utterances is in both.
    """
    tested = {_unordered(pair) for pair in test_pairs}
    same = [pair for pair in map(_unordered, calibration_pairs) if pair in tested]
    if same:
        raise UserError(
            f"{len(same)} calibration trials are among the trials to measure, the first: "
            f"{same[0][0]} and {same[0][1]}. Calibrated on them, the figures would be too good; "
            "use other trials for the calibration, of other speakers at best."
        )


def _unordered(pair: Sequence[str]) -> tuple[str, str]:
    first, second = pair
    return (first, second) if first <= second else (second, first)


def _features(
    scores: NDArray[np.float64], qualities: Mapping[str, ArrayLike]
) -> NDArray[np.float64]:
    """(N, 1 + num_qualities) the inputs of the logistic regression."""
    columns = [scores]
    for name, given in qualities.items():
        values = to_numpy(given).astype(np.float64)
        if values.shape != scores.shape:
            raise UserError(
                f"The quality measure {name!r} has shape {values.shape}, the scores "
                f"{scores.shape}; they must be one value per trial."
            )
        columns.append(values)
    table = np.column_stack(columns)
    bad = np.flatnonzero(~np.isfinite(table).all(axis=0))
    if len(bad):
        name = (SCORE, *qualities)[bad[0]]
        raise UserError(f"The values of {name!r} are not all finite; calibration needs numbers.")
    return table


def _measures(given: ArrayLike, what: str) -> NDArray[np.float64]:
    values = to_numpy(given).astype(np.float64)
    if not np.isfinite(values).all() or (values < 0).any():
        raise UserError(f"The {what} of the utterances must be finite and not negative.")
    return values


def _ordered(
    values: NDArray[np.float64], trials: Trials
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = values[trials.enrolment], values[trials.test]
    return np.minimum(first, second), np.maximum(first, second)


def _sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import expit

    return expit(values)
