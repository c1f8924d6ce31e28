"""Equal error rate and minimum detection cost of scored trials.

Both sweep all thresholds at once on the sorted scores, O(N log N). A trial is accepted when its
score is at least the threshold; tied scores are accepted together.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from speaker_encoder.errors import UserError


@dataclass(frozen=True, slots=True)
class SortedScores:
    """Scores of labelled trials, sorted once, so that weighted error rates cost O(N).

    Attributes:
        order: (N,) indices of the trials, from the highest score to the lowest.
        is_target: (N,) bool, in that order.
        thresholds: (M,) distinct scores, descending.
        last: (M,) position in the order of the last trial at each distinct score.
    """

    order: NDArray[np.int64]
    is_target: NDArray[np.bool_]
    thresholds: NDArray[np.float64]
    last: NDArray[np.int64]

    @classmethod
    def from_trials(cls, scores: ArrayLike, labels: ArrayLike) -> "SortedScores":
        """Checks and sorts scored trials.

        Args:
            scores: (N,) finite; higher means more alike. An array, a list or a tensor.
            labels: (N,) 1 or True for target, 0 or False for nontarget.

        Returns:
            The sorted scores.

        Raises:
            UserError: shapes that differ, no target or no nontarget, a label that is neither 0
                nor 1, or a score that is not finite.
        """
        values, is_target = check_scored_trials(scores, labels)
        order = np.argsort(-values, kind="stable")
        values = values[order]
        last = np.append(np.flatnonzero(values[1:] != values[:-1]), len(values) - 1)
        return cls(order, is_target[order], values[last], last)

    def accepted(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How many trials are accepted down to each distinct score.

        Returns:
            (targets, nontargets), each (M,) and non-decreasing.
        """
        targets = np.cumsum(self.is_target)[self.last].astype(np.float64)
        return targets, self.last + 1 - targets

    def error_rates(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """False-accept and miss rates at every operating point.

        Returns:
            (false_accept_rate, miss_rate), each (M + 1,): first everything rejected (0, 1), then
            everything down to each distinct score accepted, at last (1, 0).
        """
        targets, nontargets = self.accepted()
        false_accept_rate = np.zeros(len(self.last) + 1)
        np.divide(nontargets, nontargets[-1], out=false_accept_rate[1:])
        miss_rate = np.ones(len(self.last) + 1)
        np.divide(targets[-1] - targets, targets[-1], out=miss_rate[1:])
        return false_accept_rate, miss_rate

    def threshold_of(self, point: int) -> float:
        """A threshold that gives an operating point of `error_rates`.

        Args:
            point: 0 (reject everything) to M (accept everything).

        Returns:
            Halfway between the lowest accepted and the highest rejected score where there is a
            number between them, or the lowest accepted score; for point 0 just above the highest.
        """
        if point == 0:
            return float(np.nextafter(self.thresholds[0], np.inf))
        lowest_accepted = float(self.thresholds[point - 1])
        if point == len(self.thresholds):
            return lowest_accepted
        highest_rejected = float(self.thresholds[point])
        halfway = highest_rejected + (lowest_accepted - highest_rejected) / 2
        return halfway if highest_rejected < halfway < lowest_accepted else lowest_accepted


def equal_error_rate(scores: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """Equal error rate: where the false-accept rate equals the miss rate.

    Between the two neighbouring operating points where the miss rate falls below the
    false-accept rate, both are interpolated linearly (the point where the plain ROC polyline
    crosses the diagonal; not its convex hull). All scores equal give 0.5.

    Args:
        scores: (N,) finite; higher means more alike. An array, a list or a tensor.
        labels: (N,) 1 or True for target, 0 or False for nontarget.

    Returns:
        (eer, threshold): a fraction in [0, 1], and a score: accepting trials at or above it
        gives the operating point nearest to the equal error rate. It lies halfway between two
        neighbouring scores where there are such.

    Raises:
        UserError: shapes that differ, no target or no nontarget, scores that are not finite.
    """
    sorted_scores = SortedScores.from_trials(scores, labels)
    false_accept_rate, miss_rate = sorted_scores.error_rates()
    # Point 0 (reject everything) is never the nearest: its gap is 1.
    nearest = 1 + int(np.argmin(np.abs(miss_rate - false_accept_rate)[1:]))
    return (
        crossing_rate(false_accept_rate, miss_rate),
        sorted_scores.threshold_of(nearest),
    )


def min_dcf(scores: ArrayLike, labels: ArrayLike, p_target: float = 0.01) -> float:
    """Minimum of the normalised detection cost over all thresholds, C_miss = C_fa = 1.

    `min_t( p * P_miss(t) + (1 - p) * P_fa(t) ) / min(p, 1 - p)`, at most 1, the cost of the
    better one of accepting and rejecting everything (NIST SRE).

    Args:
        scores: (N,) finite; higher means more alike. An array, a list or a tensor.
        labels: (N,) 1 or True for target, 0 or False for nontarget.
        p_target: prior probability of a target trial, in (0, 1).

    Returns:
        The cost, in [0, 1].

    Raises:
        UserError: as for `equal_error_rate`, or `p_target` outside (0, 1).
    """
    false_accept_rate, miss_rate = SortedScores.from_trials(scores, labels).error_rates()
    return least_cost(false_accept_rate, miss_rate, p_target)


def crossing_rate(false_accept_rate: NDArray[np.float64], miss_rate: NDArray[np.float64]) -> float:
    """The equal error rate of an ROC polyline from (0, 1) to (1, 0).

    Args:
        false_accept_rate: (M + 1,) non-decreasing, from 0 to 1.
        miss_rate: (M + 1,) non-increasing, from 1 to 0.

    Returns:
        The rate where the two are equal, interpolated linearly.
    """
    # miss - false_accept falls from 1 to -1: a binary search finds its change of sign.
    after = int(np.searchsorted(false_accept_rate - miss_rate, 0.0))
    before = after - 1
    gap_before = miss_rate[before] - false_accept_rate[before]
    gap_after = miss_rate[after] - false_accept_rate[after]
    share = gap_before / (gap_before - gap_after)
    return float(
        false_accept_rate[before] + share * (false_accept_rate[after] - false_accept_rate[before])
    )


def least_cost(
    false_accept_rate: NDArray[np.float64], miss_rate: NDArray[np.float64], p_target: float
) -> float:
    """The least normalised detection cost of the operating points, see `min_dcf`.

    Args:
        false_accept_rate: (M + 1,).
        miss_rate: (M + 1,).
        p_target: prior probability of a target trial, in (0, 1).

    Returns:
        The cost, in [0, 1].

    Raises:
        UserError: `p_target` outside (0, 1).
    """
    check_p_target(p_target)
    costs = p_target * miss_rate + (1.0 - p_target) * false_accept_rate
    return float(costs.min() / min(p_target, 1.0 - p_target))


def check_p_target(p_target: float) -> None:
    """Refuses what is not a probability.

    Args:
        p_target: prior probability of a target trial.

    Raises:
        UserError: `p_target` outside (0, 1).
    """
    if not 0.0 < p_target < 1.0:
        raise UserError(f"p_target must lie between 0 and 1, found {p_target!r}.")


def check_scored_trials(
    scores: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores and labels as arrays that an error rate can be computed of.

    Args:
        scores: (N,) finite. An array, a list or a tensor.
        labels: (N,) 1 or True for target, 0 or False for nontarget.

    Returns:
        (scores, is_target), each (N,).

    Raises:
        UserError: shapes that differ, no target or no nontarget, a label that is neither 0 nor 1,
            or a score that is not finite.
    """
    values = to_numpy(scores).astype(np.float64)
    is_target = _as_bool(to_numpy(labels))
    if values.ndim != 1 or values.shape != is_target.shape:
        raise UserError(
            "Scores and labels must be one value per trial; "
            f"found shapes {values.shape} and {is_target.shape}."
        )
    num_bad = int(np.count_nonzero(~np.isfinite(values)))
    if num_bad:
        raise UserError(f"{num_bad} of {len(values)} scores are not finite.")
    num_targets = int(is_target.sum())
    if num_targets in (0, len(is_target)):
        raise UserError(
            "An error rate needs target and nontarget trials; "
            f"found {num_targets} targets and {len(is_target) - num_targets} nontargets."
        )
    return values, is_target


def to_numpy(values: Any) -> NDArray[Any]:
    """An array of an array, a list, or a tensor on any device (bfloat16 too).

    Args:
        values: what `np.asarray` takes, or a torch tensor.

    Returns:
        The array, without a copy where possible.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        is_half = values.is_floating_point() and values.element_size() < 4
        return (values.float() if is_half else values).numpy()
    return np.asarray(values)


def _as_bool(labels: NDArray[Any]) -> NDArray[np.bool_]:
    if labels.dtype != np.bool_ and not np.isin(labels, (0, 1)).all():
        raise UserError("Labels must be 1 (target) or 0 (nontarget).")
    return labels.astype(np.bool_)
