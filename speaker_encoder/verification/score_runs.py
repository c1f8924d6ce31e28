"""Scored trials of one class in the order of their scores, to be weighted by draws of speakers.

Neighbouring scores of one class are pooled into a run: EER, minDCF and minCllr do not change,
since within a run the error rates move along one straight line parallel to an axis.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.verification.metrics import SortedScores

TRIALS_AT_ONCE = 8192


class Tally(NamedTuple):
    """Weighted trials of one class under K draws.

    Attributes:
        of_bin: (num_bins, K) trials, from the highest scores to the lowest.
        sums: (num_columns, K) of what each trial adds.
    """

    of_bin: NDArray[np.float64]
    sums: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClassTrials:
    """Trials of one class by descending score; those of one run and the same speakers are a row.

    Attributes:
        first: (R,) row of the table of copies.
        second: (R,) the row to multiply with.
        run: (R,) non-decreasing.
        count: (R,) trials in this row.
        columns: (num_columns, R) what the trials of this row add, divided by their number.
    """

    first: NDArray[np.int32]
    second: NDArray[np.int32]
    run: NDArray[np.int64]
    count: NDArray[np.float32]
    columns: NDArray[np.float32]

    @classmethod
    def from_trials(
        cls,
        first: NDArray[np.int64],
        second: NDArray[np.int64],
        run: NDArray[np.int64],
        columns: NDArray[np.float64],
    ) -> "ClassTrials":
        """Joins trials of the same run and the same speakers.

        Args:
            first: (N,) row of the table of copies, see `SpeakerBootstrap.copies`.
            second: (N,) the row to multiply with.
            run: (N,) as `number_runs` gives them.
            columns: (num_columns, N) what each trial adds to a sum.

        Returns:
            The trials, in the order of the runs.
        """
        low, high = np.minimum(first, second), np.maximum(first, second)
        width = int(high.max()) + 1
        keys, inverse, counts = np.unique(
            (run * width + low) * width + high, return_inverse=True, return_counts=True
        )
        sums = np.stack([np.bincount(inverse, column, len(keys)) for column in columns])
        return cls(
            (keys // width % width).astype(np.int32),
            (keys % width).astype(np.int32),
            keys // width**2,
            counts.astype(np.float32),
            (sums / counts).astype(np.float32),
        )

    def tally(self, copies: NDArray[np.float32], edges: NDArray[np.int64]) -> Tally:
        """Weighted trials in bins of runs.

        Args:
            copies: (num_speakers + 1, K), see `SpeakerBootstrap.copies`.
            edges: (num_bins + 1,) ascending: bin b holds the runs edges[b] to edges[b + 1] - 1.
                Runs outside of all bins are not read.

        Returns:
            The trials in each bin, and the sums over all bins.
        """
        starts = np.searchsorted(self.run, edges)
        of_bin = np.zeros((len(edges) - 1, copies.shape[1]))
        sums = np.zeros((len(self.columns), copies.shape[1]))
        for start in range(int(starts[0]), int(starts[-1]), TRIALS_AT_ONCE):
            stop = min(start + TRIALS_AT_ONCE, int(starts[-1]))
            rows = slice(start, stop)
            weights = copies[self.first[rows]]
            weights *= copies[self.second[rows]]
            weights *= self.count[rows, None]
            sums += self.columns[:, rows] @ weights
            low, high = np.searchsorted(starts, start, "right") - 1, np.searchsorted(starts, stop)
            begin = np.maximum(starts[low:high], start)
            is_filled = begin < np.minimum(starts[low + 1 : high + 1], stop)
            bins = low + np.flatnonzero(is_filled)
            of_bin[bins] += np.add.reduceat(weights, begin[is_filled] - start, axis=0)
        return Tally(of_bin, sums)


def number_runs(scores: SortedScores) -> NDArray[np.int64]:
    """The run of each trial; a tie of both classes is a run of its own.

    Args:
        scores: N sorted scores.

    Returns:
        (N,) from 0, non-decreasing, by descending score.
    """
    targets, nontargets = (np.diff(counts, prepend=0.0) for counts in scores.accepted())
    has_targets, has_nontargets = targets > 0, nontargets > 0
    is_new = np.ones(len(targets), dtype=np.bool_)
    is_new[1:] = (has_targets[1:] != has_targets[:-1]) | (has_nontargets[1:] != has_nontargets[:-1])
    is_new |= has_targets & has_nontargets
    return np.repeat(np.cumsum(is_new) - 1, np.diff(scores.last, prepend=-1))
