"""The figures of encoders along the line between a pretrained and a fine-tuned one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.training.interpolation import Choice, CurvePoint, choose_alpha
from speaker_encoder.verification.evaluate import Verdict
from speaker_encoder.verification.several import SeveralSystems, evaluate_several
from speaker_encoder.verification.trials import Trials

ALPHAS = tuple(tenth / 10 for tenth in range(11))
LEAST_SPEAKERS = 5
"""Draws of fewer speakers are so alike that any difference would seem to be beyond noise."""
_LEAST_DRAWS = 100


class LabelledTrials(Protocol):
    """Trials with labels over utterances whose speakers are known."""

    trials: Trials

    @property
    def speaker_ids(self) -> Sequence[str] | None:
        """(N,) the speaker of each utterance."""


@dataclass(frozen=True)
class MeasuredLine:
    """What was measured at each alpha; systems are in the order of the curve.

    Attributes:
        curve: a point for each alpha, ascending, alpha 0 first.
        validation: on the validation trials.
        reference: on the reference trials; None where there are none.
        num_speakers: of the validation trials.
    """

    curve: list[CurvePoint]
    validation: SeveralSystems
    reference: SeveralSystems | None
    num_speakers: int

    def place(self, alpha: float) -> int:
        """Gives the number of the system at an alpha of the curve."""
        return [point.alpha for point in self.curve].index(alpha)

    def choose(self, forgetting_tolerance: float, *, allow_worse: bool = False) -> Choice:
        """Chooses by `choose_alpha`; the reason says so where there are too few speakers."""
        return self.explained(
            choose_alpha(self.curve, forgetting_tolerance, allow_worse=allow_worse)
        )

    def explained(self, choice: Choice) -> Choice:
        """Gives a choice with the reason that counts where there are too few speakers."""
        if self.num_speakers >= LEAST_SPEAKERS or choice.alpha:
            return choice
        reason = (
            f"{self.num_speakers} validation speakers are too few to tell a difference from "
            f"noise; {LEAST_SPEAKERS} are needed"
        )
        return replace(choice, reason=reason)


def measure_line(
    alphas: Sequence[float],
    validation: LabelledTrials,
    rows: Sequence[NDArray[np.float32]],
    reference: LabelledTrials | None = None,
    reference_rows: Sequence[NDArray[np.float32]] = (),
    *,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> MeasuredLine:
    """Measures the embeddings of the encoders at each alpha.

    Args:
        alphas: (A,) ascending, 0 first.
        validation: the validation trials.
        rows: A times (N, D) embeddings of their utterances.
        reference: the reference trials, if there are any.
        reference_rows: A times (M, D) embeddings of theirs.
        num_bootstrap: number of draws of speakers.
        seed: of the draws.

    Returns:
        The figures; the same draws at all alphas.

    Raises:
        UserError: trials that nothing can be measured on.
    """

    def measure(data: LabelledTrials, systems: Sequence[NDArray[np.float32]]) -> SeveralSystems:
        assert data.speaker_ids is not None
        return evaluate_several(
            systems,
            data.trials,
            data.speaker_ids,
            num_bootstrap=max(num_bootstrap, _LEAST_DRAWS),
            seed=seed,
        )

    found = measure(validation, rows)
    other = None if reference is None else measure(reference, reference_rows)
    best = int(np.argmin(found.eers))  # of equals the first, nearest to alpha 0
    assert validation.speaker_ids is not None
    used = np.unique([validation.trials.enrolment, validation.trials.test])
    num_speakers = len({validation.speaker_ids[place] for place in used})

    def verdict(before: int, after: int) -> Verdict:
        if num_speakers < LEAST_SPEAKERS:
            return "no difference beyond noise"
        return found.verdict(before, after)

    curve = [
        CurvePoint(
            alpha,
            float(found.eers[place]),
            found.eer_interval(place),
            verdict(best, place),
            verdict(0, place),
            None if other is None else float(other.eers[place]),
            None if other is None else other.eer_interval(place),
        )
        for place, alpha in enumerate(alphas)
    ]
    return MeasuredLine(curve, found, other, num_speakers)
