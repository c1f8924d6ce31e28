"""Several systems on the same trials, all measured under the same draws of speakers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from speaker_encoder.verification.bootstrap import SpeakerBootstrap, interval
from speaker_encoder.verification.evaluate import P_TARGET, Comparison, Verdict, judge
from speaker_encoder.verification.metrics import equal_error_rate, min_dcf
from speaker_encoder.verification.resampled import ResampledScores, draw_figures
from speaker_encoder.verification.trials import Trials, score_trials


@dataclass(frozen=True)
class SeveralSystems:
    """EER and minDCF of S systems on the same trials; fractions.

    Attributes:
        eers: (S,).
        min_dcfs: (S,).
        drawn_eers: (S, num_bootstrap), each column one draw of speakers.
        drawn_min_dcfs: (S, num_bootstrap).
    """

    eers: NDArray[np.float64]
    min_dcfs: NDArray[np.float64]
    drawn_eers: NDArray[np.float64]
    drawn_min_dcfs: NDArray[np.float64]

    def eer_interval(self, system: int) -> tuple[float, float]:
        """Gives the 95 % (low, high) of a system's EER."""
        return interval(self.drawn_eers[system])

    def compare(self, before: int, after: int) -> Comparison:
        """Says how the error rates of one system differ from another's, as `compare` does."""
        eer_interval = interval(self.drawn_eers[after] - self.drawn_eers[before])
        return Comparison(
            eer_difference=float(self.eers[after] - self.eers[before]),
            eer_difference_interval=eer_interval,
            min_dcf_difference=float(self.min_dcfs[after] - self.min_dcfs[before]),
            min_dcf_difference_interval=interval(
                self.drawn_min_dcfs[after] - self.drawn_min_dcfs[before]
            ),
            verdict=judge(*eer_interval),
        )

    def verdict(self, before: int, after: int) -> Verdict:
        """Says whether the second system is better than the first beyond noise, by the EER."""
        return judge(*interval(self.drawn_eers[after] - self.drawn_eers[before]))


def evaluate_several(
    systems: Sequence[ArrayLike],
    trials: Trials,
    speaker_ids: Sequence[str],
    *,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> SeveralSystems:
    """Measures several systems at once; each pair of them can then be compared.

    Args:
        systems: S times (N, D) embeddings of the same utterances.
        trials: with labels, over the N utterances.
        speaker_ids: (N,) the speaker of each utterance.
        num_bootstrap: number of draws of speakers.
        seed: of the draws.

    Returns:
        The figures: those of `evaluate` and `compare` with the same draws.

    Raises:
        UserError: as `evaluate`.
    """
    bootstrap = SpeakerBootstrap.from_trials(trials, speaker_ids)
    scores = [score_trials(rows, trials) for rows in systems]
    drawn = draw_figures(
        [ResampledScores.from_scores(some, bootstrap, (P_TARGET,)) for some in scores],
        bootstrap,
        num_bootstrap=num_bootstrap,
        seed=seed,
    )
    is_target = bootstrap.is_target
    return SeveralSystems(
        eers=np.array([equal_error_rate(some, is_target)[0] for some in scores]),
        min_dcfs=np.array([min_dcf(some, is_target, P_TARGET) for some in scores]),
        drawn_eers=np.stack([figures.eer for figures in drawn]),
        drawn_min_dcfs=np.stack([figures.min_dcf[:, 0] for figures in drawn]),
    )
