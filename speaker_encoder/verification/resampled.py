"""Error rates of scored trials under many draws of speakers at once, in bounded memory.

EER and minDCF are looked for in two steps: over about a thousand bins of neighbouring scores
first, then only within the bins that can hold them. The result is that of all thresholds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from speaker_encoder.verification.bootstrap import SpeakerBootstrap
from speaker_encoder.verification.cllr import bayes_threshold, bits_lost, least_cllr
from speaker_encoder.verification.metrics import SortedScores, check_p_target
from speaker_encoder.verification.score_runs import ClassTrials, number_runs

NUM_BINS = 1024
DRAWS_AT_ONCE = 64
VALUES_AT_ONCE = 2**21
"""Most numbers in a table of all operating points by draws (16 MiB)."""
ROUNDING = 1e-12


class DrawnFigures(NamedTuple):
    """Figures of one system under num_bootstrap draws of speakers.

    Attributes:
        eer: (num_bootstrap,).
        min_dcf: (num_bootstrap, num_p_targets).
        act_dcf: (num_bootstrap, num_p_targets), at the Bayes thresholds.
        cllr: (num_bootstrap,) bits.
        min_cllr: (num_min_cllr,) bits, of the first draws.
    """

    eer: NDArray[np.float64]
    min_dcf: NDArray[np.float64]
    act_dcf: NDArray[np.float64]
    cllr: NDArray[np.float64]
    min_cllr: NDArray[np.float64]


class _Rates(NamedTuple):
    """(M, K) false-accept and miss rates of M operating points under K draws."""

    false_accept: NDArray[np.float64]
    miss: NDArray[np.float64]

    def costs(self, p_target: float) -> NDArray[np.float64]:
        """(M, K) normalised detection costs."""
        costs = p_target * self.miss
        costs += (1.0 - p_target) * self.false_accept
        return costs / min(p_target, 1.0 - p_target)

    def crossings(self) -> NDArray[np.float64]:
        """(K,) where the rates are equal; at the first point the miss rate must be greater."""
        gap = self.miss - self.false_accept
        after = np.argmax(gap <= 0, axis=0)
        draw = np.arange(gap.shape[1])
        gap_before, gap_after = gap[after - 1, draw], gap[after, draw]
        start = self.false_accept[after - 1, draw]
        step = self.false_accept[after, draw] - start
        return start + step * gap_before / (gap_before - gap_after)


@dataclass(frozen=True, slots=True)
class ResampledScores:
    """Scored trials of one system, ready to be weighted by draws of speakers.

    Attributes:
        targets: the target trials.
        nontargets: the nontarget trials.
        num_runs: runs of scores of one class.
        p_targets: prior probabilities of a target trial, for the detection costs.
    """

    targets: ClassTrials
    nontargets: ClassTrials
    num_runs: int
    p_targets: tuple[float, ...]

    @classmethod
    def from_scores(
        cls, scores: ArrayLike, bootstrap: SpeakerBootstrap, p_targets: Sequence[float]
    ) -> "ResampledScores":
        """Sorts scores and pools them into runs.

        Args:
            scores: (N,) finite, of the trials of the bootstrap.
            bootstrap: of those trials.
            p_targets: prior probabilities of a target trial.

        Returns:
            The runs.

        Raises:
            UserError: as `SortedScores.from_trials`, or a prior outside (0, 1).
        """
        for p_target in p_targets:
            check_p_target(p_target)
        sorted_scores = SortedScores.from_trials(scores, bootstrap.is_target)
        run = number_runs(sorted_scores)
        values = np.repeat(sorted_scores.thresholds, np.diff(sorted_scores.last, prepend=-1))
        classes = []
        for is_target in (True, False):
            chosen = np.flatnonzero(sorted_scores.is_target == is_target)
            trials = sorted_scores.order[chosen]
            kept = values[chosen]
            columns = [bits_lost(kept, np.full(len(kept), is_target))]
            columns += [(kept >= bayes_threshold(p)).astype(np.float64) for p in p_targets]
            classes.append(
                ClassTrials.from_trials(
                    bootstrap.enrolment_speaker[trials],
                    bootstrap.partner[trials],
                    run[chosen],
                    np.stack(columns),
                )
            )
        return cls(classes[0], classes[1], int(run[-1]) + 1, tuple(p_targets))

    def figures(self, copies: NDArray[np.float32], num_min_cllr: int = 0) -> DrawnFigures:
        """Figures of a block of draws.

        Args:
            copies: (num_speakers + 1, K), see `SpeakerBootstrap.copies`.
            num_min_cllr: compute minCllr for the first ones of these draws.

        Returns:
            The figures of K draws.
        """
        edges = np.unique(np.linspace(0, self.num_runs, NUM_BINS + 1).astype(np.int64))
        targets, nontargets = (
            trials.tally(copies, edges) for trials in (self.targets, self.nontargets)
        )
        accepted = [_accumulate(tally.of_bin) for tally in (targets, nontargets)]
        totals = accepted[0][-1], accepted[1][-1]
        added_by_targets, added_by_nontargets = (
            targets.sums / totals[0],
            nontargets.sums / totals[1],
        )
        priors = np.array(self.p_targets)[:, None]
        costs = priors * (1.0 - added_by_targets[1:]) + (1.0 - priors) * added_by_nontargets[1:]
        eer, min_dcf = self._search(copies, edges, accepted)
        return DrawnFigures(
            eer=eer,
            min_dcf=min_dcf,
            act_dcf=(costs / np.minimum(priors, 1.0 - priors)).T,
            cllr=(added_by_targets[0] + added_by_nontargets[0]) / 2,
            min_cllr=self._min_cllr(copies[:, :num_min_cllr]),
        )

    def _search(
        self,
        copies: NDArray[np.float32],
        edges: NDArray[np.int64],
        accepted: Sequence[NDArray[np.float64]],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """EER (K,) and minDCF (K, num_p_targets), given the accepted trials at the bins' edges."""
        totals = [counts[-1] for counts in accepted]
        coarse = _rates(*accepted, *totals)
        bin_of_eer = np.argmax(coarse.miss <= coarse.false_accept, axis=0) - 1  # (K,)
        eer = coarse.crossings()
        min_dcf = np.stack([coarse.costs(p).min(axis=0) for p in self.p_targets], axis=1)
        is_needed = np.zeros(len(edges) - 1, dtype=np.bool_)
        is_needed[bin_of_eer] = True
        # No point in a bin has a lower miss rate than its end, or false-accept rate than its start.
        bounds = _Rates(coarse.false_accept[:-1], coarse.miss[1:])
        for least, p_target in zip(min_dcf.T, self.p_targets, strict=True):
            is_needed |= (bounds.costs(p_target) < least - ROUNDING).any(axis=1)
        is_needed &= np.diff(edges) > 1  # a bin of one run has no points within
        for place in np.flatnonzero(is_needed):
            inner = np.arange(edges[place], edges[place + 1] + 1)
            counts = [
                before[place] + _accumulate(trials.tally(copies, inner).of_bin)
                for before, trials in zip(accepted, (self.targets, self.nontargets), strict=True)
            ]
            fine = _rates(*counts, *totals)
            for least, p_target in zip(min_dcf.T, self.p_targets, strict=True):
                np.minimum(least, fine.costs(p_target).min(axis=0), out=least)
            is_here = bin_of_eer == place
            if is_here.any():
                eer[is_here] = _Rates(*(rate[:, is_here] for rate in fine)).crossings()
        return eer, min_dcf

    def _min_cllr(self, copies: NDArray[np.float32]) -> NDArray[np.float64]:
        """(K,) bits; all runs at once, a few draws at a time."""
        edges = np.arange(self.num_runs + 1)
        num_draws = max(1, VALUES_AT_ONCE // self.num_runs)
        found = []
        for start in range(0, copies.shape[1], num_draws):
            some = copies[:, start : start + num_draws]
            targets, nontargets = (
                trials.tally(some, edges).of_bin for trials in (self.targets, self.nontargets)
            )
            found += [least_cllr(*both) for both in zip(targets.T, nontargets.T, strict=True)]
        return np.array(found)


def draw_figures(
    systems: Sequence[ResampledScores],
    bootstrap: SpeakerBootstrap,
    *,
    num_bootstrap: int,
    seed: int,
    num_min_cllr: int = 0,
) -> list[DrawnFigures]:
    """Figures of several systems on the same draws of speakers.

    Args:
        systems: scores of the same trials.
        bootstrap: of those trials.
        num_bootstrap: number of draws.
        seed: of the draws.
        num_min_cllr: compute minCllr for this many draws, the first ones.

    Returns:
        For each system its figures.

    Raises:
        UserError: as `SpeakerBootstrap.copies`.
    """
    blocks: list[list[DrawnFigures]] = [[] for _ in systems]
    num_made = 0
    for copies in bootstrap.copies(num_bootstrap, seed, DRAWS_AT_ONCE):
        for system, found in zip(systems, blocks, strict=True):
            found.append(system.figures(copies, max(0, num_min_cllr - num_made)))
        num_made += copies.shape[1]
    return [
        DrawnFigures(*(np.concatenate(values) for values in zip(*found, strict=True)))
        for found in blocks
    ]


def _accumulate(of_bin: NDArray[np.float64]) -> NDArray[np.float64]:
    """(num_bins + 1, K) trials before each bin, and at the end all of them."""
    accepted = np.zeros((of_bin.shape[0] + 1, of_bin.shape[1]))
    np.cumsum(of_bin, axis=0, out=accepted[1:])
    return accepted


def _rates(
    targets: NDArray[np.float64],
    nontargets: NDArray[np.float64],
    num_targets: NDArray[np.float64],
    num_nontargets: NDArray[np.float64],
) -> _Rates:
    """Rates of accepted trials (M, K) of all trials (K,)."""
    return _Rates(nontargets / num_nontargets, (num_targets - targets) / num_targets)
